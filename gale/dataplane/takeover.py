"""A start: from what an earlier gale-lb has left, to programs and maps of this one, without a packet lost between.

1. Compiled and loaded, with the tables of flows that are there, where they have the same shape. Everything else is
   new: the old programs forward by the old maps, which nobody writes to any more.
2. The caller fills the new maps with the committed view.
3. `attach`, step by step (`Start.steps`). Only one of them decides, the swap of the XDP program. Before it, the new
   filter of the way back stands before the old one; after it, the old one goes and the names in the file system follow.
   gale-lb may be killed between any two, and the next start goes on from what forwards (pins.py).

Tables of another shape are converted (convert.py), most of them before the swap. Until the rest has been as well
(`takeover`), the packet path drops packets whose flow it does not know; to pass them would reset connections.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import structlog

from gale.dataplane import attach, jiffies, listeners
from gale.dataplane.attach import Attachment
from gale.dataplane.bpfmap import BpfMap
from gale.dataplane.convert import Conversion
from gale.dataplane.farewell import forget
from gale.dataplane.hold import is_held
from gale.dataplane.links import interface_index
from gale.dataplane.maps import Maps, born_before, tables_before
from gale.dataplane.pins import KEPT, Old, Pins
from gale.dataplane.program import PRIVATE_PROGRAM, PUBLIC_PROGRAM, Program, Secrets, load
from gale.dataplane.settings import DataplaneSettings
from gale.dataplane.syscall import program_info
from gale.errors import DataplaneError, HostError

log = structlog.get_logger()

TABLES = ("returns", "flows")
"""In the order in which they are converted: a flow without its return path is worth nothing."""

CONVERTED_WITHIN_S = 5
_CLSACT, _FILTER = "clsact", "filter"
"""Notes (pins.py)."""


class Start:
    """Loaded on construction. Raises HostError or DataplaneError; then everything is as it was.

    replaces       programs of an earlier start forward meanwhile
    nodes_prepare  nodes must take addresses that they do not have for those, before they are sent to there
    """

    def __init__(self, settings: DataplaneSettings) -> None:
        self._settings = settings
        self._public, self._private = settings.public_interface, settings.private_interface
        self._index = interface_index(self._public)
        self._pins = Pins(self._public)
        old = self._pins.find()
        known = old.maps if old else {}
        flows = [known[name] for name in TABLES if name in known]
        before = listeners.read(known["directory"][0]) if "directory" in known else listeners.Directory({})
        directory = listeners.number(settings.listeners, settings.services, before, _numbers_in_use(flows))
        if directory.given_up:
            log.warning("flows of listeners that are gone are given up", flows=forget(flows, directory.given_up))
        secrets = old.secrets if old else Secrets.new()
        adopt = {name: known[name] for name in KEPT if name in known}
        self.program = _loaded(settings, adopt, secrets, directory.modes)
        self.replaces = attach.xdp_program(self._public) == PUBLIC_PROGRAM
        self.nodes_prepare = bool(directory.addresses_of_nodes() - before.addresses_of_nodes())
        self._born = born_before(known["nodes"]) if "nodes" in known else {}
        tables = tables_before(known, directory.services_in(before, settings.services))
        self.maps = Maps(self.program, settings, directory, self._born, tables)
        self.adopted = self.program.adopted
        self._pinned = self._pins.describe(self.program, secrets)
        self._conversions = self._to_convert(old)
        self._lost: set[bytes] = set()
        self._handle: int | None = None
        self._attachment: Attachment | None = None
        self._convert_most()

    def attach(self) -> Attachment:
        """Put the new programs in the place of the old ones. Raises DataplaneError, and may be called again."""
        for step in self.steps():
            step()
        if self._attachment is None:
            raise DataplaneError(f"{self._public}: nothing was attached")
        return self._attachment

    def steps(self) -> tuple[Callable[[], None], ...]:
        """What `attach` does, in order."""
        return (
            self._stage,
            self._convert_most,
            self._add_filter,
            self._swap,
            self._convert_rest,
            self._remove_filters,
            self._pins.publish,
            self._pins.drop,
            self._leave_others,
        )

    def left_behind(self) -> tuple[int, ...]:
        """Numbers of nodes that went while there was no gale-lb: their flows have no node any more."""
        return tuple(
            number
            for number, born in self._born.items()
            if any(born.address) and not self.maps.has_node(number, born.birth)
        )

    def verify(self) -> tuple[str, ...]:
        """Compare what the kernel holds with what it should, and mend it: one line for each difference."""
        found = list(self.maps.verify())
        if self._attachment is not None:
            try:
                found += self._verify_attached()
            except (DataplaneError, HostError, OSError) as error:
                found.append(f"not mended: {error}")
        return tuple(found)

    # the steps

    def _stage(self) -> None:
        self._pins.stage(self._pinned, self.program)

    def _convert_most(self) -> None:
        if self._conversions:
            self._let_flows_be_missing(CONVERTED_WITHIN_S)
        for name, conversion in self._conversions.items():
            log.info(
                f"taking over {name} that an earlier build has left in another shape",
                entries=conversion.run(self._lost),
            )

    def _add_filter(self) -> None:
        if self.program.private_fd is None:
            return
        if not attach.has_clsact(self._private):
            self._pins.note(_CLSACT, self._private)
        if self._handle is not None:
            attach.remove_filters(self._private, PRIVATE_PROGRAM, only=self._handle)
        self._handle = attach.add_filter(self._private, self.program.private_fd, PRIVATE_PROGRAM)

    def _swap(self) -> None:
        try:
            mode = attach.attach_xdp(self._public, self.program.public_fd, PUBLIC_PROGRAM)
        except (DataplaneError, HostError):
            if self._handle is not None:
                attach.remove_filters(self._private, PRIVATE_PROGRAM, only=self._handle)
                self._handle = None
            raise
        if mode == "generic" and self._attachment is None:
            log.warning(
                f"{self._public}: its driver has no XDP: packets take the kernel's generic way, which is slower"
            )
        self._attachment = Attachment(
            self._public, mode, self._private if self.program.private_fd is not None else None
        )

    def _convert_rest(self) -> None:
        if self._conversions:
            for conversion in self._conversions.values():
                conversion.run(self._lost)
            self._let_flows_be_missing(0)
            if self._lost:
                log.warning("flows found no room in the new tables", flows=len(self._lost))
            self._conversions = {}

    def _remove_filters(self) -> None:
        """Those of before, which may be on another interface."""
        before = self._pins.noted(_FILTER)
        if self._handle is not None:
            attach.remove_filters(self._private, PRIVATE_PROGRAM, but=self._handle)
            self._pins.note(_FILTER, self._private)
        for interface in {before, self._private} - {None, None if self._handle is None else self._private}:
            _take_filters(self._pins, str(interface))

    def _leave_others(self) -> None:
        """A configuration of before may have named another public interface, where it would go on forwarding by maps
        that nobody writes to. Where another gale-lb runs it stays."""
        for interface in attach.interfaces_with(PUBLIC_PROGRAM):
            if interface == self._public or is_held(interface):
                continue
            pins = Pins(interface)
            if pins.noted(_CLSACT) == self._private:
                self._pins.note(_CLSACT, self._private)
            for other in {pins.noted(_FILTER), pins.noted(_CLSACT)} - {None, self._private}:
                _take_filters(pins, str(other))
            attach.detach_xdp(interface, PUBLIC_PROGRAM)
            pins.remove()
            log.warning(f"{interface} is no public interface any more: gale's programs and maps there are taken off")

    def _let_flows_be_missing(self, seconds: int) -> None:
        until = (jiffies.now() + seconds * jiffies.per_second()) % (1 << 32) if seconds else 0
        self.program.maps["takeover"].update(0, max(until, 1) if seconds else 0)

    def _to_convert(self, old: Old | None) -> dict[str, Conversion]:
        if old is None or self.program.private_fd is None:
            return {}
        return {
            name: Conversion(old.maps[name], self.program.maps[name], self.program)
            for name in TABLES
            if name in old.maps and name not in self.adopted
        }

    def _verify_attached(self) -> list[str]:
        """Programs and names that somebody has taken away."""
        if interface_index(self._public) != self._index:
            return [f"{self._public} is another interface than at the start: restart gale-lb"]
        found = []
        if attach.xdp_program_id(self._public) != program_info(self.program.public_fd).id:
            attach.attach_xdp(self._public, self.program.public_fd, PUBLIC_PROGRAM)
            found.append(f"{self._public}: gale's XDP program was not attached")
        if (private := self.program.private_fd) is not None:
            ids = attach.filters(self._private, PRIVATE_PROGRAM)
            if ids != [program_info(private).id]:
                attach.attach_filter(self._private, private, PRIVATE_PROGRAM)
                found.append(f"{self._private}: {len(ids)} filters of gale's, and not the one of this start")
        if not self._pins.hold(self._pinned):
            self._stage()
            self._pins.publish()
            self._pins.drop()
            found.append(f"{self._pins.folder}: other maps than those in use were pinned there")
        return found


def _loaded(
    settings: DataplaneSettings, adopt: Mapping[str, BpfMap], secrets: Secrets, modes: Iterable[str]
) -> Program:
    begin_s = time.monotonic()
    program = load(settings, adopt=adopt, secrets=secrets, modes=modes)
    seconds = round(time.monotonic() - begin_s, 2)
    if program.file is None:
        log.info("packet path compiled and loaded", seconds=seconds)
    else:
        log.info("packet path loaded without compiling", file=str(program.file), seconds=seconds)
    return program


def remove(public: str, private: str) -> None:
    """Leave the interfaces as they were before gale: its programs, its qdisc and its maps go. Raises HostError for an
    interface that does not exist."""
    pins = Pins(public)
    attach.detach_xdp(public, PUBLIC_PROGRAM)
    interface_index(private)
    for interface in {private, pins.noted(_FILTER), pins.noted(_CLSACT)} - {None}:
        _take_filters(pins, str(interface))
    pins.remove()


def _take_filters(pins: Pins, interface: str) -> None:
    """An interface that is gone took them along."""
    with suppress(HostError):
        attach.remove_filters(interface, PRIVATE_PROGRAM)
        if pins.noted(_CLSACT) == interface:
            attach.remove_clsact(interface)
    for note in (_CLSACT, _FILTER):
        if pins.noted(note) == interface:
            pins.forget(note)


def _numbers_in_use(tables: list[BpfMap]) -> set[int]:
    """Of listeners, in entries of flows, also in those that are over: what a packet may still be taken for."""
    found: set[int] = set()
    for table in tables:
        offset, size = table.Leaf.listener.offset, table.Leaf.listener.size
        column = memoryview(table.mmap()).cast("H")[offset // size :: table.stride // size]
        found.update(column[: table.max_entries].tolist())
    return found
