"""The notes of a lab on disk, so that any later gale-lab finds it again, also after a crash.

/run/gale-lab/PREFIX/
  lab.json        how it was asked for, and which processes were started
  configs/        lb-0.toml, node-0.toml, …
  logs/           lb-0.log, node-0.log, node-0-server.log, …
  state/lb-0/     what gale-lb keeps
  tls/            certificates, where the lab has them
  disks/          images of small file systems under it

lab.json is replaced in one step and changed under a lock.
"""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gale.errors import LabError
from gale.lab import disks
from gale.lab.options import LabOptions
from gale.lab.processes import Process

ROOT = Path("/run/gale-lab")


@dataclass(slots=True)
class Notes:
    """`processes`: per instance, by what they do ("lb", "agent", "server").

    environments: what is added to the environment of an instance's programs
    losses: source, target -> percent of the frames that the switch loses on that way
    """

    options: LabOptions
    processes: dict[str, dict[str, Process]] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    losses: dict[tuple[str, str], int] = field(default_factory=dict)

    def to_json(self) -> str:
        processes = {
            name: {kind: [process.pid, process.start] for kind, process in kinds.items()}
            for name, kinds in self.processes.items()
        }
        losses = [[*way, percent] for way, percent in self.losses.items()]
        record = {
            "options": self.options.as_dict(),
            "processes": processes,
            "environments": self.environments,
            "losses": losses,
        }
        return json.dumps(record, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Notes":
        record = json.loads(text)
        processes = {
            name: {kind: Process(*pair) for kind, pair in kinds.items()} for name, kinds in record["processes"].items()
        }
        losses = {(source, target): percent for source, target, percent in record["losses"]}
        return cls(LabOptions.from_dict(record["options"]), processes, record["environments"], losses)


class Store:
    def __init__(self, prefix: str, root: Path = ROOT) -> None:
        self.directory = root / prefix
        self._root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other gale-lab from changing a lab meanwhile."""
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def demo(self) -> Iterator[None]:
        """Only one demo at a time: each would remove the lab of the other. The hold is a name that ends with us."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hold:
            try:
                hold.bind(f"\0gale-lab-demo:{self.directory}")
            except OSError:
                raise LabError("another demo is running in this lab") from None
            yield

    def exists(self) -> bool:
        return self.directory.exists()

    def create(self, notes: Notes) -> None:
        for folder in ("configs", "logs", "state", "disks", "tls"):
            (self.directory / folder).mkdir(parents=True)
        self.write(notes)

    def read(self) -> Notes | None:
        """None when there is no lab, or only the beginning or the rest of one."""
        try:
            return Notes.from_json((self.directory / "lab.json").read_text())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, LabError) as error:
            raise LabError(f"{self.directory}/lab.json cannot be read ({error}): gale-lab down") from error

    def write(self, notes: Notes) -> None:
        new = self.directory / "lab.json.new"
        new.write_text(notes.to_json())
        os.replace(new, self.directory / "lab.json")

    def remove(self) -> None:
        disks.unmount_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    def config(self, name: str) -> Path:
        return self.directory / "configs" / f"{name}.toml"

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def state(self, name: str) -> Path:
        return self.directory / "state" / name

    def disk(self, name: str) -> Path:
        return self.directory / "disks" / f"{name}.image"
