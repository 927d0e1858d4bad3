"""The interfaces of this machine and their IPv4 addresses."""

from socket import AF_INET
from typing import Any

from gale.dataplane.netlink import ask
from gale.errors import HostError


def interfaces() -> dict[str, int]:
    """Interface name -> index."""
    return ask(lambda ipr: {link.get_attr("IFLA_IFNAME"): link["index"] for link in ipr.get_links()})


def interface_index(name: str) -> int:
    """Raises HostError, which names the interfaces that do exist."""
    known = interfaces()
    if name not in known:
        raise HostError(f"there is no interface {name!r} on this machine; there are {', '.join(sorted(known))}")
    return known[name]


def local_addresses() -> dict[str, tuple[str, ...]]:
    """Every interface with its IPv4 addresses, in the order they were given to it."""

    def question(ipr: Any) -> dict[str, tuple[str, ...]]:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
        found: dict[str, tuple[str, ...]] = dict.fromkeys(names.values(), ())
        for entry in ipr.get_addr(family=AF_INET):
            found[names[entry["index"]]] += (entry.get_attr("IFA_LOCAL"),)
        return found

    return ask(question)


def interface_addresses(name: str) -> tuple[str, ...]:
    """The IPv4 addresses of one interface. Raises HostError if it does not exist."""
    interface_index(name)
    return local_addresses()[name]
