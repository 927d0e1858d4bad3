"""Run a command on another kernel, with this machine's files: scripts/kernel-e2e.

    python -m e2e.kernel --kernel DIR --seconds 1800 -- COMMAND…

DIR holds what a package of a kernel holds, boot/vmlinuz-… and lib/modules/…. qemu runs it in software. The guest sees
this machine's root over virtiofs, under an overlay in memory, so that everything is installed there that is installed
here, and nothing that it writes stays. The exit code is the command's.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from e2e.kernel.initramfs import archive

MODULES = ("virtio_pci", "virtiofs", "overlay", "veth", "bridge", "sch_ingress", "cls_bpf")
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
MEMORY = "3G"
SOCKET_WITHIN_S = 5.0
ENDED = "the command ended with "
INIT = """\
#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=dumb
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /busybox insmod /modules/$module.ko || echo "$module: not loaded"; done
/busybox mount -t virtiofs -o ro machine /machine
/busybox mount -t tmpfs -o size=1G memory /memory
/busybox mkdir /memory/upper /memory/work
/busybox mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work root /root
/busybox mount -t proc proc /root/proc
/busybox mount -t sysfs sys /root/sys
/busybox mount -t bpf bpf /root/sys/fs/bpf
/busybox mount -t devtmpfs dev /root/dev
/busybox mkdir -p /root/dev/pts /root/dev/shm
/busybox mount -t devpts pts /root/dev/pts
/busybox mount -t tmpfs shm /root/dev/shm
/busybox mount -t tmpfs run /root/run
/busybox chroot /root /bin/sh -c {command}
echo "{ended}$?"
/busybox poweroff -f
"""


def modules_in_order(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The modules and what they need, each after what it needs."""
    files = {file.stem.replace("-", "_"): file for file in folder.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        file = files[name]
        if file in order:
            return
        needs = re.search(rb"\0depends=([^\0]*)\0", file.read_bytes())
        for need in filter(None, needs[1].decode().split(",") if needs else ()):
            add(need.replace("-", "_"))
        order.append(file)

    for name in wanted:
        add(name)
    return order


def make_initramfs(kernel: Path, command: str) -> bytes:
    modules = modules_in_order(next((kernel / "lib/modules").iterdir()), MODULES)
    names = " ".join(file.stem for file in modules)
    init = INIT.format(modules=names, command=shlex.quote(command), ended=ENDED)
    files = {f"modules/{file.name}": file.read_bytes() for file in modules}
    files["busybox"] = Path("/usr/bin/busybox").read_bytes()
    files["bin/sh"] = files["busybox"]
    files["init"] = init.encode()
    return archive(["bin", "dev", "machine", "memory", "modules", "proc", "root"], files)


def share(root: str, at: Path) -> "subprocess.Popen[bytes]":
    """The program that lets the guest read this machine's files."""
    options = f"source={root},cache=always,sandbox=chroot,log_level=err"
    sharing = subprocess.Popen([VIRTIOFSD, f"--socket-path={at}", "-o", options])
    deadline = time.monotonic() + SOCKET_WITHIN_S
    while not at.exists():
        if time.monotonic() > deadline or sharing.poll() is not None:
            sharing.kill()
            sys.exit(f"{VIRTIOFSD} does not listen")
        time.sleep(0.02)
    return sharing


def boot(kernel: Path, initramfs: Path, at: Path) -> "subprocess.Popen[str]":
    (image,) = (kernel / "boot").glob("vmlinuz-*")
    memory = "memory-backend-memfd,id=memory,share=on,size=" + MEMORY
    command = [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
        "-smp", str(os.cpu_count()), "-m", MEMORY, "-object", memory, "-numa", "node,memdev=memory",
        "-chardev", f"socket,id=machine,path={at}", "-device", "vhost-user-fs-pci,chardev=machine,tag=machine",
        "-kernel", str(image), "-initrd", str(initramfs), "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
        "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot",
    ]  # fmt: skip
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")


def run(kernel: Path, command: str, seconds: float) -> int:
    """Show what the guest says; the command's exit code."""
    code = 1
    with tempfile.TemporaryDirectory() as directory:
        initramfs, at = Path(directory) / "initramfs", Path(directory) / "socket"
        initramfs.write_bytes(make_initramfs(kernel, command))
        sharing = share("/", at)
        guest = boot(kernel, initramfs, at)
        ending = threading.Timer(seconds, guest.kill)
        ending.start()
        try:
            assert guest.stdout is not None
            for line in guest.stdout:
                sys.stdout.write(line.rstrip("\r\n") + "\n")
                sys.stdout.flush()
                if line.startswith(ENDED):
                    code = int(line.removeprefix(ENDED))
        finally:
            ending.cancel()
            for process in (guest, sharing):
                process.kill()
                process.wait()
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description="run a command on another kernel")
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    here = shlex.quote(str(Path.cwd()))
    sys.exit(run(given.kernel, f"cd {here} && PYTHONPATH={here} {shlex.join(given.command)}", given.seconds))


if __name__ == "__main__":
    main()
