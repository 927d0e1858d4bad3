"""Every number, one benchmark after the other, into bench/results/: `python -m bench`, as root, or `make bench`.

docs/PERFORMANCE.md quotes from there, as ratios. A machine that does anything else meanwhile measures that too.
"""

import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    RESULTS.mkdir(exist_ok=True)
    for name in ("packet", "requests", "control"):
        print(f"=== {name}", flush=True)
        ended = subprocess.run([sys.executable, "-m", f"bench.{name}", "--json", RESULTS / f"{name}.json"], check=False)
        if ended.returncode:
            return ended.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
