from typing import Any

class TCPTransport:
    _nodeAddrToNode: dict[str, Any]
    def _onNewIncomingConnection(self, conn: Any) -> None: ...
