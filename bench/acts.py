"""What happens to a lab while it is asked: one act after the other, to gale and to HAProxy in the same moment.

Each act is undone, and everything is whole again, before the next.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.proxies import Proxies
from gale.errors import HostError
from gale.lab.cluster import Lab
from gale.lab.faults import Faults

NODE, LOAD_BALANCER, NEXT = "node-2", "lb-0", "lb-1"
ROUTES_MOVE_S = 0.3
"""As soon as that a network's routing would notice a machine that is gone, as with BFD."""
RESTART_S = 1.0
WHOLE_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Scene:
    lab: Lab
    faults: Faults
    proxies: Proxies


@dataclass(frozen=True, slots=True)
class Act:
    """`begin` is the act, during which clients go on asking; `before` and `after` are not looked at.

    dead: the node that dies, whose connections are lost with it
    """

    name: str
    begin: Callable[[Scene], None]
    after: Callable[[Scene], None]
    before: Callable[[Scene], None] = lambda scene: None
    dead: str = ""


def acts() -> list[Act]:
    return [
        Act("nothing happens", lambda scene: None, lambda scene: None),
        Act("a node's programs die", lambda scene: scene.lab.kill(NODE), _start_node, dead=NODE),
        Act(
            "a node's machine dies",
            lambda scene: scene.faults.isolate(NODE),
            lambda scene: scene.faults.mend(),
            dead=NODE,
        ),
        Act("a node is added", _start_node, lambda scene: None, before=_stop_node),
        Act("a node is drained", _drain, _undrain),
        Act("the load balancer's program dies and starts again", _kill_program, lambda scene: None),
        Act("the load balancer's program is restarted", _restart, lambda scene: scene.proxies.end_old()),
        Act("the load balancer's machine dies", _lose_machine, lambda scene: scene.faults.mend()),
    ]


def wait_whole(scene: Scene) -> None:
    scene.lab.wait_routing(WHOLE_WITHIN_S)
    scene.proxies.wait_up()


def _start_node(scene: Scene) -> None:
    scene.lab.start(NODE)


def _stop_node(scene: Scene) -> None:
    scene.lab.stop(NODE)
    time.sleep(RESTART_S)


def _drain(scene: Scene) -> None:
    scene.proxies.set_drain(NODE, True)
    _order(scene, "drain")


def _undrain(scene: Scene) -> None:
    scene.proxies.set_drain(NODE, False)
    _order(scene, "undrain")


def _order(scene: Scene, order: str) -> None:
    done = scene.lab.run(LOAD_BALANCER, [sys.executable, "-P", "-m", "gale.cli.ctl", "node", order, NODE])
    if done.returncode:
        raise HostError(f"gale-ctl node {order} {NODE}: {done.stderr.strip()}")


def _kill_program(scene: Scene) -> None:
    scene.lab.kill(LOAD_BALANCER)
    scene.proxies.kill(LOAD_BALANCER)
    time.sleep(RESTART_S)
    scene.proxies.start(LOAD_BALANCER)
    scene.lab.start(LOAD_BALANCER)


def _restart(scene: Scene) -> None:
    scene.proxies.reload(LOAD_BALANCER)
    scene.lab.stop(LOAD_BALANCER)
    scene.lab.start(LOAD_BALANCER)


def _lose_machine(scene: Scene) -> None:
    scene.faults.isolate(LOAD_BALANCER)
    time.sleep(ROUTES_MOVE_S)
    scene.faults.move_address(LOAD_BALANCER, NEXT)
