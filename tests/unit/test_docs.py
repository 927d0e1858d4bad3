"""The documents are whole: every link leads somewhere, every key and verdict stands where operators look for it, and
what gale is quoted with it says.

`make docs` says the same of the site, of links and anchors at least; this is quick, and part of every run.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import get_args

import pytest

from gale.config.lb import LbFile, load_lb
from gale.config.node import NodeFile, load_node
from gale.config.reading import Table
from gale.config.services import ServiceEntry
from gale.dataplane.abi import BPF_DIRECTORY
from gale.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bpf" / "README.md"])
FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
VERDICT = re.compile(r'VERDICT\(([A-Z0-9_]+), ([A-Z]+), "')
TROUBLES = DOCS / "TROUBLESHOOTING.md"
VERDICT_NAMES = [name for name, _ in VERDICT.findall((BPF_DIRECTORY / "verdict.h").read_text())]


@dataclass(frozen=True)
class Page:
    links: tuple[str, ...]
    anchors: frozenset[str]


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading, and the site too (mkdocs.yml)."""
    text = re.sub(r"\]\([^)]*\)", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def page(file: Path) -> Page:
    text = FENCED.sub("", file.read_text())
    headings = [slug(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    once = frozenset(found for found in headings if headings.count(found) == 1)  # of twins each counts differently
    return Page(tuple(LINK.findall(re.sub(r"`[^`]*`", "", text))), once)


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    return {file: page(file) for file in PAGES}


def broken(links: Iterator[str] | tuple[str, ...], of: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (of.parent / name).resolve() if name else of
        if not target.exists() or (anchor and anchor not in pages.get(target, Page((), frozenset())).anchors):
            yield f"{of.relative_to(ROOT)}: {link}"


def test_every_link_leads_to_a_file_and_every_anchor_to_one_heading(pages: dict[Path, Page]) -> None:
    assert sum(len(page.links) for page in pages.values()) > 100
    assert not [each for file, page in pages.items() for each in broken(page.links, file, pages)]


@pytest.mark.parametrize("link", ["docs/NOWHERE.md", "docs/OPERATING.md#no-such-heading", "#nor-here"])
def test_a_broken_link_would_be_found(pages: dict[Path, Page], link: str) -> None:
    assert list(broken((link,), ROOT / "README.md", pages))


def test_every_alert_leads_to_a_section(pages: dict[Path, Page]) -> None:
    runbooks = re.findall(r"^ +runbook: (\S+)$", (ROOT / "monitoring" / "gale-alerts.yml").read_text(), re.MULTILINE)
    assert len(runbooks) > 10
    assert not list(broken(tuple(runbooks), ROOT / "README.md", pages))


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    there = {str(file.relative_to(ROOT)) for file in PAGES if not re.match(r"\d{4}-", file.name)}
    assert listed == there | {"bench/results/faults.md"}


def test_every_decision_is_in_the_list_of_decisions() -> None:
    files = {file.name for file in (DOCS / "adr").glob("0*.md")}
    assert files == set(re.findall(r"\]\((0[^)]+)\)", (DOCS / "adr" / "README.md").read_text()))


def keys(table: type[Table]) -> Iterator[str]:
    """ "table.key" of each; tables that may be there many times are not among them."""
    for name, kind in table.__annotations__.items():
        for part in get_args(kind) if isinstance(kind, UnionType) else (kind,):
            if isinstance(part, type) and issubclass(part, Table):
                yield from (f"{name}.{key}" for key in part.__struct_fields__)


@pytest.mark.parametrize(("file", "heading"), [(LbFile, "## lb.toml"), (NodeFile, "## node.toml")])
def test_every_key_of_the_configuration_is_documented_and_none_else(file: type[Table], heading: str) -> None:
    part = (DOCS / "CONFIGURATION.md").read_text().split(heading)[1].split("\n## ")[0].split("\n### ")[0]
    cells = [row.split(" | ")[0] for row in re.findall(r"^\| .*$", part, re.MULTILINE)]
    documented = [key for cell in cells for key in re.findall(r"`(\w+\.\w+)`", cell)]
    assert sorted(documented) == sorted(keys(file))


def test_every_key_of_a_service_is_documented() -> None:
    part = (DOCS / "CONFIGURATION.md").read_text().split("### Services")[1].split("```")[0]
    cells = [row.split(" | ")[0] for row in re.findall(r"^\| .*$", part, re.MULTILINE)]
    assert set(ServiceEntry.__struct_fields__) <= {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(
    ("source", "part"), [("verdict.h", (0, "## On nodes")), ("decap.c", (1, "## On nodes"))], ids=["public", "node"]
)
def test_every_verdict_is_explained_with_what_to_do(source: str, part: tuple[int, str]) -> None:
    text = (DOCS / "VERDICTS.md").read_text().split(part[1])[part[0]]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    named = [(name.lower(), action.lower()) for name, action in VERDICT.findall((BPF_DIRECTORY / source).read_text())]
    assert len(named) > 5
    assert sorted(rows) == sorted(named)


def sayings() -> Iterator[str]:
    """Every text in gale's sources, with ... for what is filled in."""
    for file in (ROOT / "gale").rglob("*.py"):
        for part in ast.walk(ast.parse(file.read_text())):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
            elif isinstance(part, ast.JoinedStr):
                yield "".join(str(each.value) if isinstance(each, ast.Constant) else "\n" for each in part.values)


def quoted() -> Iterator[str]:
    """What the first column of TROUBLESHOOTING.md's tables "it says" and "reason" has in backquotes."""
    for table in re.findall(r"^\| (?:it says|reason)\b.*\n(?:\|.*\n)+", TROUBLES.read_text(), re.MULTILINE):
        for row in table.splitlines()[2:]:
            yield from re.findall(r"`([^`]+)`", row.split(" | ")[0])


def test_what_gale_is_quoted_with_it_says() -> None:
    """Between the dots, and without the interfaces of the examples. Commands and alerts are not its words."""
    said = [*sayings(), *map(str.lower, VERDICT_NAMES)]
    words = [saying for saying in quoted() if not saying.startswith(("gale-ctl ", "Gale"))]
    assert len(words) > 40
    for saying in words:
        parts = [part.strip(" :;,") for part in re.split(r"…|\beth\d\b", saying)]
        assert not [part for part in parts if not any(part in text for text in said)], saying


CAUSES = {"turn": 2, "record": 3, "_fall": 2, "put_load_balancer": 1, "refer": 1, "_forget": 1, "_cause": 0}
"""What makes events in gale/core -> which of its arguments is the cause."""


def causes() -> Iterator[str]:
    """The fixed parts of each."""
    for file in (ROOT / "gale" / "core").glob("*.py"):
        for call in (each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in CAUSES and len(call.args) > CAUSES[name]:
                parts = [each for each in ast.walk(call.args[CAUSES[name]]) if isinstance(each, ast.Constant)]
                yield from (part.value for part in parts if isinstance(part.value, str))


def test_every_cause_of_an_event_is_explained() -> None:
    told = (DOCS / "OPERATING.md").read_text().split("### What there is to be told")[1].split("\n## ")[0]
    known = {" ".join(re.sub(r"\W+", " ", cause).split()) for cause in causes()} - {""}
    assert len(known) > 20
    assert not [cause for cause in known if cause not in re.sub(r"\W+", " ", told)]


LEAST = {
    load_lb: {
        "private_interface": 'net_interface_private = "eth0"',
        "public_interface": 'net_interface_public = "eth1"',
        "load_balancer_quorum": 'addresses = [{ ip = "192.168.1.2" }]',
    },
    load_node: {"load_balancer": 'addresses = [{ ip = "192.168.1.2" }]', "node": 'name = "web-1"'},
}
"""What a piece of a file needs around it to be a whole one."""


def pieces() -> list[tuple[str, str]]:
    found = [
        (file.name, piece) for file in PAGES for piece in re.findall(r"```toml\n(.*?)```", file.read_text(), re.DOTALL)
    ]
    assert len(found) > 4
    return found


@pytest.mark.parametrize(("page", "piece"), pieces())
def test_every_piece_of_configuration_is_right(page: str, piece: str, tmp_path: Path) -> None:
    refusals = []
    for load, least in LEAST.items():
        missing = [f"[{table}]\n{keys}\n" for table, keys in least.items() if f"[{table}]" not in piece]
        file = tmp_path / "file.toml"
        file.write_text("\n".join([*missing, piece]))
        try:
            load(file)
            return
        except ConfigError as error:
            refusals.append(str(error))
    raise AssertionError(f"{page}: {refusals}")
