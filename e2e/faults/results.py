"""What was measured of each fault, beside its bound; a table for people and the same for programs.

The list of faults bounds times on a machine that does nothing else. The short form is a part of every run of the tests,
whose other parts work beside it on the same processors, so that its bounds of time are `SHORT_SLACK` times those: it
finds what has become wrong, and the long form what has become slow.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

SHORT_SLACK = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """`fault`: the number and name in the list of faults, or of the point of the design that it is about."""

    fault: str
    done: str
    bound: str
    measured: str
    held: bool


@dataclass(slots=True)
class Results:
    """`directory`: where they are written after each, for a long run may be broken off; None: nowhere.

    `slack`: how many times the list's bounds of time hold here.
    """

    directory: Path | None = None
    slack: float = 1.0
    rows: list[Row] = field(default_factory=list)

    def allowed_s(self, bound_s: float) -> float:
        """What a time that the list of faults bounds may be here."""
        return bound_s * self.slack

    def judge(self, fault: str, done: str, bound: str, measured: str, held: bool) -> None:
        """Note it whatever came out, and fail the test when the bound was not kept."""
        self.rows.append(Row(fault, done, bound, measured, held))
        if self.directory:
            self.write(self.directory)
        assert held, f"{fault}: {done}: bound {bound}, measured {measured}"

    def sorted(self) -> list[Row]:
        def key(row: Row) -> tuple[int, str]:
            number = row.fault.partition(" ")[0]
            return (int(number) if number.isdigit() else 99, row.fault)

        return sorted(self.rows, key=key)

    def markdown(self) -> str:
        lines = ["| fault | what was done | bound | measured | |", "|---|---|---|---|---|"]
        lines += [
            f"| {row.fault} | {row.done} | {row.bound} | {row.measured} | {'held' if row.held else '**not held**'} |"
            for row in self.sorted()
        ]
        return "\n".join([*lines, ""])

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) for row in self.sorted()]
        (directory / "faults.json").write_text(json.dumps(rows, indent=2) + "\n")
        (directory / "faults.md").write_text(self.markdown())
