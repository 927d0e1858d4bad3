"""A wheel of gale, away from the checkout that it was made from: everything is in it, and the programs compile."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ITS_OWN = """
from gale.dataplane.compiler import compile_text, source
from gale.prepare.plan import CLAMP, DECAP
import gale
made = compile_text(source("decap.c"), [], [DECAP, CLAMP])
print(gale.__file__, all(made.linked(name, dict.fromkeys(made.maps, 0), {}) for name in (DECAP, CLAMP)))
"""


def known(*folders: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return [Path(name) for name in listed.stdout.split("\0") if name]


def install(copy: Path, folder: Path) -> None:
    """From a copy, because a build leaves things where it is done."""
    files = "\0".join(map(str, known())).encode()
    into = ["xargs", "-0", "cp", "--archive", "--parents", f"--target-directory={copy}"]
    subprocess.run(into, input=files, cwd=ROOT, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    what = ["--root-user-action=ignore", "--no-deps", "--no-build-isolation", "--no-compile", f"--target={folder}", "."]
    done = subprocess.run([*pip, *what], cwd=copy, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def python(installed: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_has_all_that_gale_needs(tmp_path: Path) -> None:
    copy, installed = tmp_path / "copy", tmp_path / "installed"
    copy.mkdir()
    install(copy, installed)
    files = [path for path in known("bpf", "gale") if path != Path("gale/bpf")]
    needed = [path if path.parts[0] == "gale" else "gale" / path for path in files]
    assert not [str(path) for path in needed if not (installed / path).is_file()]
    for program, sample in (("gale-lb", "lb.toml"), ("gale-node", "node.toml")):
        python(installed, str(installed / "bin" / program), "--config", str(ROOT / "cmd" / sample), "--check")
    assert python(installed, "-c", ITS_OWN).split() == [str(installed / "gale/__init__.py"), "True"]
