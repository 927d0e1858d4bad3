"""The seam for the wire: the transport handed to the library.

The library's own transport unpickles what any client sends. Until gale's own replaces it, connections are dropped
before a byte is read unless they come from an address in `load_balancer_quorum`.
"""

from typing import Any

import structlog
from pysyncobj.transport import TCPTransport

log = structlog.get_logger()


class ListedPeersTransport(TCPTransport):
    def _onNewIncomingConnection(self, conn: Any) -> None:
        source = conn._TcpConnection__socket.getpeername()[0]
        listed = {address.rpartition(":")[0] for address in self._nodeAddrToNode}
        if source in listed:
            super()._onNewIncomingConnection(conn)
        else:
            log.warning("raft connection refused: its source is not in load_balancer_quorum.addresses", source=source)
            conn.disconnect()
