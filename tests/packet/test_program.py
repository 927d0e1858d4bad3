"""Loading: what comes back from the child that compiles, and what is wrong with a machine or a source in one line."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gale.dataplane import compiler, kept
from gale.dataplane.compiler import source
from gale.dataplane.links import interface_addresses, local_addresses
from gale.dataplane.program import PUBLIC_PROGRAM, Program, load, load_source
from gale.dataplane.syscall import program_info
from gale.dataplane.testrun import run_program
from gale.errors import DataplaneError, HostError
from tests.packet.balancer import SETTINGS, Balancer

SOURCE = b"""
#line 1 "bpf/try.c"
#include <uapi/linux/bpf.h>
struct pair { __u16 first; __u64 second; };
BPF_F_TABLE("array", __u32, struct pair, kept, 8, 1U << 10);
BPF_ARRAY(fresh, struct pair, 8);
static __always_inline int count(void) {
    __u32 one = 1;
    struct pair *old = kept.lookup(&one), *young = fresh.lookup(&one);
    if (old) old->second++;
    if (young) young->second++;
    return %s;
}
int gale_public(struct xdp_md *ctx) { return count(); }
int gale_private(struct __sk_buff *skb) { return 0; }
"""
KINDS = {"gale_public": "xdp", "gale_private": "tc"}
FRAME = bytes(64)

pytestmark = pytest.mark.usefixtures("loaded")


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept, "DIRECTORY", tmp_path / "kept")


def loaded_source(returned: bytes = b"XDP_DROP", adopt: Program | None = None) -> Program:
    return load_source(SOURCE % returned, [], KINDS, {"kept": adopt.maps["kept"]} if adopt else {})


def counted(program: Program) -> tuple[int, int]:
    return program.maps["kept"][1].second, program.maps["fresh"][1].second


def test_programs_and_maps_come_back() -> None:
    program = loaded_source()
    assert run_program(program.public_fd, FRAME).returned == 1
    assert program.private_fd is not None
    assert counted(program) == (1, 1)
    assert program_info(program.public_fd).name == PUBLIC_PROGRAM


def test_a_map_that_is_gone_on_with_takes_the_place_of_the_new_one() -> None:
    first = loaded_source()
    run_program(first.public_fd, FRAME)
    second = loaded_source(adopt=first)
    assert second.adopted == {"kept"}
    run_program(second.public_fd, FRAME)
    assert counted(second) == (2, 1)
    assert counted(first) == (2, 1), "the old program goes on with its own map"


def test_a_map_of_another_shape_is_not_gone_on_with() -> None:
    first = loaded_source()
    run_program(first.public_fd, FRAME)
    text = (SOURCE % b"XDP_DROP").replace(b"__u16 first", b"__u32 first")
    second = load_source(text, [], KINDS, {"kept": first.maps["kept"]})
    assert not second.adopted
    run_program(second.public_fd, FRAME)
    assert counted(second) == (1, 1)


def test_file_descriptors_are_closed_with_the_program() -> None:
    before = len(os.listdir("/proc/self/fd"))
    program = loaded_source()
    assert len(os.listdir("/proc/self/fd")) == before + len(program.fds) + len(program.maps)
    del program
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("nothing_kept")
def test_bcc_is_not_imported_here() -> None:
    loaded_source()
    assert "libbcc" not in Path("/proc/self/maps").read_text()


def test_a_source_that_does_not_compile(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataplaneError, match=r"^bpf/try.c:10:12: error: use of undeclared identifier 'nothing'$"):
        loaded_source(b"nothing")
    assert capfd.readouterr().err == ""


def test_a_source_that_the_verifier_refuses() -> None:
    with pytest.raises(DataplaneError, match=r"^bpf/: gale_public: the kernel refuses it: R.*outside of the packet"):
        load_source((SOURCE % b"0").replace(b"return count()", b"return *(int *)(long)ctx->data"), [], KINDS)


def test_a_program_that_is_not_in_the_source() -> None:
    with pytest.raises(DataplaneError, match=r"^bpf/: nosuch: no such program in the text$"):
        load_source(SOURCE % b"0", [], {"nosuch": "xdp"})


@pytest.mark.usefixtures("nothing_kept")
def test_a_compiler_that_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(fake_bcc(tmp_path, "import os\nos.abort()")))
    with pytest.raises(DataplaneError, match=r"^bpf/: the compiler ended with -6$"):
        loaded_source()


@pytest.mark.usefixtures("nothing_kept")
def test_a_compiler_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(fake_bcc(tmp_path, "import time\ntime.sleep(60)")))
    monkeypatch.setattr(compiler, "WITHIN_S", 0.5)
    with pytest.raises(DataplaneError, match=r"^bpf/: the compiler has not ended within 0.5 s$"):
        loaded_source()


@pytest.mark.usefixtures("nothing_kept")
def test_bcc_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(fake_bcc(tmp_path, "raise ImportError('no bcc here')")))
    with pytest.raises(HostError, match=r"bcc is missing: apt-get install python3-bpfcc.*\(no bcc here\)"):
        loaded_source()


def fake_bcc(folder: Path, text: str) -> Path:
    (folder / "bcc.py").write_text(text)
    return folder


def test_an_interface_that_does_not_exist() -> None:
    with pytest.raises(HostError, match=r"no interface 'nosuch0' on this machine; there are .*\blo\b"):
        load(replace(SETTINGS, public_interface="nosuch0"))
    with pytest.raises(HostError, match="no interface 'nosuch0'"):
        interface_addresses("nosuch0")


def test_addresses_of_interfaces() -> None:
    assert interface_addresses("lo") == local_addresses()["lo"]


def test_every_part_of_the_packet_path_is_named_in_what_the_compiler_says() -> None:
    for part in compiler.PARTS:
        assert f'#line 1 "bpf/{part}"'.encode() in source()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_bpf_is_not_permitted() -> None:
    """In a child that gives up its rights for good."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            load(SETTINGS)
        except HostError as error:
            code = 0 if "BPF is not permitted: run as root, or with CAP_BPF" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_programs_are_known_by_their_names(loaded: Balancer) -> None:
    assert program_info(loaded.program.public_fd).name == PUBLIC_PROGRAM
