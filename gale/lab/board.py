"""A scene as two tables and a line, for a terminal."""

from collections.abc import Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from gale.lab.scene import Scene

PHASE_STYLES = {"routing": "green", "joining": "yellow", "draining": "yellow", "failed": "red", "banned": "red"}
STORY_LINES = 8


def board(scene: Scene | None, story: Sequence[str], elapsed_s: float) -> RenderableType:
    told = Text("\n".join(story[-STORY_LINES:]))
    if scene is None:
        return Panel(told, title=f"gale · {elapsed_s:.0f} s", title_align="left")
    failed = Text(f"{scene.failed} failed", style="red" if scene.failed else "green")
    totals = Text.assemble(f"{scene.rate:.0f} requests per second · {scene.answered} answered · ", failed)
    tables = Columns([_lbs(scene), _nodes(scene)], padding=(0, 2))  # one below the other on a narrow terminal
    return Panel(Group(tables, totals, Text(), told), title=f"gale · {elapsed_s:.0f} s", title_align="left")


def line(scene: Scene) -> str:
    """The scene in one line, for where there is no terminal."""
    nodes = ", ".join(f"{node.name} {'/'.join(node.phases)} {node.rate:.0f}/s" for node in scene.nodes)
    leader = f"{scene.leader} leads" if scene.leader else "nobody leads"
    return f"{scene.rate:.0f} requests/s, {scene.failed} failed so far; {leader}; {nodes}"


def _table(*headings: str) -> Table:
    return Table(*(Column(heading, no_wrap=True) for heading in headings), box=None)


def _lbs(scene: Scene) -> Table:
    table = _table("load balancer", "for clients", "role", "generation", "requests/s", "failed")
    for row in scene.lbs:
        role = Text(row.role or "not running", style={"leader": "bold green", None: "red"}.get(row.role, ""))
        generation = "" if row.generation is None else str(row.generation)
        table.add_row(row.name, row.endpoint, role, generation, f"{row.rate:.0f}", str(row.failed))
    return table


def _nodes(scene: Scene) -> Table:
    table = _table("node", "phase", "requests/s", "")
    for row in scene.nodes:
        phase = Text("/".join(row.phases) or "unknown", style=PHASE_STYLES.get(row.phases[0] if row.phases else "", ""))
        share = row.rate / scene.rate if scene.rate else 0
        table.add_row(row.name, phase, f"{row.rate:.0f}", Text("█" * round(16 * share), style="blue"))
    return table
