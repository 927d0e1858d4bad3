"""What the documents say to type, typed: README's tour of a lab, and in that lab every block of commands that is marked
<!-- run -->. Names and addresses of the documents' machines are replaced by those of the lab.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.waiting import until

ROOT = Path(__file__).parents[1]
PREFIX = "gale-docs"
TOUR = re.compile(r"To look around yourself:\n\n```\n(.*?)```", re.DOTALL)
MARKED = re.compile(r"<!-- run -->\n```\n(.*?)```", re.DOTALL)
IN_THE_LAB = {
    "web-1": "node-1",
    "--service web": "--service default",
    "198.51.100.7": "10.77.1.1",
    "203.0.113.10:443": "10.77.1.10:8080",
    "203.0.113.2:8080": "10.77.1.10:8080",
}
GOES_ON = re.compile(r"gale-ctl top|--follow|--watch|--interval 10")
"""Commands that do not end by themselves, or not soon."""
WITHIN_S = 60
AT_ONCE = 4


def commands(block: str) -> list[str]:
    """Without remarks, which stand behind two blanks or more."""
    return [re.split(r" {2,}", line)[0].replace("sudo ", "") for line in block.splitlines() if line]


def said_by(*words: str, folder: Path = ROOT) -> str:
    """What a command says. It must be content."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def lab(command: str) -> str:
    return said_by("bash", "-euc", command.replace("gale-lab ", f"gale-lab --prefix {PREFIX} "))


@pytest.fixture(scope="module")
def tour() -> Iterator[Mapping[str, str]]:
    """Every step of README's tour but the last -> what was said; then the lab is whole again."""
    (block,) = TOUR.findall((ROOT / "README.md").read_text())
    install, *steps, down = commands(block)
    assert (install, down) == ("scripts/install", "gale-lab down")
    lab("gale-lab down")
    try:
        said = {step: lab(step) for step in steps}
        lab("gale-lab start node-1")
        yield said
    finally:
        lab(down)


def test_the_tour_shows_what_it_promises(tour: Mapping[str, str]) -> None:
    up, curl, status, killed = tour.values()
    assert "Every node routes on every load balancer" in up
    assert "node-" in curl
    assert "3 of 3 nodes route" in status
    assert re.search(r"node-1 .* failed", killed)


def test_inside_gale_ctl_asks_the_lab(tour: Mapping[str, str]) -> None:
    """Also where another gale-lb runs on the machine, or is named in the environment."""
    asked = "GALE_SERVER=127.0.0.1:1 gale-lab exec lb-1 -- gale-ctl config show -o json"
    assert f"/{PREFIX}/" in lab(asked)


def blocks() -> list[tuple[str, str]]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [(file.name, block) for file in files for block in MARKED.findall(file.read_text())]


def test_every_marked_block_can_be_typed(tour: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a load balancer, each block in a folder of its own; its lines one after the other, blocks at once."""

    def routes() -> str | None:
        return None if lab("gale-lab exec lb-0 -- gale-ctl node show node-1").count("routing") else "node-1 to route"

    until(routes, within_s=20)

    def typed(block: str, folder: Path) -> int:
        lines = [line for line in commands(block) if not GOES_ON.search(line)]
        text = "\n".join(lines)
        for name, in_the_lab in IN_THE_LAB.items():
            text = text.replace(name, in_the_lab)
        said_by("gale-lab", "--prefix", PREFIX, "exec", "lb-0", "--", "bash", "-euxc", text, folder=folder)
        return len(lines)

    marked = [(block, tmp_path_factory.mktemp(file)) for file, block in blocks()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert sum(pool.map(lambda each: typed(*each), marked)) > 20
