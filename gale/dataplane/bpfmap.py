"""A BPF map by its file descriptor: entries in and out, one by one, or all of them in a few system calls.

Keys and values are bytes; a key may also be given as a number, and both as ctypes (`Key`, `Leaf`). A value of a
per-CPU map holds one value for each processor there could be, each rounded up to eight bytes.
"""

import ctypes
import errno
import mmap
import os
import struct
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gale.dataplane.layout import ARRAY, DEVMAP, PERCPU_ARRAY, Layout
from gale.dataplane.syscall import (
    MAP_DELETE_ELEM,
    MAP_LOOKUP_BATCH,
    MAP_LOOKUP_ELEM,
    MAP_UPDATE_BATCH,
    MAP_UPDATE_ELEM,
    bpf,
    try_bpf,
)
from gale.errors import DataplaneError

_ELEMENT = struct.Struct("=I4x3Q")
"""map_fd, key, value, flags: of union bpf_attr."""
_BATCH = struct.Struct("=4Q2I2Q")
"""in_batch, out_batch, keys, values, count, map_fd, flags of elements, flags: likewise."""
_WORD = 8
_BATCH_BYTES = 4 << 20
_BATCH_ENTRIES = 1 << 16


class BpfMap:
    """Owns the file descriptor. Raises DataplaneError when the kernel refuses."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.fd = descriptor
        self.layout = layout
        self.name, self.key_size, self.max_entries = layout.name, layout.key_size, layout.max_entries
        self.is_array = layout.kind in (ARRAY, PERCPU_ARRAY, DEVMAP)
        self.copies = possible_cpus() if layout.kind == PERCPU_ARRAY else 1
        self.stride = _round_up(layout.value_size)
        """From one value to the next, of an array's memory and of the copies of a per-CPU value."""
        self.value_size = self.stride * self.copies if self.copies > 1 else layout.value_size
        self._close = weakref.finalize(self, os.close, descriptor)

    @property
    def Key(self) -> Any:
        return self.layout.Key

    @property
    def Leaf(self) -> Any:
        return self.layout.Leaf

    def __len__(self) -> int:
        """The entries of an array; of another map those that are there."""
        return self.max_entries if self.is_array else len(self.items())

    def lookup(self, key: object) -> bytes | None:
        """None if there is no such entry."""
        wanted, value = self._key(key), ctypes.create_string_buffer(self.value_size)
        try:
            bpf(MAP_LOOKUP_ELEM, self._element(wanted, value))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(key, error) from error
        return value.raw

    def update(self, key: object, value: object) -> None:
        """Write one entry, whole. `value`: bytes, ctypes or a number."""
        wanted, written = self._key(key), self._value(value)
        try:
            bpf(MAP_UPDATE_ELEM, self._element(wanted, written))
        except OSError as error:
            raise self._refused(key, error) from error

    def delete(self, key: object) -> bool:
        """False if there was no such entry. Entries of an array cannot be deleted."""
        wanted = self._key(key)
        try:
            bpf(MAP_DELETE_ELEM, self._element(wanted, None))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._refused(key, error) from error
        return True

    def __getitem__(self, key: object) -> Any:
        """A `Leaf`; of a per-CPU map a list of them. Raises KeyError."""
        value = self.lookup(key)
        if value is None:
            raise KeyError(key)
        leaves = [self.Leaf.from_buffer_copy(value, self.stride * copy) for copy in range(self.copies)]
        return leaves if self.copies > 1 else leaves[0]

    def __setitem__(self, key: object, leaf: object) -> None:
        self.update(key, leaf)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Every entry, key and value."""
        if self.layout.kind == DEVMAP:  # has no batches
            places = (place.to_bytes(self.key_size, sys.byteorder) for place in range(self.max_entries))
            return [(place, value) for place in places if (value := self.lookup(place)) is not None]
        return [entry for keys, values in self._batches(0, None) for entry in self._pairs(keys, values)]

    def entries(self) -> list[tuple[Any, Any]]:
        """Every entry, as `Key` (a number, for an array) and `Leaf`."""
        number = self.key_size == 4 and self.is_array
        return [
            (int.from_bytes(key, sys.byteorder) if number else self.Key.from_buffer_copy(key), self._leaf(value))
            for key, value in self.items()
        ]

    def read(self, first: int = 0, count: int | None = None) -> bytes:
        """The values of an array, one after the other: all of them from `first` on, or so many."""
        return b"".join(values for _, values in self._batches(first, count))

    def totals(self, numbers: Iterable[int] | None = None) -> dict[int, tuple[int, ...]]:
        """Values of a per-CPU array as unsigned 64-bit words, each added up over the processors. What is read is the
        part of the array that holds these numbers."""
        wanted = range(self.max_entries) if numbers is None else sorted(numbers)
        if not wanted:
            return {}
        first, words = wanted[0], self.stride // _WORD
        data, size = memoryview(self.read(first, wanted[-1] - first + 1)).cast("Q"), words * self.copies
        return {
            first + place: tuple(sum(data[place * size + word : (place + 1) * size : words]) for word in range(words))
            for place in (number - first for number in wanted)
        }

    def update_many(self, entries: Mapping[Any, object]) -> None:
        """Write many entries in few system calls. Some may be written when it raises."""
        keys, values = [self._key(key).raw for key in entries], [self._value(value).raw for value in entries.values()]
        most = self._most_entries()
        for first in range(0, len(keys), most):
            part = keys[first : first + most]
            key_buffer = ctypes.create_string_buffer(b"".join(part), len(part) * self.key_size)
            value_buffer = ctypes.create_string_buffer(
                b"".join(values[first : first + most]), len(part) * self.value_size
            )
            where = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
            try:
                bpf(MAP_UPDATE_BATCH, _BATCH.pack(0, 0, *where, len(part), self.fd, 0, 0))
            except OSError as error:
                raise self._refused(f"{first} and following", error) from error

    def clear(self) -> None:
        """No entries; of an array: all zeroes."""
        if self.is_array and self.layout.kind != DEVMAP:
            zero = bytes(self.value_size)
            self.update_many(dict.fromkeys(range(self.max_entries), zero))
        else:
            for key, _ in self.items():
                self.delete(key)

    def mmap(self, first: int = 0, count: int | None = None) -> mmap.mmap:
        """The memory of an array that was made for that (BPF_F_MMAPABLE), each value `stride` behind the one before:
        all of it, or so many from `first` on, which must be where a page begins."""
        page, many = mmap.PAGESIZE, self.max_entries if count is None else count
        size = -(-self.stride * many // page) * page
        try:
            return mmap.mmap(self.fd, size, mmap.MAP_SHARED, offset=first * self.stride)
        except OSError as error:
            raise DataplaneError(f"map {self.name}: its memory cannot be mapped: {error.strerror}") from error

    def batches(self, most: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of every entry, at most so many together; each by a system call of its own."""
        yield from self._batches(0, None, most)

    def _batches(self, first: int, count: int | None, most: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values. Only an array has a `first`: the kernel is given the place before it, to go on from."""
        left = self.max_entries if count is None else count
        most = min(left, most or self._most_entries())
        keys = ctypes.create_string_buffer(most * self.key_size)
        values = ctypes.create_string_buffer(most * self.value_size)
        before, follows = (first - 1).to_bytes(self.key_size, sys.byteorder) if first else b"", first > 0
        place = ctypes.create_string_buffer(before, max(self.key_size, _WORD))
        where = ctypes.addressof(keys), ctypes.addressof(values)
        while True:
            at = ctypes.addressof(place)
            request = _BATCH.pack(at if follows else 0, at, *where, min(most, left), self.fd, 0, 0)
            _, code, answer = try_bpf(MAP_LOOKUP_BATCH, request)
            if code not in (0, errno.ENOENT):
                raise self._refused("all", OSError(code, os.strerror(code)))
            got = _BATCH.unpack_from(answer)[4]
            yield keys.raw[: got * self.key_size], values.raw[: got * self.value_size]
            left -= got
            if code or not left:  # there is no more, or it was not asked for
                return
            follows = True

    def _most_entries(self) -> int:
        return max(1, min(self.max_entries, _BATCH_ENTRIES, _BATCH_BYTES // self.value_size))

    def _pairs(self, keys: bytes, values: bytes) -> Iterator[tuple[bytes, bytes]]:
        for index in range(len(keys) // self.key_size):
            yield (
                keys[index * self.key_size : (index + 1) * self.key_size],
                values[index * self.value_size : (index + 1) * self.value_size],
            )

    def _leaf(self, value: bytes) -> Any:
        leaves = [self.Leaf.from_buffer_copy(value, self.stride * copy) for copy in range(self.copies)]
        return leaves if self.copies > 1 else leaves[0]

    def _element(self, key: Any, value: Any) -> bytes:
        return _ELEMENT.pack(self.fd, ctypes.addressof(key), ctypes.addressof(value) if value is not None else 0, 0)

    def _key(self, key: object) -> Any:
        return ctypes.create_string_buffer(_raw(key, self.key_size, f"map {self.name}: key"), self.key_size)

    def _value(self, value: object) -> Any:
        return ctypes.create_string_buffer(_raw(value, self.value_size, f"map {self.name}: value"), self.value_size)

    def _refused(self, key: object, error: OSError) -> DataplaneError:
        return DataplaneError(f"map {self.name}, entry {key}: {error.strerror}")


def _raw(value: object, size: int, what: str) -> bytes:
    raw = value.to_bytes(size, sys.byteorder) if isinstance(value, int) else bytes(value)  # type: ignore[call-overload]
    if len(raw) != size:
        raise DataplaneError(f"{what} of {len(raw)} bytes instead of {size}")
    return bytes(raw)


def _round_up(size: int) -> int:
    return -(-size // _WORD) * _WORD


@cache
def possible_cpus() -> int:
    """For so many processors the kernel keeps per-CPU values. The file says "0-3"."""
    return int(Path("/sys/devices/system/cpu/possible").read_text().replace(",", "-").split("-")[-1]) + 1
