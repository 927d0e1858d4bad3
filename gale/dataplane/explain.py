"""What would become of a packet: the real program says so, over the maps as they are (bpf/explain.h).

gale_explain_public and gale_explain_private are the packet path compiled to write nothing. They run here on a frame
built from the question; what they found is in the map `explanation`, and the frame comes back as it would have left.
They are compiled and loaded when they are first asked, which takes seconds: a start should not wait for them.
"""

import socket

from gale.dataplane import jiffies
from gale.dataplane.abi import Action, verdicts
from gale.dataplane.compiler import source
from gale.dataplane.frames import build, dissect
from gale.dataplane.program import Program, load_source
from gale.dataplane.settings import MODES, DataplaneSettings
from gale.dataplane.testrun import run_program
from gale.dataplane.words import flags
from gale.errors import DataplaneError
from gale.ports import Explanation, FlowEntry, Question

# bpf/explain.h
_FOUND_LISTENER, _FOUND_SLOT, _FOUND_NODE, _FOUND_FLOW = 0x1, 0x2, 0x4, 0x8


def explainers(program: Program, text: bytes | None = None) -> Program:
    """Programs to be asked, over the maps of one that forwards. Takes a second, and more when they are compiled. Raises
    DataplaneError. `text`: what it was compiled from, if not the packet path as it stands."""
    programs = {"gale_explain_public": "xdp"}
    if program.private_fd is not None:
        programs["gale_explain_private"] = "tc"
    cflags = [*program.cflags, "-DWITH_EXPLAIN"]
    return load_source(text or source(), cflags, programs, program.maps, program.late)


def explain(program: Program, settings: DataplaneSettings, question: Question, macs: bytes) -> Explanation:
    """`program`: explainers. `macs`: the start of the frame. The interface is left to the caller. Raises
    DataplaneError."""
    side = _side(settings, question)
    name = f"gale_explain_{side}"
    if name not in program.fds:
        raise DataplaneError(f"{question.destination} is this load balancer's own: no service is of mode l4")
    try:
        run = run_program(program.fds[name], build(question, macs))
    except OSError as error:
        raise DataplaneError(f"{name} cannot be run on a packet: {error.strerror}") from error
    found = program.maps["explanation"][0]
    verdict = verdicts()[found.verdict]
    leaves = verdict.action in (Action.REDIRECT, Action.REPLY)
    modes, services = {number: mode for mode, number in MODES.items()}, dict(enumerate(settings.services))
    return Explanation(
        verdict=verdict.name,
        action=verdict.action.value,
        meaning=verdict.meaning,
        side=side,
        mode=modes.get(found.mode, ""),
        service=services.get(found.service, "") if found.found & _FOUND_LISTENER else "",
        slot=found.slot if found.found & _FOUND_SLOT else None,
        node=found.node if found.found & _FOUND_NODE else None,
        flow=_flow(found.source_port, found.flags, found.age) if found.found & _FOUND_FLOW else None,
        headers=dissect(run.packet) if leaves else (),
    )


def _side(settings: DataplaneSettings, question: Question) -> str:
    """Where such a packet arrives. With one interface a service may be at the address that nodes answer to."""
    to = question.destination, question.destination_port, question.protocol
    served = any(to == (each.address, each.port, each.protocol) for each in settings.listeners)
    answer = question.destination in (settings.source_address, settings.source_address6)
    return "private" if answer and not served else "public"


def _flow(source_port: int, seen: int, age: int) -> FlowEntry:
    known = flags()
    state = "ended" if seen & known["ended"] else "established" if seen & known["established"] else "opening"
    return FlowEntry(socket.ntohs(source_port), state, age / jiffies.per_second())
