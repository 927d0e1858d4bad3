"""What was compiled is kept and taken again, and nothing that is wrong with a file or the directory does harm."""

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from gale.dataplane import kept
from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.compiled import Compiled

MADE = Compiled({}, {"gale_public": bytes(16)})
TEXT, CFLAGS, PROGRAMS = b"int gale_public;", ("-DFLOWS=1", "-DSLOTS=2"), ("gale_public",)


class Compiler:
    """Counts how often it was needed."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []

    def __call__(self, text: bytes, cflags: Sequence[str], programs: Iterable[str]) -> Compiled:
        self.texts.append(text)
        return MADE


@pytest.fixture
def bcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """Instead of BCC; nothing is kept yet."""
    made = Compiler()
    monkeypatch.setattr(kept, "compile_text", made)
    monkeypatch.setattr(kept, "DIRECTORY", tmp_path / "cache" / "gale")
    return made


def take(text: bytes = TEXT) -> Path | None:
    code, file = kept.compiled(text, CFLAGS, PROGRAMS)
    assert code == MADE
    return file


def files() -> list[Path]:
    return sorted(kept.DIRECTORY.iterdir())


def test_the_second_start_takes_what_the_first_has_compiled(bcc: Compiler) -> None:
    with capture_logs() as said:
        assert take() is None
        assert take() == files()[0]
    assert (len(bcc.texts), said) == (1, [])
    assert kept.DIRECTORY.stat().st_mode & 0o777 == 0o700
    assert files()[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xff" * 100])
def test_a_damaged_file_is_compiled_anew(bcc: Compiler, damage: bytes) -> None:
    take()
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(damage)
    with capture_logs() as said:
        assert take() is None
    assert [(line["log_level"], line["file"], line["why"]) for line in said] == [
        ("warning", str(file), "its checksum is wrong")
    ]
    assert file.read_bytes() == whole
    assert (take(), len(bcc.texts)) == (file, 2)


def test_a_link_is_no_file(bcc: Compiler, tmp_path: Path) -> None:
    take()
    (file,) = files()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with capture_logs() as said:
        assert take() is None
    assert len(said) == 1
    assert not file.is_symlink()


def others_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    kept.DIRECTORY.chmod(0o770)


def somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


@pytest.mark.parametrize("foreign", [others_may_write, somebody_elses])
def test_a_directory_of_others_is_not_touched(
    bcc: Compiler, monkeypatch: pytest.MonkeyPatch, foreign: Callable[[pytest.MonkeyPatch], None]
) -> None:
    take()
    before = files()
    foreign(monkeypatch)
    with capture_logs() as said:
        assert take() is None
        assert take(b"another") is None
    assert (len(bcc.texts), files()) == (3, before)
    assert {(line["log_level"], line["event"]) for line in said} == {("warning", "compiled programs are not kept")}
    assert all("nobody else may write there" in line["why"] for line in said)


def a_link(to: Path) -> None:
    kept.DIRECTORY.symlink_to(to)


def a_file(to: Path) -> None:
    kept.DIRECTORY.write_text("")


@pytest.mark.parametrize("obstacle", [a_link, a_file])
def test_a_directory_that_cannot_be_only_costs_the_time_to_compile(
    bcc: Compiler, tmp_path: Path, obstacle: Callable[[Path], None]
) -> None:
    kept.DIRECTORY.parent.mkdir()
    obstacle(tmp_path)
    before = sorted(tmp_path.iterdir())
    with capture_logs() as said:
        assert take() is None
        assert take() is None
    assert len(bcc.texts) == len(said) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_takes_nothing(bcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with capture_logs() as said:
        assert take() is None
    assert [line["why"] for line in said] == ["No space left on device"]
    assert files() == []


def test_the_files_used_last_stay(bcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FILES_MOST", 3)
    texts = [b"%d" % number for number in range(4)]
    for age, text in enumerate(texts[:3]):
        take(text)
        os.utime(kept.DIRECTORY / f"{kept.key(text, CFLAGS, PROGRAMS)}.bpf", (1000 + age, 1000 + age))
    assert take(texts[0]), "it is the one used last now"
    foreign = kept.DIRECTORY / "notes"
    foreign.write_text("")
    take(texts[3])
    assert [bool(take(text)) for text in (texts[0], texts[2], texts[3])] == [True, True, True]
    assert len(files()) == 4
    assert foreign.exists()
    assert take(texts[1]) is None


def test_what_was_left_aside_goes(bcc: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a start that was killed while it wrote."""
    monkeypatch.setattr(kept, "FILES_MOST", 1)
    kept.DIRECTORY.mkdir(parents=True, mode=0o700)
    aside = kept.DIRECTORY / f"{'0' * 64}.1.bpf"
    aside.write_text("")
    os.utime(aside, (1000, 1000))
    take()
    assert not aside.exists()
    assert take()


def test_everything_that_compiling_depends_on_is_in_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [
        kept.key(TEXT, CFLAGS, PROGRAMS),
        kept.key(TEXT + b" ", CFLAGS, PROGRAMS),
        kept.key(TEXT, CFLAGS[:1], PROGRAMS),
        kept.key(TEXT, ["".join(CFLAGS)], PROGRAMS),
        kept.key(TEXT, CFLAGS, [*PROGRAMS, "gale_private"]),
        kept.key(TEXT, [*CFLAGS, *PROGRAMS], []),
    ]
    bpf = tmp_path / "bpf"
    shutil.copytree(BPF_DIRECTORY, bpf)
    monkeypatch.setattr("gale.dataplane.compiler.BPF_DIRECTORY", bpf)
    assert kept.key(TEXT, CFLAGS, PROGRAMS) == keys[0], "where the sources are does not matter"
    (bpf / "include" / "linux" / "version.h").write_text("")
    keys.append(kept.key(TEXT, CFLAGS, PROGRAMS))
    (bpf / "flow.h").rename(bpf / "flows.h")
    keys.append(kept.key(TEXT, CFLAGS, PROGRAMS))
    binding = tmp_path / "bcc.py"
    monkeypatch.setattr(kept, "find_spec", lambda name: SimpleNamespace(origin=str(binding)))
    for contents in ("", "version 1"):
        binding.write_text(contents)
        keys.append(kept.key(TEXT, CFLAGS, PROGRAMS))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    keys.append(kept.key(TEXT, CFLAGS, PROGRAMS))
    assert len(set(keys)) == len(keys)
