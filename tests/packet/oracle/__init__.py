"""What the packet path ought to do, written a second time: the oracle of the tests.

It shares no code and no constant with bpf/: its numbers come from the RFCs, it reads fields where the packet path reads
words, and computes checksums as numbers modulo 0xffff where the packet path adds in one's complement.
"""

from tests.packet.oracle.checksum import ones_complement_sum
from tests.packet.oracle.model import Model
from tests.packet.oracle.slots import slot
from tests.packet.oracle.world import Hop, Listener, Node, World, packed

__all__ = ["Hop", "Listener", "Model", "Node", "World", "ones_complement_sum", "packed", "slot"]
