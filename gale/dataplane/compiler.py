"""Compiles BPF programs with BCC, in a process of its own that ends when it has handed over what came of it.

BCC and LLVM cost more memory than all of gale-lb, and are needed for a second. So `compile_text` starts this module as
a child:

    parent ── a text on standard input ──> child: compile ── instructions, shapes of maps (compiled.py) ──> parent

Nothing that the child holds is needed any more: the parent makes the maps and loads the programs (program.py).

BCC asks for a kernel source tree; bpf/include/ stands in for one (bpf/README.md). What BCC and clang have to say goes
to the child's standard error, and their first complaint becomes the text of the error.
"""

import ctypes
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gale
from gale.dataplane.abi import BPF_DIRECTORY
from gale.dataplane.compiled import Compiled
from gale.dataplane.layout import Layout
from gale.errors import DataplaneError, HostError

PARTS = (
    "head.c",
    "explain.c",
    "slots.c",
    "moved.c",
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

_NO_BCC = (
    "bcc is missing: apt-get install python3-bpfcc, and make the virtual environment from the distribution's Python "
    "with --system-site-packages"
)
_MISSING, _REFUSED = 3, 4
"""Exit codes of the child; its standard output is the reason then."""


def source(*parts: str) -> bytes:
    """The text of these files of bpf/, as one; the compiler knows which line came from where."""
    return b"\n".join(
        b'#line 1 "bpf/%s"\n%s' % (part.encode(), (BPF_DIRECTORY / part).read_bytes()) for part in parts or PARTS
    )


def headers() -> list[tuple[str, bytes]]:
    """What such a text may include of bpf/: names and contents."""
    return [(str(path.relative_to(BPF_DIRECTORY)), path.read_bytes()) for path in sorted(BPF_DIRECTORY.rglob("*.h"))]


def compile_text(text: bytes, cflags: Sequence[str], programs: Iterable[str]) -> Compiled:
    """Raises HostError without BCC, DataplaneError for a text that is refused."""
    user_api = ["/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    request = {
        "text": text.decode(),
        "cflags": ["-g0", *(f"-I{directory}" for directory in (BPF_DIRECTORY, *user_api)), *cflags],
        "programs": list(programs),
    }
    package = str(Path(gale.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "gale.dataplane.compiler"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=WITHIN_S,
            env=os.environ | {"BCC_KERNEL_SOURCE": str(BPF_DIRECTORY), "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataplaneError(f"bpf/: the compiler has not ended within {WITHIN_S:g} s") from error
    if child.returncode == 0:
        return Compiled.of(child.stdout)
    reason = child.stdout.decode(errors="replace")
    if child.returncode == _MISSING:
        raise HostError(f"{_NO_BCC} ({reason})")
    said = [line.strip() for line in child.stderr.decode(errors="replace").splitlines() if line.strip()]
    complaint = next((line for line in said if "error:" in line), None)
    ended = reason if child.returncode == _REFUSED else f"the compiler ended with {child.returncode}"
    raise DataplaneError(complaint or ": ".join(["bpf/", ended, *said[-1:]]))


# The child


def _serve() -> int:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # BCC may print
    with answer:
        try:
            import bcc

            answer.write(_compiled(bcc, json.load(sys.stdin)).as_bytes())
        except ImportError as error:
            answer.write(str(error).encode())
            return _MISSING
        except Exception as error:  # BCC raises nothing more specific
            answer.write(str(error).encode())
            return _REFUSED
    return 0


def _compiled(bcc: Any, request: Mapping[str, Any]) -> Compiled:
    module = bcc.BPF(text=request["text"].encode(), cflags=request["cflags"])
    return Compiled(_maps(bcc.lib, module.module), {name: _code(module, name) for name in request["programs"]})


def _code(module: Any, name: str) -> bytes:
    try:
        return bytes(module.dump_func(name.encode()))
    except Exception as error:  # likewise
        raise RuntimeError(f"{name}: no such program in the text") from error


def _maps(lib: Any, module: Any) -> dict[int, Layout]:
    """What BCC has made of the text's maps, by the file descriptors that it put into the instructions."""
    lib.bpf_num_tables.argtypes, lib.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_size_t
    lib.bpf_table_name.argtypes, lib.bpf_table_name.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_char_p
    for ask in (lib.bpf_table_key_size_id, lib.bpf_table_leaf_size_id):
        ask.argtypes, ask.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_size_t
    found = {}
    for index in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, index)
        key, leaf = (json.loads(ask(module, name)) for ask in (lib.bpf_table_key_desc, lib.bpf_table_leaf_desc))
        found[lib.bpf_table_fd(module, name)] = Layout(
            name.decode(),
            lib.bpf_table_type_id(module, index),
            lib.bpf_table_key_size_id(module, index),
            lib.bpf_table_leaf_size_id(module, index),
            lib.bpf_table_max_entries_id(module, index),
            lib.bpf_table_flags_id(module, index),
            key,
            leaf,
        )
    return found


if __name__ == "__main__":
    code = _serve()
    os._exit(code)  # LLVM would take its time to put everything away
