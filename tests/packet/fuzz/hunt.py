"""Epochs of fuzzing: each begins with empty tables and a world of its own, and is a function of its seed alone.

So whatever went wrong is found again by the seed and the number of its epoch; then it is made small: inputs before the
last are left out, and the last one is cut and zeroed, as long as the program and the model still disagree.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from zlib import crc32

from tests.packet.fuzz.cast import CASTS, Cast, event
from tests.packet.fuzz.rig import LONGEST, SHORTEST_TC, SHORTEST_XDP, Rig
from tests.packet.fuzz.traffic import EVENT, PUBLIC, Sent, Traffic
from tests.packet.oracle import Model
from tests.packet.oracle.flows import CLOCK_S, Span

EXPLAINED = 32
"""One in so many frames is explained first, which must leave no trace."""
BY_CHANCE = {"opened", "too_big", "too_big_quiet"}
"""Verdicts that an explanation cannot foresee in every byte."""
EPOCH = 1000
"""Inputs of an epoch."""
_SHORTEST_IPV6 = 54


@dataclass
class Failure:
    """`inputs`: the shortest sequence found that ends in the disagreement."""

    seed: int
    epoch: int
    complaint: str
    inputs: list[Sent]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, epoch {self.epoch}: {self.complaint}"]
        lines += [f"{side} {frame.hex()}" for side, frame in self.inputs]
        return "\n".join(lines)


@dataclass
class Hunt:
    """Runs epochs on one rig, one after the other."""

    rig: Rig
    seed: int
    cast: Cast = CASTS["all"]
    inputs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    moved: int = 0

    def epoch(self, number: int) -> Failure | None:
        rng, model = self._begin(number)
        traffic = Traffic(rng, model)
        sent: list[Sent] = []
        for _ in range(EPOCH):
            side, frame = fitting(self._heard(traffic.next()))
            sent.append((side, frame))
            if complaint := self._ask(model, side, frame):
                return self._minimal(Failure(self.seed, number, complaint, sent))
        if failure := self._miscounted(number, model, sent):
            return failure
        self.inputs += EPOCH
        self.verdicts += model.verdicts
        self.opened += model.flows.opened
        self.moved += model.flows.moved
        return None

    def _begin(self, number: int) -> tuple[Random, Model]:
        rng = Random(f"{self.seed} {number}")
        model = Model(self.cast.world(rng), self.cast.crowded)
        self.rig.set_world(model.world)
        self.rig.forget()  # also that slots have moved from the world before
        self.rig.traffic()
        return rng, model

    def _heard(self, sent: Sent) -> Sent:
        """Without mode l4 there is no private side."""
        return sent if sent[0] in self.rig.sides or sent[0] == EVENT else (PUBLIC, sent[1])

    def _ask(self, model: Model, side: str, frame: bytes) -> str:
        """What is wrong with what becomes of it; empty: nothing."""
        if side == EVENT:
            self.rig.change(model.world, event(Random(frame), model.world))
            return ""
        began_s = time.monotonic()
        explained = self.rig.explain(side, frame) if not crc32(frame) % EXPLAINED else None
        got = self.rig.sides[side].run(frame)
        ran = Span(began_s, time.monotonic())
        judge = model.public if side == PUBLIC else model.private
        complaint = judge(frame, got, ran)
        held_up = ran.ended_s - ran.began_s > CLOCK_S  # then a flow may have ended in between
        if not complaint and explained and explained != got and got[0] not in BY_CHANCE and not held_up:
            return f"{got[0]}, but explained as {explained[0]}: {explained[1].hex()} instead of {got[1].hex()}"
        return complaint

    def _miscounted(self, number: int, model: Model, sent: list[Sent]) -> Failure | None:
        """What services and nodes have counted is what the model has."""
        counted, expected = self.rig.traffic(), {name: tuple(counts) for name, counts in model.traffic.items()}
        if counted == expected:
            return None
        wrong = {
            name: (counted.get(name), expected.get(name))
            for name in counted | expected
            if counted.get(name) != expected.get(name)
        }
        return Failure(self.seed, number, f"counted, and should be: {wrong}", sent[-1:])

    def _minimal(self, failure: Failure) -> Failure:
        def fails(inputs: list[Sent]) -> str:
            """The complaint about the last of them, if it is about no other."""
            _, model = self._begin(failure.epoch)
            complaints = [self._ask(model, *sent) for sent in inputs]
            return complaints[-1] if not any(complaints[:-1]) else ""

        inputs = _without(failure.inputs, lambda some: bool(fails(some)))
        if not fails(inputs):
            return failure
        *before, (side, frame) = inputs
        frame = _smaller(frame, lambda smaller: bool(fails([*before, fitting((side, smaller))])))
        inputs = [*before, fitting((side, frame))]
        return Failure(failure.seed, failure.epoch, fails(inputs) or failure.complaint, inputs)


def fitting(sent: Sent) -> Sent:
    """A frame that the kernel makes a test run with."""
    side, frame = sent
    if side == EVENT:
        return sent
    if len(frame) > LONGEST:
        frame = frame[:LONGEST]
    if side == PUBLIC:
        return side, frame if len(frame) >= SHORTEST_XDP else frame + bytes(SHORTEST_XDP - len(frame))
    shortest = _SHORTEST_IPV6 if frame[12:14] == b"\x86\xdd" else SHORTEST_TC
    return side, frame if len(frame) >= shortest else frame + bytes(shortest - len(frame))


def _without(inputs: list[Sent], fails: Callable[[list[Sent]], bool]) -> list[Sent]:
    """Without the inputs, other than the last, that are not needed: large pieces first."""
    size = len(inputs) // 2
    while size:
        at = 0
        while at < len(inputs) - 1:
            fewer = inputs[:at] + inputs[min(at + size, len(inputs) - 1) :]
            if len(fewer) < len(inputs) and fails(fewer):
                inputs = fewer
            else:
                at += size
        size //= 2
    return inputs


def _smaller(frame: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Shorter, and with zeroes where they do."""
    size = len(frame) // 2
    while size:
        if len(frame) - size >= SHORTEST_XDP and fails(frame[:-size]):
            frame = frame[:-size]
        else:
            size //= 2
    for at in range(len(frame)):
        if frame[at]:
            zeroed = frame[:at] + b"\0" + frame[at + 1 :]
            if fails(zeroed):
                frame = zeroed
    return frame
