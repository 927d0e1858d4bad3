"""Puts every measured number where it is quoted: `python -m bench.page [--check]`.

In the DOCUMENTS what stands between <!-- begin: NAME --> and <!-- end --> is made from the files in
bench/results/ by the function of that name here; beside those files it draws the pictures (bench/plots.py). Equal
results give equal texts and pictures, so a test compares them with what is committed.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.aims import aims, headline
from bench.paper import paper
from bench.plots import plots
from bench.sizing import sizing

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench/results"
DOCUMENTS = ROOT / "docs/PERFORMANCE.md", ROOT / "docs/SIZING.md", ROOT / "README.md"
MARKED = re.compile(r"(<!-- begin: ([\w-]+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)

Results = Mapping[str, Any]


def _machine(results: Results) -> str:
    """Of each file of results, by the machine that it says."""
    return "".join(f"- {name}: {tables.machine(about)}" for name, about in results["about"].items())


def _packet(results: Results) -> str:
    figures = results["packet"]
    return "\n".join(
        [tables.packets(figures), tables.wires(figures), tables.slots(figures), pictures(results, "packet")]
    )


def _contest(name: str) -> Callable[[Results], str]:
    def made(results: Results) -> str:
        if name not in results:
            return ""
        judged, figures = results[name].get("aims"), results[name]["results"]
        return "\n".join([*([aims(judged)] if judged else []), *_by_metrics(figures), pictures(results, name)])

    return made


def _by_metrics(figures: Sequence[tables.Figure]) -> Iterator[str]:
    """Cases that are measured by the same metrics share a table."""
    metrics: dict[str, dict[str, None]] = {}
    for it in figures:
        metrics.setdefault(it["case"], {})[it["metric"]] = None
    groups: dict[tuple[str, ...], list[str]] = {}
    for case, named in metrics.items():
        groups.setdefault(tuple(named), []).append(case)
    for cases in groups.values():
        yield tables.contest(figures, cases)


def _spread(results: Results) -> str:
    figures = results["spread"]["results"]
    return "\n".join(
        [
            tables.spread(figures, ["worst share", "removal", "addition"]),
            "Flows that are elsewhere afterwards, of ten thousand:\n",
            tables.spread(figures, ["flap", "twenty flaps"], many=True),
            pictures(results, "spread"),
        ]
    )


def _control(results: Results) -> str:
    return tables.control(results["control"]["figures"])


def _against(results: Results) -> str:
    return tables.against(results["against"]["results"]) if "against" in results else ""


def _scale(results: Results) -> str:
    figures = results["scale"]["results"]
    over = [tables.scale(figures, "load_balancers"), tables.scale(figures, "nodes")]
    return "\n".join([*over, pictures(results, "scale")])


def _paper(results: Results) -> str:
    return paper(results["control"], results["scale"])


SECTIONS: dict[str, Callable[[Results], str]] = {
    "machine": _machine,
    "packet": _packet,
    "traffic": _contest("traffic"),
    "change": _contest("change"),
    "spread": _spread,
    "against": _against,
    "control": _control,
    "scale": _scale,
    "paper": _paper,
    "headline": headline,
    "sizing": sizing,
}


def pictures(results: Results, name: str) -> str:
    drawn = [file for file in plots(results) if file.startswith(f"{name}-")]
    return "".join(f"![{file.removesuffix('.svg').replace('-', ' ')}](../bench/results/{file})\n" for file in drawn)


def load(directory: Path = RESULTS) -> dict[str, Any]:
    """What is there, by the file's name, and under "about" what each says of its machine."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(directory.glob("*.json"))}
    found.pop("about", None)
    noted = json.loads((directory / "about.json").read_text()) if (directory / "about.json").exists() else {}
    own = {name: it["about"] for name, it in found.items() if isinstance(it, dict) and "about" in it}
    return {**found, "about": dict(sorted((noted | own).items()))}


def filled(text: str, results: Results) -> str:
    return MARKED.sub(lambda found: found[1] + SECTIONS[found[2]](results) + found[4], text)


def made(results: Results) -> dict[Path, str]:
    """Every file that follows from the results."""
    drawn = {RESULTS / name: picture for name, picture in plots(results).items()}
    return drawn | {document: filled(document.read_text(), results) for document in DOCUMENTS}


def stale(results: Results) -> list[str]:
    """Files that are not as the results say, pictures that nothing draws any more among them."""
    wanted = made(results)
    differ = [file for file, text in wanted.items() if not file.exists() or file.read_text() != text]
    return [str(file.relative_to(ROOT)) for file in [*differ, *(set(RESULTS.glob("*.svg")) - wanted.keys())]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and say what would change")
    check, results = parser.parse_args().check, load()
    if check:
        print(*stale(results), sep="\n")
        return bool(stale(results))
    wanted = made(results)
    for file in set(RESULTS.glob("*.svg")) - wanted.keys():
        file.unlink()
    for file, text in wanted.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
