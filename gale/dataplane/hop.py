"""How a frame gets to a node, as the maps hold it: struct hop of bpf/abi.h."""

from dataclasses import dataclass

NO_LINK = 0
PUBLIC_LINK = 1
LINKS = 64
"""Places in the map of interfaces, of which the first stays empty: bpf/abi.h."""

MACS = 12


@dataclass(frozen=True, slots=True)
class Hop:
    """The default is no hop: the node is known, but not how to reach it.

    macs     the start of the frame: the next hop's address, then the interface's own
    link     place in `links` of the interface the frame leaves by
    vlan     tag control information of the VLAN it leaves in, 0: none
    mtu      bytes of the largest IP packet that fits
    on_link  the next hop is the node itself, no router
    """

    macs: bytes = bytes(MACS)
    link: int = NO_LINK
    vlan: int = 0
    mtu: int = 0
    on_link: bool = False


NO_HOP = Hop()
