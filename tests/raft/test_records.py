"""The bytes of journal and meta: what was synced is read back or refused, the rest is cut off, nothing is invented."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gale.errors import HostError
from gale.raft.records import (
    HEADER,
    Entry,
    Meta,
    Recovered,
    decode_meta,
    encode_meta,
    header,
    journal,
    mark,
    record,
    recover,
)

FILE = Path("/state/journal")
SALT = b"salt"
SECTOR = 512

batches = st.lists(st.lists(st.binary(max_size=700), max_size=4), max_size=4)


def grown(synced_batches: list[list[bytes]], unsynced: list[bytes], first: int = 1) -> tuple[bytes, int, list[Entry]]:
    """A journal after some syncs and some writes: its bytes, how many are surely on the disk, and its entries."""
    content, synced = header(SALT), HEADER.size
    entries: list[Entry] = []
    for batch in [*synced_batches, unsynced]:
        content = content[:synced] + mark(SALT, synced)
        for command in batch:
            entries.append((command, first + len(entries), 1 + len(entries) // 2))
            content += record(SALT, entries[-1], synced)
        last, synced = synced, len(content)
    return content, last, entries


def read(content: bytes) -> list[Entry]:
    return recover(content, FILE).entries


def read_or_refuse(content: bytes) -> list[Entry] | None:
    """None: refused, in one line that names the file and says what to do."""
    try:
        return read(content)
    except HostError as error:
        line = str(error)
    assert re.fullmatch(rf"{FILE}: .*damaged.*; stop .* move {FILE.parent} aside and start it.*", line)
    return None


CONTENT, SYNCED, ENTRIES = grown([[b"one", b""], [b"\0" * 40, b"four"]], [b"five", b"six" * 20, b"seven"], first=9)
KEPT = 4


def test_a_whole_journal_is_read_back() -> None:
    found = recover(CONTENT, FILE)
    assert found.entries == ENTRIES
    assert found.end == len(CONTENT)
    assert [recover(CONTENT[:offset], FILE).end for offset in found.offsets] == found.offsets
    assert recover(header(SALT), FILE) == Recovered(SALT, [], [], HEADER.size)


def test_a_rewritten_journal_is_read_back_and_vouches_for_all_of_itself() -> None:
    content, offsets = journal(SALT, ENTRIES)
    assert recover(content, FILE) == Recovered(SALT, ENTRIES, offsets, len(content))
    for bad in range(len(content)):
        flipped = content[:bad] + bytes([content[bad] ^ 1]) + content[bad + 1 :]
        assert read_or_refuse(flipped) in (None, ENTRIES)
    torn = record(SALT, (b"more", 16, 9), len(content))[:-1]
    assert recover(content + torn + mark(SALT, len(content)), FILE).end == len(content)


def test_cut_at_every_unsynced_byte_it_keeps_what_is_whole() -> None:
    lengths = []
    for size in range(SYNCED, len(CONTENT) + 1):
        found = recover(CONTENT[:size], FILE)
        assert found.entries == ENTRIES[: len(found.entries)]
        assert found.end <= size
        lengths.append(len(found.entries))
    assert lengths == sorted(lengths)
    assert set(lengths) == {KEPT, KEPT + 1, KEPT + 2, KEPT + 3}


def test_every_flipped_bit_of_what_was_synced_is_refused_or_does_not_matter() -> None:
    refused = 0
    for content in (CONTENT, CONTENT[: SYNCED + len(mark(SALT, SYNCED))]):
        original = read(content)
        for bit in range(SYNCED * 8):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            found = read_or_refuse(bytes(flipped))
            assert found in (None, original)
            refused += found is None
    assert refused == 2 * SYNCED * 8


def test_every_flipped_bit_of_what_was_not_synced_costs_at_most_what_was_not_synced() -> None:
    for bit in range(SYNCED * 8, len(CONTENT) * 8):
        flipped = bytearray(CONTENT)
        flipped[bit // 8] ^= 1 << bit % 8
        found = read(bytes(flipped))
        assert found == ENTRIES[: len(found)]
        assert len(found) >= KEPT


@given(
    batches, st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 2**40), st.randoms(use_true_random=False)
)
def test_unsynced_sectors_in_any_state_and_order_are_a_torn_tail(
    synced_batches: list[list[bytes]], unsynced: list[bytes], first: int, chance: random.Random
) -> None:
    content, synced, entries = grown(synced_batches, unsynced, first)
    kept = sum(map(len, synced_batches))
    torn = bytearray(content)
    for start in range(synced // SECTOR * SECTOR, len(content), SECTOR):
        part = range(max(start, synced), min(start + SECTOR, len(content)))
        fate = chance.choice(["there", "there", "zero", "garbled"])
        if fate != "there":
            torn[part.start : part.stop] = bytes(len(part)) if fate == "zero" else chance.randbytes(len(part))
    for size in (len(torn), chance.randint(synced, len(torn))):
        found = read(bytes(torn[:size]))
        assert found == entries[: len(found)]
        assert len(found) >= kept


@given(batches, st.randoms(use_true_random=False))
def test_synced_sectors_that_the_disk_lost_are_never_taken_for_a_torn_tail(
    synced_batches: list[list[bytes]], chance: random.Random
) -> None:
    content, synced, entries = grown(synced_batches, [])
    start = chance.randrange(0, synced, SECTOR)
    stop = min(start + SECTOR, synced)
    assert read_or_refuse(content[:start] + bytes(stop - start) + content[stop:]) in (None, entries)


def test_a_command_that_looks_like_a_proof_of_damage_is_none() -> None:
    forged = b"".join(record(bytes([guess]) * 4, (b"", 0, 0), 1 << 40) for guess in range(256))
    content, synced, _ = grown([[b"one"]], [forged])
    assert read(content[:synced] + b"\0" + content[synced + 1 :]) == [(b"one", 1, 1)]


@pytest.mark.parametrize(
    ("second", "why"), [((b"", 3, 5), "a gap"), ((b"", 1, 5), "a repetition"), ((b"", 2, 4), "an older term")]
)
def test_an_entry_that_cannot_follow_ends_the_journal_or_refuses_it(second: Entry, why: str) -> None:
    content = header(SALT) + record(SALT, (b"", 1, 5), 0) + record(SALT, second, 0)
    assert len(read(content)) == 1, why
    assert read_or_refuse(content + mark(SALT, len(content))) is None, why


@pytest.mark.parametrize("content", [b"g", header(SALT)[:-1], b"PYSYNCOBJ" + bytes(40), b"galejnl\x02" + CONTENT[8:]])
def test_what_is_not_a_journal_of_this_version_is_refused(content: bytes) -> None:
    assert read_or_refuse(content) is None


metas = st.builds(
    Meta, term=st.integers(0, 2**64 - 1), vote=st.none() | st.text(max_size=30), commit=st.integers(1, 2**64 - 1)
)


@given(metas)
def test_meta_is_read_back(meta: Meta) -> None:
    assert decode_meta(encode_meta(meta), FILE) == meta


@pytest.mark.parametrize("meta", [Meta(7, "10.0.0.1:4321", 12), Meta(7, None, 12), Meta()])
def test_meta_with_any_bit_flipped_or_cut_anywhere_is_refused(meta: Meta) -> None:
    content = encode_meta(meta)
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HostError, match="vote twice"):
            decode_meta(bytes(flipped), FILE)
    for size in range(len(content)):
        with pytest.raises(HostError, match="vote twice"):
            decode_meta(content[:size], FILE)
