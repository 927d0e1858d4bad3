"""The four rules, as values: a log, a link, a message in, a message out."""

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from gale.raft.records import Entry
from gale.raft.rules import Link, incoming_append, outgoing, takes_answer


@dataclass
class Log:
    """Five entries, terms 1 1 2 2 3, of which three are committed."""

    entries: list[Entry] = field(
        default_factory=lambda: [(b"\0", index, term) for index, term in enumerate((1, 1, 2, 2, 3), start=1)]
    )
    term: int = 3
    commit_index: int = 3
    leads: bool = True


def append(previous: tuple[int, int], entries: list[Entry], commit: int = 5, term: int = 3) -> dict[str, Any]:
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit,
        "sequence": 7,
        "prevLogIdx": previous[0],
        "prevLogTerm": previous[1],
        "entries": entries,
    }


def answer(sequence: int, *, term: int = 3, reset: bool = False, success: bool = True) -> dict[str, Any]:
    kind = {"type": "next_node_idx", "next_node_idx": 4, "reset": reset, "success": success}
    return {**kind, "answers": (sequence, term)}


def test_appends_are_numbered_and_answers_name_what_they_answer() -> None:
    link = Link()
    assert [outgoing(append((5, 3), []), link, Log())["sequence"] for _ in range(3)] == [1, 2, 3]
    incoming_append(append((5, 3), []), link, Log())
    assert outgoing(answer(0), link, Log())["answers"] == (7, 3)


def test_a_back_off_names_the_entry_after_the_commit_index() -> None:
    back_off = {"type": "next_node_idx", "next_node_idx": 99, "reset": True, "success": False}
    assert outgoing(back_off, Link(), Log())["next_node_idx"] == 4


def test_answers_of_another_term_or_to_nobody_are_dropped() -> None:
    link = Link(sent=5)
    assert takes_answer(answer(5), link, Log())
    assert not takes_answer(answer(5, term=2), link, Log())
    assert not takes_answer(answer(5), link, Log(leads=False))
    assert not takes_answer(answer(6), link, Log())  # to an append that was never sent on this connection


def test_a_second_back_off_to_what_was_sent_before_the_first_is_old_news() -> None:
    link = Link(sent=5)
    assert takes_answer(answer(3, reset=True, success=False), link, Log())
    assert not takes_answer(answer(5, reset=True, success=False), link, Log())
    link.sent = 6
    assert takes_answer(answer(6, reset=True, success=False), link, Log())


def test_entries_that_are_there_are_skipped_and_nothing_is_cut() -> None:
    known = [(b"\0", 4, 2), (b"\0", 5, 3)]
    seen, reply = incoming_append(append((3, 2), [*known, (b"\0", 6, 3)]), Link(), Log())
    assert reply is None
    assert (seen["prevLogIdx"], seen["prevLogTerm"], seen["entries"]) == (5, 3, [(b"\0", 6, 3)])


def test_an_old_append_becomes_a_heartbeat_with_an_answer() -> None:
    seen, reply = incoming_append(append((2, 1), [(b"\0", 3, 2)]), Link(), Log())
    assert "prevLogIdx" not in seen
    assert seen["commit_index"] == 3  # what was compared, not what the leader has
    assert reply == {"type": "next_node_idx", "next_node_idx": 4, "reset": False, "success": True}


def test_a_conflict_is_the_librarys_to_cut() -> None:
    conflicting = append((3, 2), [(b"\0", 4, 3)])
    assert incoming_append(conflicting, Link(), Log()) == (conflicting, None)


def test_what_does_not_match_is_the_librarys_to_refuse() -> None:
    for previous in ((4, 1), (9, 3)):
        message = append(previous, [])
        assert incoming_append(message, Link(), Log()) == (message, None)


def test_what_was_not_compared_raises_no_commit_index() -> None:
    part = {"type": "append_entries", "term": 3, "commit_index": 5, "sequence": 1, "serialized": (b"", True, True)}
    seen, _ = incoming_append(part, Link(), Log())
    assert seen["commit_index"] == 3


def test_the_library_leaves_no_function_of_windows_behind() -> None:
    program = "import gale.raft.replica, socket; print(socket.inet_ntop(socket.AF_INET6, bytes(15) + bytes([1])))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("::1\n", 0), done.stderr
