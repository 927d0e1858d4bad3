"""Settings that cannot work are refused, with what would be right."""

from dataclasses import replace
from typing import Any

import pytest

from gale.dataplane.settings import LISTENERS_PER_PORT, DataplaneSettings, Listener
from gale.errors import DataplaneError
from tests.packet.balancer import SETTINGS

WEB = SETTINGS.listeners[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"listeners": ()}, "no listeners"),
        ({"listeners": (replace(WEB, protocol="udp"),)}, "protocol 'udp': must be 'tcp'"),
        ({"listeners": (WEB, replace(WEB, service="other"))}, "192.0.2.80:80 is listened to 2 times"),
        (
            {"listeners": tuple(replace(WEB, address=f"192.0.2.{n}") for n in range(LISTENERS_PER_PORT + 1))},
            "65 addresses listen to port 80: at most 64 may",
        ),
        ({"slots": 0}, "0 slots: must be a power of two"),
        ({"slots": 1000}, "1000 slots: must be a power of two"),
    ],
)
def test_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataplaneError, match=complaint):
        replace(SETTINGS, **change)


def test_services_are_numbered_in_order_and_once() -> None:
    assert SETTINGS.services == ("web", "tls")


def test_as_many_listeners_as_a_chain_holds() -> None:
    listeners = tuple(Listener("web", f"192.0.2.{n}", 80, "tcp", 80) for n in range(LISTENERS_PER_PORT))
    assert DataplaneSettings("lo", "lo", "10.0.0.1", listeners, 64).listeners == listeners
