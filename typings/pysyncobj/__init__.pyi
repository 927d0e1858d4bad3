"""What gale/raft/ calls of PySyncObj 0.3.17, and nothing more."""

from collections.abc import Callable, Sequence
from typing import Any

from pysyncobj.node import Node

class FAIL_REASON:
    SUCCESS: int
    QUEUE_FULL: int
    MISSING_LEADER: int
    DISCARDED: int
    NOT_LEADER: int
    LEADER_CHANGED: int
    REQUEST_DENIED: int
    UNKNOWN_OUTCOME: int

class SyncObjConf:
    def __init__(self, **kwargs: object) -> None: ...

class SyncObj:
    raftLastApplied: int
    raftCommitIndex: int
    hasQuorum: bool
    selfNode: Node
    otherNodes: set[Node]
    def __init__(
        self,
        selfNode: Node,
        otherNodes: Sequence[Node],
        conf: SyncObjConf,
        *,
        nodeClass: type[Node] = ...,
        transportClass: Callable[..., Any] = ...,
    ) -> None: ...
    def doTick(self, timeToWait: float = ...) -> None: ...
    def destroy(self) -> None: ...
    def forceLogCompaction(self) -> None: ...
    def isNodeConnected(self, node: Node) -> bool: ...
    def isReady(self) -> bool: ...
    def _applyCommand(
        self, command: bytes, callback: Callable[[Any, int], None], commandType: int | None = ...
    ) -> None: ...
    def transferLeadership(self, node: str | None = ...) -> None: ...
    def _isLeader(self) -> bool: ...
    def _getLeader(self) -> Node | None: ...
    def _getTerm(self) -> int: ...
