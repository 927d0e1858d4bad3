"""Frames between load balancers (proto/gale/v1/raft.proto) as the Raft library's messages, and back.

A message is a dict as the library makes and takes them, with "sequence" and "answers" added by gale/raft/rules.py.
Decoding trusts nothing: what is out of form or out of bounds is a ValueError, and nothing is ever unpickled.
"""

from typing import Any

from google.protobuf.message import DecodeError

from gale.core.hello import Hello
from gale.rpc.codec import shared_from, shared_to
from gale.rpc.v1 import raft_pb2 as pb

PROTOCOL = 2
MEMBERS_MAX = 7
NUMBER_MAX = 1 << 48  # terms and indexes: more than any cluster will ever count, less than what breaks arithmetic
COMMAND_MAX = 16 * 1024
KEY_BYTES = 16
ENTRY_KINDS = (0, 1)  # a command, and a new leader's empty entry; the library's other kinds are not used

Message = dict[str, Any]


def encode_hello(hello: Hello) -> bytes:
    message = pb.Hello(
        protocol=PROTOCOL,
        address=hello.address,
        members=hello.members,
        shared=shared_to(hello.shared),
        enforces=hello.enforces,
        fresh=hello.fresh,
        key=hello.key,
    )
    return pb.RaftFrame(hello=message).SerializeToString()


def decode_hello(frame: bytes) -> Hello:
    message = _parse(frame)
    if message.WhichOneof("kind") != "hello":
        raise ValueError("the first frame is not a hello")
    hello = message.hello
    if hello.protocol != PROTOCOL:
        raise ValueError(f"it speaks protocol {hello.protocol}, this load balancer {PROTOCOL}: run one version")
    if len(hello.members) > MEMBERS_MAX:
        raise ValueError(f"it lists {len(hello.members)} load balancers; {MEMBERS_MAX} are allowed")
    if len(hello.key) not in (0, KEY_BYTES):
        raise ValueError(f"a key of {len(hello.key)} bytes; it has {KEY_BYTES}")
    return Hello(
        hello.address,
        tuple(sorted(hello.members)),
        shared_from(hello.shared),
        hello.enforces,
        hello.fresh,
        hello.key,
    )


def encode(message: Message) -> bytes:
    frame = pb.RaftFrame()
    match message["type"]:
        case "append_entries":
            _put_append(frame.append_entries, message)
        case "next_node_idx":
            sequence, term = message["answers"]
            frame.next_index.next_index = message["next_node_idx"]
            frame.next_index.reset, frame.next_index.success = message["reset"], message["success"]
            frame.next_index.sequence, frame.next_index.term = sequence, term
        case "request_vote":
            frame.request_vote.term = message["term"]
            frame.request_vote.last_log_index = message["last_log_index"]
            frame.request_vote.last_log_term = message["last_log_term"]
        case "response_vote":
            frame.vote.term = message["term"]
        case "apply_command":
            frame.forward.command, frame.forward.request = message["command"], message.get("request_id", 0)
        case "apply_command_response":
            frame.forwarded.request = message["request_id"]
            if "error" in message:
                frame.forwarded.error = message["error"]
            else:
                position = pb.Position(index=message["log_idx"], term=message["log_term"])
                frame.forwarded.position.CopyFrom(position)
        case "timeout_now":
            frame.take_over.term = message["term"]
        case "canvass":
            frame.canvass.term = message["term"]
            frame.canvass.last_log_index = message["last_log_index"]
            frame.canvass.last_log_term = message["last_log_term"]
        case "canvass_answer":
            frame.canvass_answer.yes = message["yes"]
            frame.canvass_answer.term, frame.canvass_answer.asked_term = message["term"], message["asked_term"]
        case kind:
            raise ValueError(f"no frame for a message of type {kind!r}")
    return frame.SerializeToString()


def decode(frame: bytes) -> Message:
    message = _parse(frame)
    match message.WhichOneof("kind"):
        case "append_entries":
            return _get_append(message.append_entries)
        case "next_index":
            n = message.next_index
            answers = (n.sequence, _number(n.term))
            return {
                "type": "next_node_idx",
                "next_node_idx": _number(n.next_index),
                "reset": n.reset,
                "success": n.success,
                "answers": answers,
            }
        case "request_vote":
            return {"type": "request_vote", **_candidate(message.request_vote)}
        case "canvass":
            return {"type": "canvass", **_candidate(message.canvass)}
        case "canvass_answer":
            a = message.canvass_answer
            terms = {"term": _number(a.term), "asked_term": _number(a.asked_term)}
            return {"type": "canvass_answer", "yes": a.yes, **terms}
        case "vote":
            return {"type": "response_vote", "term": _number(message.vote.term)}
        case "forward":
            forwarded: Message = {"type": "apply_command", "command": _command(message.forward.command)}
            if message.forward.request:
                forwarded["request_id"] = message.forward.request
            return forwarded
        case "forwarded":
            return _get_forwarded(message.forwarded)
        case "take_over":
            return {"type": "timeout_now", "term": _number(message.take_over.term)}
    raise ValueError("a frame of an unknown kind")


def _put_append(append: pb.AppendEntries, message: Message) -> None:
    append.term, append.commit_index, append.sequence = message["term"], message["commit_index"], message["sequence"]
    if "transmission" in message:
        raise ValueError("an entry larger than a batch: commands are capped far below that")
    if message.get("prevLogIdx") is not None:
        append.previous.index, append.previous.term = message["prevLogIdx"], message["prevLogTerm"]
    for command, index, term in message.get("entries", ()):
        append.entries.add(kind=command[0], command=command[1:], index=index, term=term)
    if part := message.get("serialized"):
        append.part.data, append.part.first, append.part.last = part


def _get_append(append: pb.AppendEntries) -> Message:
    message: Message = {
        "type": "append_entries",
        "term": _number(append.term),
        "commit_index": _number(append.commit_index),
        "sequence": append.sequence,
    }
    if append.HasField("previous"):
        message["prevLogIdx"], message["prevLogTerm"] = _number(append.previous.index), _number(append.previous.term)
        message["entries"] = _entries(append)
    elif append.entries:
        raise ValueError("entries that follow no entry")
    elif append.HasField("part"):
        message["serialized"] = (append.part.data, append.part.first, append.part.last)
    return message


def _entries(append: pb.AppendEntries) -> list[tuple[bytes, int, int]]:
    """As the library keeps them: (kind byte and command, index, term). They follow each other without a gap."""
    entries = []
    for offset, entry in enumerate(append.entries, start=1):
        if entry.kind not in ENTRY_KINDS:
            raise ValueError(f"an entry of kind {entry.kind}")
        if entry.index != append.previous.index + offset or entry.term > append.term:
            raise ValueError("entries that do not follow each other")
        entries.append((_command(bytes([entry.kind]) + entry.command), entry.index, _number(entry.term)))
    return entries


def _candidate(asks: pb.RequestVote | pb.Canvass) -> Message:
    return {
        "term": _number(asks.term),
        "last_log_index": _number(asks.last_log_index),
        "last_log_term": _number(asks.last_log_term),
    }


def _get_forwarded(forwarded: pb.Forwarded) -> Message:
    message: Message = {"type": "apply_command_response", "request_id": forwarded.request}
    match forwarded.WhichOneof("outcome"):
        case "error":
            return {**message, "error": forwarded.error}
        case "position":
            return {
                **message,
                "log_idx": _number(forwarded.position.index),
                "log_term": _number(forwarded.position.term),
            }
    raise ValueError("an answer without an outcome")


def _parse(frame: bytes) -> pb.RaftFrame:
    try:
        return pb.RaftFrame.FromString(frame)
    except DecodeError as error:
        raise ValueError("not a frame") from error


def _number(value: int) -> int:
    if value >= NUMBER_MAX:
        raise ValueError(f"{value}: terms and indexes are below 2^48")
    return value


def _command(command: bytes) -> bytes:
    if not 1 <= len(command) <= COMMAND_MAX or command[0] not in ENTRY_KINDS:
        raise ValueError("a command out of form or too long")
    return command
