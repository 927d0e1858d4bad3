"""A start goes on with what forwards: flows live on, over builds and changes, whatever moment a start is killed at."""

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gale.core.plan import SetSlots
from gale.dataplane import attach, compiler, jiffies
from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.adapter import BpfDataplane
from gale.dataplane.hold import holding
from gale.dataplane.pins import Old, Pins
from gale.dataplane.program import load_source
from gale.dataplane.settings import DataplaneSettings, Listener
from gale.dataplane.syscall import map_info, pin, pinned, program_info
from gale.dataplane.takeover import Start, remove
from gale.errors import DataplaneError
from tests.packet import needs
from tests.packet.live import DNS, DNS_ON_NODES, SETTINGS, SIDES, SLOTS, WEB, WEB_ON_NODES, loaded, started
from tests.packet.network import PUBLIC, PUBLIC6, Network, namespace, one_arm, run

BOTH_VERSIONS = SETTINGS
IPV4 = replace(SETTINGS, listeners=tuple(listener for listener in SETTINGS.listeners if ":" not in listener.address))
"""Compiled in half the time."""

PUBLIC_PROGRAM, PRIVATE_PROGRAM = "gale_public", "gale_private"

pytestmark = [
    needs.NAMESPACES,
    needs.ETHTOOL,
    pytest.mark.timeout(240),
]


class Talk:
    """Connections through the load balancer that stay open."""

    def __init__(
        self,
        net: Network,
        stack: ExitStack,
        services: Sequence[str] = (PUBLIC,),
        port: int = WEB_ON_NODES,
        udp: bool = True,
    ) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._datagrams: list[tuple[socket.socket, socket.socket]] = []
        for service in services:
            node, _ = SIDES[service]
            with net.listen(port, address=node) as listening:
                client = stack.enter_context(net.connect(WEB, address=service))
                there = stack.enter_context(listening.accept()[0])
            there.settimeout(5)
            self._pairs.append((client, there))
            if udp:
                node_end = stack.enter_context(net.datagrams(net.node, node, DNS_ON_NODES))
                end = stack.enter_context(net.datagrams(net.client, "::" if ":" in service else "0.0.0.0"))
                end.connect((service, DNS))
                self._datagrams.append((end, node_end))
        self.go_on()

    def go_on(self) -> None:
        """A word each way on each, or it fails."""
        for one, other in self._pairs:
            for sender, receiver in ((one, other), (other, one)):
                sender.sendall(b"hello")
                assert receiver.recv(100) == b"hello"
        for client, node in self._datagrams:
            client.send(b"question")
            question, peer = node.recvfrom(100)
            node.sendto(question, peer)
            assert client.recv(100) == b"question"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def forwards(net: Network, port: int = WEB_ON_NODES) -> None:
    """New connections, with this port of the node."""
    with ExitStack() as stack:
        Talk(net, stack, port=port, udp=False)


def restarted(net: Network, before: BpfDataplane, settings: DataplaneSettings) -> BpfDataplane:
    before.close()
    return started(net, settings)


def start_of(dataplane: BpfDataplane) -> Start:
    return dataplane._started


def found(net: Network) -> Old:
    with namespace(net.balancer):
        old = Pins("public").find()
    assert old is not None
    return old


def ids(maps: "Old | Start", *names: str) -> list[int]:
    held = maps.maps if isinstance(maps, Old) else maps.program.maps
    return [map_info(held[name].fd).id for name in names]


def killed_at(net: Network, start: Start, steps: int) -> None:
    """A child takes the first steps of a start, and is killed."""
    child = os.fork()
    if child == 0:
        try:
            with namespace(net.balancer):
                for step in start.steps()[:steps]:
                    step()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


# Restarts


def test_flows_outlive_gale_lb(net: Network, stack: ExitStack) -> None:
    """Flows, numbers of listeners and all; also when nothing is attached any more, as after a driver was loaded anew:
    then the names in the file system are what is left."""
    first = started(net, BOTH_VERSIONS)
    talk = Talk(net, stack, [PUBLIC, PUBLIC6])
    second = loaded(net, BOTH_VERSIONS)
    talk.go_on()
    forwards(net)
    with namespace(net.balancer):
        second.attach()
        assert attach.filters("private", PRIVATE_PROGRAM) == [
            program_info(start_of(second).program.fds[PRIVATE_PROGRAM]).id
        ]
        assert second.verify() == ()
    assert start_of(second).program.adopted == {"flows", "returns", "fragments", "strays"}
    assert start_of(second).maps.directory.entries == start_of(first).maps.directory.entries
    assert ids(found(net), "nodes", "directory") == ids(start_of(second), "nodes", "directory")
    talk.go_on()
    forwards(net)

    with namespace(net.balancer):
        attach.detach_xdp("public", PUBLIC_PROGRAM)
        attach.detach_filter("private", PRIVATE_PROGRAM)
    third = restarted(net, second, BOTH_VERSIONS)
    assert ids(start_of(third), "flows", "returns") == ids(start_of(first), "flows", "returns")
    talk.go_on()
    first.close()
    third.close()


def test_a_start_may_be_killed_at_every_step(net: Network, stack: ExitStack) -> None:
    first = started(net, IPV4)
    talk = Talk(net, stack)
    second = loaded(net, IPV4)
    tables = ids(start_of(first), "flows", "returns")
    for steps in range(len(start_of(second).steps()) + 1):
        killed_at(net, start_of(second), steps)
        talk.go_on()
        forwards(net)
        assert ids(found(net), "flows", "returns") == tables, f"after {steps} steps"
    second.close()
    killed_at(net, start_of(second), 4)
    third = restarted(net, first, IPV4)
    talk.go_on()
    with namespace(net.balancer):
        assert third.verify() == ()
        assert len(attach.filters("private", PRIVATE_PROGRAM)) == 1
        assert {entry.name for entry in Pins("public").folder.iterdir()} == {"maps", "filter", "clsact"}
    third.close()


def with_few_rights(net: Network) -> dict[str, Any]:
    """What a process with the rights of the unit finds: without CAP_SYS_ADMIN the kernel opens nothing by its id."""
    script = (
        "import json; from gale.dataplane import attach; from gale.dataplane.pins import Pins;"
        "from gale.dataplane.syscall import map_info; old = Pins('public').find();"
        "maps = {name: map_info(each.fd).id for name, each in old.maps.items()} if old else {};"
        "print(json.dumps({'program': attach.xdp_program('public'), 'maps': maps}))"
    )
    rights = ("setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_admin,+net_raw", "--inh-caps=-all", "--")
    said = run("nsenter", f"--net=/run/netns/{net.balancer}", *rights, sys.executable, "-c", script)
    return dict(json.loads(said))


def test_what_forwards_is_found_without_the_right_to_everything(net: Network, stack: ExitStack) -> None:
    """Whatever moment the start before was killed at, also while the names are those of two starts."""
    first = started(net, IPV4)
    second = loaded(net, IPV4)
    steps = len(start_of(second).steps())
    for taken in (0, 1, 4, 7, steps):
        killed_at(net, start_of(second), taken)
        found_now, forwarding = with_few_rights(net), found(net)
        assert found_now["program"] == PUBLIC_PROGRAM
        assert found_now["maps"] == {name: map_info(each.fd).id for name, each in forwarding.maps.items()}
    shutil.rmtree(Pins("public").folder.with_name(f"public-{Path('/run/netns', net.balancer).stat().st_ino}"))
    assert with_few_rights(net) == {"program": "", "maps": {}}
    first.close()


def names_do_not_count_elsewhere(net: Network) -> None:
    """The number of a network namespace may be given again, and the folder is called by it."""
    with namespace(net.balancer):
        folder = Pins("public").folder
    with namespace(net.node):
        elsewhere = Pins("eth0")
    shutil.copytree(folder, elsewhere.folder, copy_function=_pin_again, symlinks=True)
    try:
        with namespace(net.node):
            assert elsewhere.find() is None
    finally:
        shutil.rmtree(elsewhere.folder)


def _pin_again(source: str, target: str) -> None:
    descriptor = pinned(source)
    pin(descriptor, target)
    os.close(descriptor)


def test_slots_that_move_while_there_is_no_gale_lb(net: Network) -> None:
    """They are compared with those that the last start has left, whatever numbers their services had."""
    near = Listener("near", PUBLIC, 81, "tcp", 81, "l2")
    first = started(net, replace(IPV4, listeners=(*IPV4.listeners, near)))
    first.perform(SetSlots("near", b"\1\0" * SLOTS))
    dataplane, settings = first, replace(IPV4, listeners=(near, *IPV4.listeners))
    for owner, moved in ((1, 0), (2, SLOTS), (2, SLOTS)):
        dataplane = restarted(net, dataplane, settings)
        tables = start_of(dataplane).maps.tables
        with namespace(net.balancer):
            dataplane.perform(SetSlots("near", bytes((owner, 0)) * SLOTS))
            dataplane.perform(SetSlots("web", bytes((owner, 0)) * SLOTS))
            assert dataplane.verify() == ()
        assert len(tables["near"].moved) == moved
        assert not tables["web"].moved, "flows of l4 are known"
        assert ids(start_of(dataplane), "strays") == ids(start_of(first), "strays")
    assert tables["near"].youngest(1, jiffies.now()) is not None
    dataplane.close()


# Other builds


@contextmanager
def older_build(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Its tables have some fields in other places."""
    shutil.copytree(BPF_DIRECTORY, folder / "bpf")
    header = folder / "bpf" / "abi.h"
    text = header.read_text()
    for struct, one, two in (
        ("struct return_path {", "__be16 node_port;", "__be16 source_port;"),
        ("struct flow {", "__u16 node;", "__be16 source_port;"),
    ):
        first = text.index(one, text.index(struct))
        second = text.index(two, first)
        text = text[:first] + two + text[first + len(one) : second] + one + text[second + len(two) :]
    header.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "BPF_DIRECTORY", folder / "bpf")
        yield


def test_tables_of_another_shape_are_converted_and_a_start_may_be_killed_at_every_step(
    net: Network, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with older_build(monkeypatch, tmp_path):
        first = started(net, IPV4)
    talk = Talk(net, stack)
    second = loaded(net, IPV4)
    start = start_of(second)
    assert start.program.adopted == {"fragments", "strays"}
    swapped = [step.__name__ for step in start.steps()].index("_swap")
    for steps in range(len(start.steps()) + 1):
        killed_at(net, start, steps)
        talk.go_on()
        forwards(net)
        forwarding = start if steps > swapped else start_of(first)
        assert ids(found(net), "flows", "returns") == ids(forwarding, "flows", "returns"), f"after {steps} steps"
    assert second.verdicts()["no_flow"] == 0
    assert start.program.maps["takeover"][0].value == 0
    second.close()
    first.close()


def test_tables_of_another_size_are_converted(net: Network, stack: ExitStack) -> None:
    dataplane = started(net, IPV4)
    talks = [Talk(net, stack), *(Talk(net, stack, udp=False) for _ in range(50))]
    for flows in (IPV4.flows << 4, IPV4.flows >> 2):
        dataplane = restarted(net, dataplane, replace(IPV4, flows=flows))
        assert start_of(dataplane).program.adopted == {"fragments", "strays"}
        for talk in talks:
            talk.go_on()
        forwards(net)
        assert dataplane.verdicts()["no_flow"] == 0
    dataplane.close()


# Other settings


def changed(**changes: Any) -> DataplaneSettings:
    """Of the listeners of "web"."""
    web, *others = IPV4.listeners
    return replace(IPV4, listeners=(replace(web, **changes), *others))


def test_flows_go_on_as_they_began(net: Network, stack: ExitStack) -> None:
    """Whatever a service becomes meanwhile: of another port, of another mode, one of more; and then again as it was."""
    dataplane = started(net, IPV4)
    talk = Talk(net, stack)

    dataplane = restarted(net, dataplane, changed(target_port=9090))
    talk.go_on()
    forwards(net, 9090)

    more = Listener("more", PUBLIC, 8000, "tcp", 8000)
    dataplane = restarted(net, dataplane, replace(IPV4, listeners=(more, *IPV4.listeners)))
    talk.go_on()
    forwards(net)

    dataplane = restarted(net, dataplane, changed(mode="l2", target_port=WEB))
    talk.go_on()

    dataplane = restarted(net, dataplane, IPV4)
    talk.go_on()
    forwards(net)
    dataplane.close()


# Strangers, and the end


def programs_on(net: Network) -> str:
    with namespace(net.balancer):
        return run("tc", "filter", "show", "dev", "private", "ingress") + run("tc", "qdisc", "show", "dev", "private")


def test_nothing_is_left(net: Network) -> None:
    before = programs_on(net)
    started(net, IPV4).close()
    names_do_not_count_elsewhere(net)
    with namespace(net.balancer):
        folder = Pins("public").folder
        assert folder.is_dir()
        remove("public", "private")
        remove("public", "private")
        assert attach.xdp_program("public") is None
        assert Pins("public").find() is None
    assert programs_on(net) == before
    assert not folder.exists()


def test_another_public_interface(net: Network) -> None:
    """The one of before is left, unless another gale-lb runs there; and nothing stays in the end."""
    before = programs_on(net)
    settings = replace(IPV4, public_interface="other")
    net.cable("other", ("203.0.113.1",), net.client, "eth1", ("203.0.113.7",))
    started(net, IPV4).close()
    with namespace(net.balancer):
        folder = Pins("public").folder
        with holding("public"):
            started(net, settings).close()
            assert set(attach.interfaces_with(PUBLIC_PROGRAM)) == {"public", "other"}
        started(net, settings).close()
        assert attach.interfaces_with(PUBLIC_PROGRAM) == ["other"]
        assert not folder.exists()
        assert len(attach.filters("private", PRIVATE_PROGRAM)) == 1
        remove("other", "private")
        assert not attach.interfaces_with(PUBLIC_PROGRAM)
    assert programs_on(net) == before


def test_what_strangers_have_there_stays(net: Network) -> None:
    """An XDP program, and a qdisc for filters."""
    source = b"#include <uapi/linux/bpf.h>\nint stranger(struct xdp_md *ctx) { return XDP_PASS; }"
    stranger = load_source(source, [], {"stranger": "xdp"})
    with namespace(net.balancer):
        run("tc", "qdisc", "add", "dev", "private", "clsact")
        before = programs_on(net)
        dataplane = loaded(net, IPV4)
        attach.attach_xdp("public", stranger.fds["stranger"], "stranger")
        with pytest.raises(DataplaneError, match="another XDP program is attached, 'stranger'"):
            dataplane.attach()
        assert attach.filters("private", PRIVATE_PROGRAM) == []
        remove("public", "private")
        assert attach.detach_xdp("public", "stranger")
        dataplane.attach()
        assert dataplane.verify() == ()
        remove("public", "private")
    dataplane.close()
    assert programs_on(net) == before


def test_what_somebody_takes_away_is_put_back(net: Network, stack: ExitStack) -> None:
    dataplane = started(net, IPV4)
    talk = Talk(net, stack)
    with namespace(net.balancer):
        assert dataplane.verify() == ()
        attach.detach_xdp("public", PUBLIC_PROGRAM)
        attach.detach_filter("private", PRIVATE_PROGRAM)
        shutil.rmtree(Pins("public").folder / "maps")
        found_lines = dataplane.verify()
        assert [line.split(": ", 1)[1] for line in found_lines] == [
            "gale's XDP program was not attached",
            "0 filters of gale's, and not the one of this start",
            "other maps than those in use were pinned there",
        ]
        assert dataplane.verify() == ()
    talk.go_on()
    dataplane.close()


def test_one_interface_for_both_sides(bpf: None, stack: ExitStack) -> None:
    settings = replace(IPV4, public_interface="arm", private_interface="arm")
    with one_arm() as net:
        first = started(net, settings)
        assert first.attachments == {"arm": "native, tc"}
        talk = Talk(net, stack)
        second = restarted(net, first, settings)
        talk.go_on()
        with namespace(net.balancer):
            assert second.verify() == ()
            remove("arm", "arm")
            assert attach.xdp_program("arm") is None
            assert not attach.has_clsact("arm")
        second.close()


def test_a_bpf_file_system_is_mounted_where_there_is_none_and_goes_again() -> None:
    """In a mount namespace of its own, where the machine's is not seen."""
    script = (
        "from pathlib import Path; from gale.dataplane.pins import Pins, BPF_FS;"
        "pins = Pins('lo'); pins.note('filter', 'lo'); assert pins.noted('filter') == 'lo';"
        "assert ' bpf ' in ''.join(line for line in open('/proc/self/mounts') if '/sys/fs/bpf' in line);"
        "pins.remove(); assert '/sys/fs/bpf' not in open('/proc/self/mounts').read()"
    )
    umount = "while umount /sys/fs/bpf 2>/dev/null; do :; done"
    said = run("unshare", "--mount", "--net", "sh", "-c", f'{umount}; exec {sys.executable} -c "$0"', script)
    assert "mounted a BPF file system" in said
