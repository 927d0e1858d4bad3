"""Four protocol rules that PySyncObj 0.3.17 lacks, and without which it loses acknowledged commands.

They stand between the wire and the library and change messages, never the library:

1. Every append carries a sequence number, every answer the sequence and the term it answers. An answer to another
   term, or to somebody who no longer leads, is dropped: it may be from an earlier leadership.
2. Once a back-off was acted upon, back-offs that answer appends sent before it are old news and are dropped. A
   success never moves the next index backwards: what lies between is in flight.
3. A follower skips the entries it already has with the same term, so that the library, which cuts its log after
   `prevLogIdx` without looking, has nothing to cut (Raft 5.3, step 3: delete on conflict only). If nothing is new, the
   append is a bare heartbeat. A back-off names the entry after the commit index: one round, not one per entry.
4. What was not compared with the log raises no commit index: a part of a snapshot, a bare heartbeat.

`Log` is what the rules need to know of the library, so that they are functions of values and can be tested as such.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from gale.raft.records import Entry

Message = dict[str, Any]


class Entries(Protocol):
    """Entries of the log by position, without gaps and never none."""

    def __getitem__(self, position: int, /) -> Entry: ...
    def __len__(self) -> int: ...


class Log(Protocol):
    """The library's log and standing."""

    @property
    def entries(self) -> Entries: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def leads(self) -> bool: ...


@dataclass(slots=True)
class Link:
    """What is remembered of one connection to a peer."""

    sent: int = 0  # sequence of the last append sent to it
    ignored: int = 0  # back-offs that answer appends up to here are old
    answering: tuple[int, int] = (0, 0)  # sequence and term of its last append


def outgoing(message: Message, link: Link, log: Log) -> Message:
    """A message of the library as it goes on the wire."""
    if message["type"] == "append_entries":
        link.sent += 1
        return {**message, "sequence": link.sent}
    if message["type"] == "next_node_idx":
        stamped = {**message, "answers": link.answering}
        if message["reset"] and not message["success"]:
            stamped["next_node_idx"] = max(2, min(message["next_node_idx"], log.commit_index + 1))
        return stamped
    return message


def incoming_append(message: Message, link: Link, log: Log) -> tuple[Message, Message | None]:
    """An append from a peer: what the library gets to see, and the answer when the rules give it themselves."""
    link.answering = (message["sequence"], message["term"])
    previous = message.get("prevLogIdx")
    if previous is None:
        return {**message, "commit_index": min(message["commit_index"], log.commit_index)}, None
    if message["term"] < log.term or term_at(log, previous) != message["prevLogTerm"]:
        return message, None  # stale, or the library backs off
    entries, known = message["entries"], 0
    while known < len(entries) and term_at(log, entries[known][1]) == entries[known][2]:
        known += 1
    matched = previous + known
    if known == len(entries) and matched < log.entries[-1][1]:
        heartbeat = {
            "type": "append_entries",
            "term": message["term"],
            "commit_index": min(message["commit_index"], max(matched, log.commit_index)),
        }
        answer = {"type": "next_node_idx", "next_node_idx": matched + 1, "reset": False, "success": True}
        return heartbeat, answer
    if known:
        message = {**message, "prevLogIdx": matched, "prevLogTerm": entries[known - 1][2], "entries": entries[known:]}
    return message, None


def takes_answer(message: Message, link: Link, log: Log) -> bool:
    """Whether the library may see an answer to an append."""
    sequence, term = message["answers"]
    if not log.leads or term != log.term or sequence > link.sent:
        return False
    if message["reset"] and not message["success"]:
        if sequence <= link.ignored:
            return False
        link.ignored = link.sent
    return True


def term_at(log: Log, index: int) -> int | None:
    """The term of an entry of our log; None when it is not there."""
    first = log.entries[0][1]
    return log.entries[index - first][2] if first <= index <= log.entries[-1][1] else None
