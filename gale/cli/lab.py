"""gale-lab: a gale cluster in network namespaces of this machine, for trying, testing and measuring."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gale import __version__
from gale.cli.failing import OneLineGroup, debug_option, one_line_errors
from gale.cli.lab_screen import LiveScreen, PlainScreen
from gale.errors import LabError
from gale.lab.cluster import InstanceStatus, Lab
from gale.lab.demo import WATCHED_S, Demo, Figure
from gale.lab.faults import Faults
from gale.lab.options import MODES, TUNNELS, LabOptions

ROUTES_WITHIN_S = 60.0
DEMO_TRAFFIC_S = 86_400.0


class InterruptedByError(LabError):
    """Somebody ended gale-lab: Ctrl-C, SIGTERM, or the terminal is gone."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}; the lab is removed")
        self.exit_code = 128 + number


class Ending:
    """Signals that end a program, noted when they come and raised by `check`, where the work can be left."""

    def __init__(self) -> None:
        self._number: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._number = self._number or number

    def check(self) -> None:
        if self._number is not None:
            raise InterruptedByError(self._number)


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """A command of gale-lab: it is given the lab, and its errors are one line."""

    def decorate(function: Callable[..., None]) -> click.Command:
        guarded = one_line_errors("gale-lab")(function)
        return main.command(name, **settings)(debug_option(click.pass_obj(guarded)))

    return decorate


interface_option = click.option(
    "--interface", type=click.Choice(["private", "public"]), default="private", show_default=True
)


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gale-lab")
@click.option("--prefix", default="gale", show_default=True, help="What the namespaces' names begin with.")
@click.pass_context
@one_line_errors("gale-lab")
def main(context: click.Context, prefix: str) -> None:
    """A gale cluster in network namespaces of this machine: load balancers, nodes and a client."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root: sudo gale-lab …")
    context.obj = Lab(prefix)


@command()
@click.option("--load-balancers", default=3, show_default=True, help="How many, 1 to 7.")
@click.option("--nodes", default=3, show_default=True, help="How many, 1 to 100.")
@click.option(
    "--mode",
    "modes",
    type=click.Choice(MODES),
    multiple=True,
    default=("l4",),
    show_default=True,
    help="How packets are forwarded; again for another service: l4 at port 8084, l3 at 8083, l2 at 8082.",
)
@click.option("--tunnel", type=click.Choice(TUNNELS), default="ipv4", show_default=True, help="What carries l3.")
@click.option("--ipv6", is_flag=True, help="Addresses of both versions for everybody.")
@click.option("--udp", is_flag=True, help="Services take datagrams too; nodes send them back behind their name.")
@click.option("--one-arm", is_flag=True, help="Load balancers have one interface, for clients and nodes.")
@click.option("--subnets", is_flag=True, help="Nodes stand behind a router, in a network of their own.")
@click.option("--virtual", is_flag=True, help="Clients use addresses that every load balancer serves.")
@click.option("--iperf", is_flag=True, help="At node-0 iperf3 too: l4 at port 5204, l3 at 5203, l2 at 5202.")
@click.option("--far-mtu", default=0, help="A second client, far, behind routers that carry no more at once than this.")
@click.option("--checks-before-routing", default=3, show_default=True, help="As in lb.toml, and so the next four.")
@click.option("--checks-timeout", default="1s", show_default=True)
@click.option("--black-list-after-fails", default=-1, show_default=True)
@click.option("--black-list-expiry", default="60s", show_default=True)
@click.option("--enforce-single-configuration", is_flag=True)
@click.option("--tls", is_flag=True, help="With certificates of its own for everybody.")
def up(lab: Lab, debug: bool, **options: Any) -> None:
    """Build the lab, start gale in it and wait until every node routes."""
    ending = Ending()
    begin = time.monotonic()
    lab.up(LabOptions(**options))
    try:
        lab.wait_routing(ROUTES_WITHIN_S, ending.check)
    except InterruptedByError:
        lab.down()
        raise
    except LabError as error:
        raise LabError(f"{error} (gale-lab logs NAME shows more; gale-lab down removes the lab)") from error
    print_status(lab)
    click.echo(f"Every node routes on every load balancer after {time.monotonic() - begin:.1f} s. Try:")
    click.echo(f"  gale-lab exec client -- curl http://{lab.topology.endpoints[0]}/")


@command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(lab: Lab, output: str, debug: bool) -> None:
    """Who is in the lab, what runs, and where clients connect."""
    if output == "json":
        instances = [asdict(instance) for instance in lab.status()]
        services = [asdict(service) for service in lab.options.services]
        endpoints = list(lab.topology.endpoints)
        click.echo(json.dumps({"instances": instances, "endpoints": endpoints, "services": services}, indent=2))
    else:
        print_status(lab)


def print_status(lab: Lab) -> None:
    table = Table("name", "role", "namespace", "running", "public", "private", box=None)
    for instance in lab.status():
        table.add_row(*cells(instance))
    Console(emoji=False).print(table)
    click.echo(f"Clients connect to {', '.join(lab.topology.endpoints)}")
    for service in lab.options.services[1:]:
        click.echo(f"  and port {service.port} for {service.name}, mode {service.mode}")


def cells(instance: InstanceStatus) -> tuple[str, ...]:
    running = "yes" if instance.running else "no"
    addresses = (instance.public or "", instance.private or "")
    return (instance.name, str(instance.role), instance.namespace, running, *addresses)


@command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("words", metavar="COMMAND…", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(lab: Lab, name: str, words: tuple[str, ...], debug: bool) -> None:
    """Run a command on an instance, with its exit code: gale-lab exec client -- COMMAND…"""
    command = words[1:] if words[0] == "--" else words
    if not command:
        raise click.UsageError("no COMMAND behind the --")
    argv = lab.command(name, command)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.execve(argv[0], argv, {**os.environ, **lab.environment})


@command()
@click.argument("name")
def start(lab: Lab, name: str, debug: bool) -> None:
    """Start again what does not run of a load balancer or a node."""
    lab.start(name)


@command()
@click.argument("name")
def stop(lab: Lab, name: str, debug: bool) -> None:
    """End a load balancer's or a node's programs in good order; a node says goodbye first."""
    lab.stop(name)


@command()
@click.argument("name")
def kill(lab: Lab, name: str, debug: bool) -> None:
    """SIGKILL a load balancer's or a node's programs; what a load balancer has in the kernel goes on."""
    lab.kill(name)


@command()
@click.argument("name")
def pause(lab: Lab, name: str, debug: bool) -> None:
    """SIGSTOP a load balancer's or a node's programs, until `gale-lab resume`."""
    Faults(lab).pause(name)


@command()
@click.argument("name")
def resume(lab: Lab, name: str, debug: bool) -> None:
    """Let what is paused go on."""
    Faults(lab).resume(name)


@command()
@click.argument("name")
@interface_option
def cut(lab: Lab, name: str, interface: str, debug: bool) -> None:
    """Cut an instance off at the switch, in both directions, until `gale-lab heal`; its link stays up."""
    Faults(lab).cut(name, interface)


@command()
@click.argument("name")
@interface_option
def heal(lab: Lab, name: str, interface: str, debug: bool) -> None:
    """Connect again what is cut off."""
    Faults(lab).heal(name, interface)


@command()
@click.argument("name")
@click.argument("through")
def move(lab: Lab, name: str, through: str, debug: bool) -> None:
    """Lead clients to the virtual address of a load balancer through another one; to itself moves it back."""
    Faults(lab).move_address(name, through)


@command()
@click.argument("name")
def logs(lab: Lab, name: str, debug: bool) -> None:
    """What an instance's programs have written."""
    click.echo(lab.log(name), nl=False)


@command()
def down(lab: Lab, debug: bool) -> None:
    """Remove the lab: processes, namespaces and files, however far it was built."""
    click.echo("The lab is removed." if lab.down() else "There is no lab.")


@command()
@click.option("--once", is_flag=True, help="One round; without it, rounds follow each other until Ctrl-C.")
@click.option(
    "--watched",
    "watched_s",
    metavar="SECONDS",
    default=WATCHED_S,
    show_default=True,
    help="How long the traffic is watched between two steps.",
)
def demo(lab: Lab, once: bool, watched_s: float, debug: bool) -> None:
    """A lab under real traffic loses a node and its leader and gets them back; then everything is removed."""
    ending = Ending()
    with lab.store.demo():
        if lab.down():
            click.echo("There was a lab already: it is removed.")
        try:
            figures = play(lab, once, watched_s, ending)
        finally:
            lab.down()
    width = max(len(figure.what) for figure in figures)
    click.echo()
    for figure in figures:
        click.echo(f"{figure.what:<{width}}  {figure.value}")
    click.echo("\nEverything that was promised happened; the lab is removed.")


def play(lab: Lab, once: bool, watched_s: float, ending: Ending) -> list[Figure]:
    console = Console()
    live = console.is_terminal and not console.is_dumb_terminal and "NO_COLOR" not in os.environ
    begin = time.monotonic()
    with LiveScreen(console) if live else PlainScreen() as screen:
        options = LabOptions()
        screen.say(f"Starting gale in namespaces: {options.load_balancers} load balancers, {options.nodes} nodes.")
        lab.up(options)
        lab.wait_routing(ROUTES_WITHIN_S, ending.check)
        screen.say(f"Every node routes on every load balancer, {time.monotonic() - begin:.1f} s after the start.")
        with lab.watch() as watch, lab.traffic(duration_s=DEMO_TRAFFIC_S) as traffic:
            acts = Demo(lab, traffic, watch, screen, ending.check, watched_s)
            acts.first_answers()
            first = time.monotonic() - begin
            screen.say(f"The first requests are forwarded, {first:.1f} s after the start.")
            figures = [Figure("first requests forwarded after", f"{first:.1f} s")]
            for number in [0] if once else count():
                played = acts.round(number)
            return [*figures, *played, *acts.totals()]


if __name__ == "__main__":
    main()
