"""Instructions that wait for maps and late constants, and the file they are kept in."""

import struct

import pytest

from gale.dataplane.compiled import Compiled, placeholders
from gale.dataplane.layout import ARRAY, Layout
from gale.dataplane.program import Secrets, late_constants
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS

RETURN = struct.pack("=BBhi", 0x95, 0, 0, 0)
COUNTERS = Layout("counters", ARRAY, 4, 8, 3, 0, "unsigned int", ["pair", [["one", "unsigned int"]], "struct"])
SECRET = placeholders()["SECRET_0"]


def wide(number: int, kind: int = 0, register: int = 3) -> bytes:
    """A load of 64 bits; of a map's file descriptor with kind 1."""
    low, high = number & 0xFFFFFFFF, number >> 32
    return struct.pack("=BBhIBBhI", 0x18, register | kind << 4, 0, low, 0, 0, 0, high)


def compiled(*instructions: bytes) -> Compiled:
    return Compiled({7: COUNTERS}, {"gale_public": b"".join([*instructions, RETURN])})


def linked(code: Compiled, late: dict[str, int] | None = None) -> bytes:
    return code.linked("gale_public", {7: 40}, late or {})


def test_maps_and_late_constants_are_put_where_they_are_used() -> None:
    code = compiled(wide(7, kind=1), wide(SECRET), wide(7), wide(SECRET, register=5), wide(7, kind=1, register=9))
    value = 0xFEDCBA9876543210
    expected = [wide(40, 1), wide(value), wide(7), wide(value, register=5), wide(40, 1, register=9), RETURN]
    assert linked(code, {"SECRET_0": value, "SECRET_1": 5}) == b"".join(expected)
    assert linked(code, {"SECRET_0": 0})[16:32] == wide(0)


def test_what_a_program_was_compiled_to_stays_as_it_is() -> None:
    code = compiled(wide(SECRET))
    linked(code, {"SECRET_0": 1})
    assert linked(code, {"SECRET_0": 2}) == wide(2) + RETURN


def test_a_number_that_only_looks_like_a_wide_load() -> None:
    lookalike = struct.pack("=BBhi", 0xB7, 0x18, 0x18, 0x18)
    assert linked(compiled(lookalike)) == lookalike + RETURN


def test_a_late_constant_without_a_value() -> None:
    with pytest.raises(DataplaneError, match=r"^bpf/late.h: gale_public is loaded without a value for SECRET_0$"):
        linked(compiled(wide(SECRET)), {"SECRET_1": 5})


def test_every_late_constant_has_a_number_of_its_own_and_a_value() -> None:
    values = late_constants(SETTINGS, Secrets(1, 2))
    assert values.keys() == placeholders().keys()
    assert len(set(placeholders().values())) == len(values) > 1


def test_the_values_are_what_the_machine_finds_in_a_packet() -> None:
    values = late_constants(SETTINGS, Secrets(1, 2))
    assert struct.pack("=I", values["SOURCE_ADDRESS"]) == bytes([10, 0, 0, 1])
    halves = struct.pack("=2Q", values["SOURCE6_0"], values["SOURCE6_1"])
    assert halves == bytes.fromhex("20010db8000100000000000000000001")


def test_a_file_holds_everything() -> None:
    code = compiled(wide(SECRET), wide(7, kind=1))
    assert Compiled.of(code.as_bytes()) == code


def test_a_file_with_any_byte_changed_or_missing_is_refused() -> None:
    data = compiled(wide(SECRET)).as_bytes()
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(ValueError, match="checksum"):
                Compiled.of(damaged)
