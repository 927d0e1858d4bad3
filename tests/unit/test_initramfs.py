"""The archive that another kernel starts from, unpacked by a program that knows the format."""

import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.kernel.__main__ import modules_in_order
from e2e.kernel.initramfs import END, archive


def test_every_entry_begins_at_a_multiple_of_four_and_says_its_sizes() -> None:
    packed = archive(["a"], {"b": b"12345", "long/name": b""})
    found: list[tuple[str, bytes]] = []
    at = 0
    while not found or found[-1][0] != END:
        assert packed[at : at + 6] == b"070701"
        fields = [int(packed[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = packed[at + 110 : at + 110 + name_size - 1].decode()
        at += -(-(110 + name_size) // 4) * 4
        found.append((name, packed[at : at + size]))
        at += -(-size // 4) * 4
    assert found == [("a", b""), ("b", b"12345"), ("long/name", b""), (END, b"")]
    assert at == len(packed)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-idm"], input=archive(["a"], {"a/b": b"x"}), cwd=tmp_path, check=True, timeout=10)
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_a_module_comes_after_what_it_needs_and_once(tmp_path: Path) -> None:
    needs = {"bridge": "stp,llc", "stp": "llc", "llc": "", "sch_ingress": "", "virtio-pci": "llc"}
    for name, named in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(b"ELF\0license=GPL\0depends=" + named.encode() + b"\0name=x\0")
    order = [file.stem for file in modules_in_order(tmp_path, ["bridge", "sch_ingress", "virtio_pci"])]
    assert order == ["llc", "stp", "bridge", "sch_ingress", "virtio-pci"]
