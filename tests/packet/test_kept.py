"""A load that takes what another has compiled is its own in everything that differs from one start to the next."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from gale.dataplane import compiler, kept
from gale.dataplane.address import packed
from gale.dataplane.compiled import Compiled
from gale.dataplane.explain import explainers
from gale.dataplane.layout import ARRAY, Layout
from gale.dataplane.program import FLOW_PLACES_EACH, Secrets, load_source
from gale.dataplane.testrun import run_program
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS, Balancer, Entry
from tests.packet.packets import CLIENT, SIX, SOURCE, Talk

OTHER = replace(SETTINGS, source_address="10.0.0.2", source_address6="2001:db8:1::2")
WORD = (1 << 64) - 1
TEXT = b"#include <uapi/linux/bpf.h>\nint program(struct xdp_md *ctx) { return %s; }\n"

pytestmark = pytest.mark.usefixtures("bpf")


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept, "DIRECTORY", tmp_path / "kept")


def mixed(number: int) -> int:
    """bpf/hash.h"""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & WORD
    number = (number ^ number >> 27) * 0x94D049BB133111EB & WORD
    return number ^ number >> 31


def places(entry: Entry, secrets: Secrets) -> set[int]:
    """Where bpf/flow.h would have this flow."""
    first, second = struct.unpack("=2Q", packed(entry.client))
    (port,) = struct.unpack("=H", struct.pack("!H", entry.client_port))
    rest = (port << 16 | entry.listener) * (secrets.second | 1) & WORD
    hashed = mixed((mixed(secrets.first ^ first) ^ second) + rest & WORD)
    return {hashed % (FLOW_PLACES_EACH * SETTINGS.flows) ^ way for way in range(4)}


def source_of(frame: bytes) -> str:
    packet = Ether(frame)
    return str(packet[IP].src if IP in packet else packet[IPv6].src)


@pytest.mark.usefixtures("nothing_kept")
def test_secrets_and_addresses_are_those_of_the_start() -> None:
    known = Secrets(0x0123456789ABCDEF, 0xFEDCBA9876543210), Secrets(5, 0)
    compiled, taken = Balancer(SETTINGS, known[0]), Balancer(OTHER, known[1])
    assert compiled.program.file is None
    assert taken.program.file is not None
    asked = explainers(taken.program)
    own = {4: (SOURCE, "10.0.0.2"), 6: (SIX[SOURCE], "2001:db8:1::2")}
    for version, sources in own.items():
        opening = Talk(version).from_client("S")
        for balancer, secrets, source in zip((compiled, taken), known, sources, strict=True):
            balancer.forget_flows()
            outcome = balancer.public(opening)
            assert (outcome.verdict, source_of(outcome.packet)) == ("opened", source)
            (entry,) = balancer.flows.entries()
            assert entry.client == Talk(version).address(CLIENT)
            assert entry.place in places(entry, secrets)
        assert source_of(run_program(asked.fds["gale_explain_public"], bytes(opening)).packet) == sources[1]


@pytest.mark.usefixtures("nothing_kept")
def test_nothing_is_compiled_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    load_source(TEXT % b"XDP_DROP", [], {"program": "xdp"})
    monkeypatch.setattr(compiler, "WITHIN_S", 0.0)
    program = load_source(TEXT % b"XDP_DROP", [], {"program": "xdp"})
    assert run_program(program.fds["program"], bytes(64)).returned == 1
    with pytest.raises(DataplaneError, match="the compiler has not ended within 0 s"):
        load_source(TEXT % b"XDP_PASS", [], {"program": "xdp"})


@pytest.mark.usefixtures("nothing_kept")
def test_what_is_kept_was_damaged() -> None:
    load_source(TEXT % b"XDP_DROP", [], {"program": "xdp"})
    (file,) = kept.DIRECTORY.iterdir()
    file.write_bytes(file.read_bytes().replace(b"programs", b"PROGRAMS"))
    assert load_source(TEXT % b"XDP_DROP", [], {"program": "xdp"}).file is None
    assert load_source(TEXT % b"XDP_DROP", [], {"program": "xdp"}).file == file


@pytest.mark.usefixtures("nothing_kept")
def test_what_the_verifier_refuses_is_refused_from_a_file_as_well() -> None:
    for _ in range(2):
        with pytest.raises(DataplaneError, match=r"^bpf/: program: the kernel refuses it: R.*outside of the packet"):
            load_source(TEXT % b"*(int *)(long)ctx->data", [], {"program": "xdp"})
    assert len(list(kept.DIRECTORY.iterdir())) == 1


def test_a_map_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there was memory for it when it was compiled."""
    large = Layout("large", ARRAY, 4, 1 << 31, 1 << 31, 0, "unsigned int", "char")
    monkeypatch.setattr(kept, "compiled", lambda *_: (Compiled({5: large}, {}), None))
    with pytest.raises(DataplaneError, match=r"^bpf/: map large: the kernel refuses it: \w"):
        load_source(b"", [], {})
