"""Loading: what is wrong with a machine or a source is said in one line."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gale.dataplane import attach
from gale.dataplane.links import interface_addresses, local_addresses
from gale.dataplane.program import PUBLIC_PROGRAM, load
from gale.dataplane.syscall import program_name
from gale.errors import DataplaneError, HostError
from tests.packet.balancer import SETTINGS, Balancer

SOURCE = b"int gale_public(struct xdp_md *ctx) { return %s; } int gale_private(struct __sk_buff *skb) { return 0; }"


@pytest.mark.usefixtures("loaded")
def test_a_source_that_does_not_compile(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataplaneError, match=r"bpf/gale.c: .*error: use of undeclared identifier 'nothing'$"):
        load(SETTINGS, SOURCE % b"nothing")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("loaded")
def test_a_source_that_the_verifier_refuses() -> None:
    with pytest.raises(DataplaneError, match=r"bpf/gale.c: .*outside of the packet"):
        load(SETTINGS, SOURCE % b"*(int *)(long)ctx->data")


def test_an_interface_that_does_not_exist() -> None:
    with pytest.raises(HostError, match=r"no interface 'nosuch0' on this machine; there are .*\blo\b"):
        load(replace(SETTINGS, public_interface="nosuch0"))
    with pytest.raises(HostError, match="no interface 'nosuch0'"):
        interface_addresses("nosuch0")
    with pytest.raises(HostError, match="no interface 'nosuch0'"):
        attach.detach("nosuch0", "lo")


def test_addresses_of_interfaces() -> None:
    assert interface_addresses("lo") == local_addresses()["lo"]


@pytest.fixture
def without_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)


@pytest.mark.usefixtures("loaded", "without_bcc")
def test_bcc_is_missing() -> None:
    with pytest.raises(HostError, match="bcc is missing: apt-get install python3-bpfcc"):
        load(SETTINGS)


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


def test_programs_are_known_by_their_names(balancer: Balancer) -> None:
    info = Path(f"/proc/self/fdinfo/{balancer.program.public_fd}").read_text()
    program_id = int(info.split("prog_id:")[1].split()[0])
    assert program_name(program_id) == PUBLIC_PROGRAM
