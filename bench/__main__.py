"""Every number, one part after the other, into bench/results/, then tables and pictures: `make bench`, as root.

    sudo .venv/bin/python -m bench [--quick] [PART]...

Without parts all of them. `--quick` is a try and not a figure: it writes to build/bench/, and to no document. A machine
that does anything else meanwhile measures that too.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.about import about
from bench.page import RESULTS, ROOT

PARTS = ("packet", "traffic", "change", "spread", "control", "scale", "against")
TRIES = ROOT / "build/bench"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="in some minutes")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    directory = TRIES if arguments.quick else RESULTS
    directory.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or PARTS:
        if ended := measure(part, directory, arguments.quick):
            return ended
    return 0 if arguments.quick else subprocess.run([sys.executable, "-m", "bench.page"], check=False).returncode


def measure(part: str, directory: Path, quick: bool) -> int:
    """The part's exit code. Results that are a list have no room for "about", which is in a file that they share."""
    print(f"=== {part}", flush=True)
    file, options = directory / f"{part}.json", ["--quick"] if quick else []
    command = ["-m", f"bench.{part}", *options]
    ended = subprocess.run([sys.executable, *command, "--json", str(file)], check=False)
    if not ended.returncode and isinstance(json.loads(file.read_text()), list):
        shared = directory / "about.json"
        known = json.loads(shared.read_text()) if shared.exists() else {}
        known[part] = about(" ".join(["python", *command]))
        shared.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
