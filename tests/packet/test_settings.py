"""Settings that cannot work are refused, with what would be right."""

import re
from dataclasses import replace
from typing import Any

import pytest

from gale.dataplane.address import packed, unpacked, version
from gale.dataplane.settings import LISTENERS_MAX, LISTENERS_PER_PORT, DataplaneSettings, Listener
from gale.errors import DataplaneError

WEB = Listener("web", "192.0.2.80", 80, "tcp", 8080)
WEB6 = replace(WEB, address="2001:db8::80", mode="l3", tunnel=6)
DNS = Listener("dns", "192.0.2.80", 80, "udp", 53, mode="l2")
SETTINGS = DataplaneSettings("lo", "lo", "10.0.0.1", None, (WEB, WEB6, DNS), slots=64)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"listeners": ()}, "no listeners"),
        (
            {"listeners": tuple(replace(WEB, port=port) for port in range(1, LISTENERS_MAX + 2))},
            "256 listeners: at most 255 are possible",
        ),
        (
            {"listeners": (replace(WEB, protocol="sctp"),)},
            "service web: protocol 'sctp': must be 'tcp' or 'udp'",
        ),
        ({"listeners": (replace(WEB, mode="nat"),)}, "service web: mode 'nat': must be 'l2' or 'l3' or 'l4'"),
        ({"listeners": (replace(WEB6, tunnel=5),)}, "service web: tunnel 5: must be 4 or 6"),
        ({"listeners": (replace(WEB, address="web.example"),)}, "service web: 'web.example' does not appear to be an"),
        (
            {"listeners": (replace(WEB6, mode="l4"),)},
            "service web: 2001:db8::80 in mode l4 needs an IPv6 address on lo, for nodes to answer to",
        ),
        ({"listeners": (WEB, replace(WEB, service="other"))}, "192.0.2.80 port 80/tcp is listened to 2 times"),
        (
            {"listeners": tuple(replace(WEB, address=f"192.0.2.{n}") for n in range(LISTENERS_PER_PORT + 1))},
            "65 listeners share port 80: at most 64 may",
        ),
        ({"slots": 0}, "0 slots: must be a power of two"),
        ({"slots": 1000}, "1000 slots: must be a power of two"),
        ({"flows": 1 << 25}, "33554432 flows: must be a power of two, at most 16777216"),
    ],
)
def test_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataplaneError, match=re.escape(complaint)):
        replace(SETTINGS, **change)


def test_services_are_numbered_in_order_and_once() -> None:
    assert SETTINGS.services == ("web", "dns")


def test_answers_come_back_in_l4_only() -> None:
    assert SETTINGS.has_l4
    assert not replace(SETTINGS, listeners=(WEB6, DNS)).has_l4


def test_as_many_listeners_as_a_chain_holds() -> None:
    listeners = tuple(replace(WEB, address=f"192.0.2.{n}") for n in range(LISTENERS_PER_PORT))
    assert replace(SETTINGS, listeners=listeners).listeners == listeners


@pytest.mark.parametrize(
    ("text", "number"), [("192.0.2.80", 4), ("2001:db8::80", 6), ("::", 6), ("0.0.0.0", 4), ("::1", 6)]
)
def test_addresses_there_and_back(text: str, number: int) -> None:
    assert len(packed(text)) == 16
    assert unpacked(packed(text)) == text
    assert version(text) == number
