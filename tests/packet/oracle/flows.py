"""The flows of mode l4 that the model knows: who they are, what of them has been seen, when they may be over."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.packet.oracle.parse import FIN, RST, SYN, TCP
from tests.packet.oracle.world import Listener

ENDED_S = 0.5
"""A flow that has ended is kept for that long, for what is still on its way."""
CLOCK_S = 0.02
"""Two clocks tick here, the kernel's in jiffies."""


class Span(NamedTuple):
    """A test run happened in it; a process that was held up may have waited before and after. Seconds."""

    began_s: float
    ended_s: float


Key = tuple[bytes, int, Listener]
View = tuple[bytes, int, int, int]
"""How a node sees a flow: the node's address, its port, the protocol, the source port."""


@dataclass(slots=True)
class Flow:
    """`returns_by`: MACs and tags of frames to the client, as its packets have had them."""

    client: bytes
    client_port: int
    listener: Listener
    node: int
    birth: int
    node_address: bytes
    source_port: int
    returns_by: list[tuple[bytes, bytes]] = field(default_factory=list)
    client_fin: bool = False
    node_fin: bool = False
    ended_s: float | None = None

    @property
    def key(self) -> Key:
        return self.client, self.client_port, self.listener

    @property
    def view(self) -> View:
        return self.node_address, self.listener.target_port, self.listener.protocol, self.source_port

    def saw(self, flags: int, from_client: bool, ran: Span) -> None:
        """Both FINs or a RST end a connection, and what follows renews the wait after it: all but the SYN/ACKs of a
        node, of which one that is sent again says nothing new."""
        if self.listener.protocol != TCP or (flags & SYN and not from_client):
            return
        if flags & FIN:
            if from_client:
                self.client_fin = True
            else:
                self.node_fin = True
        if flags & RST or (self.client_fin and self.node_fin):
            self.ended_s = ran.began_s


class Flows:
    """By client and listener, and by what the node sees. No two flows share a view."""

    def __init__(self, crowded: bool) -> None:
        self.crowded = crowded
        self.by_key: dict[Key, Flow] = {}
        self.by_view: dict[View, Flow] = {}
        self.opened = 0
        self.moved = 0
        """Flows that got another port than their client's, though no flow had that one."""

    def may_be_over(self, flow: Flow, ran: Span) -> bool:
        """Where it is crowded, any flow may have made room for another."""
        return self.crowded or (flow.ended_s is not None and ran.ended_s - flow.ended_s >= ENDED_S - CLOCK_S)

    def open(self, flow: Flow, ran: Span) -> str:
        """What is unlawful about the port the flow got; empty: nothing, and the flow is open."""
        if flow.source_port != flow.client_port and flow.source_port < 1024:
            return f"source port {flow.source_port} is neither the client's nor 1024 or higher"
        holder = self.by_view.get(flow.view)
        if holder and holder.key != flow.key and not self.may_be_over(holder, ran):
            return f"source port {flow.source_port} belongs to another flow of that node"
        self.opened += 1
        if flow.source_port != flow.client_port:
            wanted = self.by_view.get((*flow.view[:3], flow.client_port))
            self.moved += wanted is None
        if holder and self.by_key.get(holder.key) is holder:
            del self.by_key[holder.key]
        self.by_key[flow.key] = self.by_view[flow.view] = flow
        return ""

    def answered(self, view: View, ran: Span) -> tuple[Flow | None, bool]:
        """The flow that a node's packet answers, and whether it may be gone by now.

        A client that has gone on at another node may still get what the first one had sent it.
        """
        flow = self.by_view.get(view)
        if flow is None:
            return None, True
        return flow, self.may_be_over(flow, ran) or self.by_key.get(flow.key) is not flow
