"""Numbered datagrams to an echo at an even pace, and how many did not come back.

    python e2e/faults/probe.py 10.77.1.10 8080 2000

Runs until SIGTERM; then prints one line, "SENT LOST LONGEST", the last one being how many in a row were lost at most,
and ends. Three seconds are left to those on their way. Who was held up does not make up for it with a flood.
"""

import select
import signal
import socket
import struct
import sys
import time

_NUMBER = struct.Struct("!Q")
_LAST_WAIT_S = 3.0
_TURN_S = 0.002
_LATE_S = 0.05
_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


def main(address: str, port: int, rate: float) -> None:
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        probe.connect((address, port))
        probe.setblocking(False)
        back = bytearray()
        begin = time.monotonic()
        while not stop:
            now = time.monotonic()
            begin = max(begin, now - _LATE_S - len(back) / rate)
            due = int((now - begin) * rate)
            for _ in range(len(back), due):
                probe.send(_NUMBER.pack(len(back)))
                back.append(0)
            receive(probe, back)
            time.sleep(_TURN_S)
        end = time.monotonic() + _LAST_WAIT_S
        while not all(back) and time.monotonic() < end:
            receive(probe, back)
    runs = bytes(back).split(b"\1")
    sys.stdout.write(f"{len(back)} {back.count(0)} {max(map(len, runs))}\n")


def receive(probe: socket.socket, back: bytearray) -> None:
    """What is there. An echo ends with what was sent. The first datagrams may find nobody who listens yet."""
    while select.select([probe], [], [], 0)[0]:
        try:
            answer = probe.recv(1 << 16)
        except ConnectionRefusedError:
            continue
        (number,) = _NUMBER.unpack(answer[-_NUMBER.size :])
        back[number] = 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
