"""The house rules that a program can check, on every file that git knows."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX, TEST_LINES_MAX = 400, 700
# One word per thing (docs/ARCHITECTURE.md): what others call a backend or a real server is a node here. qemu's option
# for its memory has the word in its name.
BANNED = re.compile(r"\b(TODO|FIXME|XXX|(?<!\"memory-)backends?|real servers?)\b", re.IGNORECASE)
GIVEN = ("gale/rpc/v1/", "tests/unit/samples/", "LICENSE", "bpf/LICENSE", ".lock", ".png", "tests/unit/test_tidy.py")


def known_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed if not any(part in name for part in GIVEN) and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: (ROOT / name).read_text() for name in known_files()}


def test_every_python_file_says_what_it_is_for(texts: dict[str, str]) -> None:
    assert not [name for name, text in texts.items() if name.endswith(".py") and not text.startswith('"""')]


def test_every_bpf_file_has_its_licence(texts: dict[str, str]) -> None:
    sources = {name: text for name, text in texts.items() if name.startswith("bpf/") and name.endswith((".c", ".h"))}
    assert sources
    assert not [name for name, text in sources.items() if "SPDX-License-Identifier" not in text.splitlines()[0]]


def test_nothing_is_left_for_later_and_nodes_are_nodes(texts: dict[str, str]) -> None:
    assert not [
        f"{name}: {found[0]}"
        for name, text in texts.items()
        if (found := BANNED.search(text)) and name != "pyproject.toml"
    ]


def test_no_file_grows_without_end(texts: dict[str, str]) -> None:
    def most(name: str) -> int:
        return TEST_LINES_MAX if name.startswith(("tests/", "e2e/")) else LINES_MAX

    source = (".py", ".c", ".h", ".proto")
    assert not [name for name, text in texts.items() if name.endswith(source) and text.count("\n") > most(name)]


def test_the_documents_name_files_that_exist(texts: dict[str, str]) -> None:
    missing = []
    for name, text in texts.items():
        if name.endswith(".md"):
            for path in re.findall(r"`((?:gale|bpf|tests|e2e|bench|cmd|proto|scripts|docs)/[\w/.]+)`", text):
                if not (ROOT / path).exists():
                    missing.append(f"{name}: {path}")
    assert not missing
