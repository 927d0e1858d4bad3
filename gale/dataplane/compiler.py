"""Compiles and loads BPF programs with BCC, in a process of its own that ends when it has handed them over.

BCC and LLVM cost more memory than all of gale-lb, and are needed for a second. So `compile_and_load` starts this module
as a child, which answers over a socket: the file descriptors of programs and maps, and the shapes of the maps.

    parent ── a text, maps to go on with ──> child: compile, put the maps in place, load ── descriptors ──> parent

A map that is to be gone on with takes the place of the one BCC made, if their shapes are equal: the child gives it the
same file descriptor, by which BCC names maps in the code it loads next.

BCC asks for a kernel source tree; bpf/include/ stands in for one (bpf/README.md). What BCC and clang have to say goes
to the child's standard error, and their first complaint becomes the text of the error.
"""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.layout import Layout
from gale.dataplane.syscall import map_info
from gale.errors import DataplaneError, HostError

PARTS = (
    "head.c",
    "explain.c",
    "slots.c",
    "toobig.c",
    "fragments.c",
    "flows.c",
    "nat.c",
    "nat_errors.c",
    "dsr.c",
    "gale.c",
)
"""Of the packet path. BCC rewrites uses of maps in the main file only, so the parts become one text."""

WITHIN_S = 300.0  # a bound against hanging: a machine in software emulation takes more than a minute

_SIZE = struct.Struct("=Q")
_DESCRIPTORS_MAX = 200
_NO_BCC = (
    "bcc is missing: apt-get install python3-bpfcc, and make the virtual environment from the distribution's Python "
    "with --system-site-packages"
)


def source(*parts: str) -> bytes:
    """The text of these files of bpf/, as one; the compiler knows which line came from where."""
    return b"\n".join(
        b'#line 1 "bpf/%s"\n%s' % (part.encode(), (BPF_DIRECTORY / part).read_bytes()) for part in parts or PARTS
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """File descriptors, which the caller must close. `adopted`: maps that were gone on with, by name."""

    programs: Mapping[str, int]
    maps: Mapping[str, tuple[int, Layout]]
    adopted: frozenset[str]


def compile_and_load(
    text: bytes, cflags: Sequence[str], programs: Mapping[str, str], adopt: Mapping[str, tuple[int, Layout]]
) -> Loaded:
    """`programs`: name -> "xdp" or "tc". Raises HostError without BCC, DataplaneError for a text that is refused."""
    user_api = ["/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    request = {
        "text": text.decode(),
        "cflags": ["-g0", *(f"-I{directory}" for directory in (BPF_DIRECTORY, *user_api)), *cflags],
        "programs": dict(programs),
        "adopt": [layout.as_json() for _, layout in adopt.values()],
    }
    here, there = socket.socketpair()
    with here, there, tempfile.TemporaryFile() as said:
        here.settimeout(WITHIN_S)
        child = _start(there, said)
        there.close()
        try:
            _send(here, request, [descriptor for descriptor, _ in adopt.values()])
            answer, descriptors = _receive(here)
        except (OSError, EOFError) as error:
            child.kill()
            why = f"the compiler ended with {child.wait()}: {error}"
            raise DataplaneError(_complaint(said, why)) from error
        finally:
            child.kill()
            child.wait()
        if "missing" in answer:
            raise HostError(f"{_NO_BCC} ({answer['missing']})")
        if "error" in answer:
            raise DataplaneError(_complaint(said, answer["error"]))
    layouts = [Layout.of(layout) for layout in answer["maps"]]
    maps = {layout.name: (descriptor, layout) for descriptor, layout in zip(descriptors, layouts, strict=False)}
    fds = dict(zip(answer["programs"], descriptors[len(layouts) :], strict=True))
    return Loaded(fds, maps, frozenset(answer["adopted"]))


def _start(socket_there: socket.socket, said: IO[bytes]) -> subprocess.Popen[bytes]:
    package = str(BPF_DIRECTORY.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"BCC_KERNEL_SOURCE": str(BPF_DIRECTORY), "PYTHONPATH": path}
    number = socket_there.fileno()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gale.dataplane.compiler", str(number)],
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env=environment,
    )


def _complaint(said: IO[bytes], error: str) -> str:
    """The compiler's first error, which begins with the file; else the verifier's last word, before its statistics."""
    said.seek(0)
    output = said.read().decode(errors="replace")
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("processed ")]
    compilers = next((line for line in lines if "error:" in line), None)
    return compilers or f"bpf/: {error}: {lines[-1]}" if lines else f"bpf/: {error}"


def _send(there: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    data = json.dumps(message).encode()
    socket.send_fds(there, [_SIZE.pack(len(data))], list(descriptors))
    there.sendall(data)


def _receive(there: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, descriptors, _, _ = socket.recv_fds(there, _SIZE.size, _DESCRIPTORS_MAX)
    if len(head) < _SIZE.size:
        raise EOFError("it said nothing")
    left, data = _SIZE.unpack(head)[0], bytearray()
    while left > len(data) and (chunk := there.recv(1 << 20)):
        data += chunk
    return json.loads(data), descriptors


# The child


def _serve(there: socket.socket) -> None:
    request, adopted = _receive(there)
    try:
        import bcc
    except ImportError as error:
        _send(there, {"missing": str(error)}, [])
        return
    try:
        answer, descriptors = _load(bcc, request, adopted)
    except Exception as error:  # BCC raises nothing more specific
        _send(there, {"error": str(error)}, [])
    else:
        _send(there, answer, descriptors)


def _load(bcc: Any, request: Mapping[str, Any], adopted: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
    module = bcc.BPF(text=request["text"].encode(), cflags=request["cflags"])
    maps = _maps(bcc.lib, module.module)
    old = {layout["name"]: (descriptor, layout) for descriptor, layout in zip(adopted, request["adopt"], strict=True)}
    kept = [layout.name for _, layout in maps if layout.name in old and old[layout.name][1] == layout.as_json()]
    for descriptor, layout in maps:
        if layout.name in kept:
            os.dup2(old[layout.name][0], descriptor)
    programs = {name: _load_program(bcc, module, name, kind) for name, kind in request["programs"].items()}
    answer = {"maps": [layout.as_json() for _, layout in maps], "programs": list(programs), "adopted": kept}
    return answer, [*(descriptor for descriptor, _ in maps), *programs.values()]


def _load_program(bcc: Any, module: Any, name: str, kind: str) -> int:
    try:
        return int(module.load_func(name.encode(), {"xdp": bcc.BPF.XDP, "tc": bcc.BPF.SCHED_CLS}[kind]).fd)
    except Exception as error:  # likewise
        raise RuntimeError(f"{name}: the kernel refuses it") from error


def _maps(lib: Any, module: Any) -> list[tuple[int, Layout]]:
    """What BCC has made of the text's maps."""
    lib.bpf_num_tables.argtypes, lib.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_size_t
    lib.bpf_table_name.argtypes, lib.bpf_table_name.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_char_p
    found = []
    for index in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, index)
        descriptor = lib.bpf_table_fd(module, name)
        key, leaf = (json.loads(ask(module, name)) for ask in (lib.bpf_table_key_desc, lib.bpf_table_leaf_desc))
        made = map_info(descriptor)
        sizes = made.key_size, made.value_size, made.max_entries
        found.append((descriptor, Layout(name.decode(), made.type, *sizes, made.flags, key, leaf)))
    return found


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        _serve(parent)
