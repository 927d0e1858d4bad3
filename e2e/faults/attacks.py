"""What strangers send: a program that runs in some namespace and attacks one port, and says how far it came.

    python -P e2e/faults/attacks.py --kind bytes --at 10.77.2.10:9090 --count 1000 --canary /run/somewhere

canary  a file that would be there if anything that was sent had been executed
hello   the first frame of a load balancer in hexadecimal, sent first where something is to be sent by a peer
frames  what it says then, in hexadecimal, with commas
name    the node whose checks flood a load balancer, `rate` of them a second

It prints one JSON line at its end: what it sent, and how many connections it had.
"""

import argparse
import asyncio
import json
import os
import pickle
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection

from gale.rpc.v1 import node_pb2

KINDS = ("bytes", "gadgets", "oversize", "silence", "slow", "say", "flood")
LENGTH = struct.Struct(">I")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_BYTES_MOST = 2_000
TOGETHER = 16
OVERSIZE = 64 << 20
PIECE = bytes(1 << 16)


class Execute:
    """What a pickle of this does when it is loaded."""

    def __init__(self, canary: str) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def frame(content: bytes) -> bytes:
    return LENGTH.pack(len(content)) + content


def gadgets(canary: str) -> Iterator[bytes]:
    """Everything known that makes a careless reader execute something or use up its memory."""
    bombs = [pickle.dumps(Execute(canary), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    bombs += [b"cos\nsystem\n(S'touch " + canary.encode() + b"'\ntR."]
    bombs += [f"!!python/object/apply:os.system ['touch {canary}']\n".encode()]
    bombs += [b"[" * 100_000, b'{"a":' * 50_000, zlib.compress(bytes(64 << 20))]
    bombs += [b"\x0a" + b"\xff" * 9 + b"\x01", b"\x0a\x80" * 30_000]  # protobuf: lengths without end, and deep ones
    for bomb in bombs:
        packed = zlib.compress(bomb)
        yield bomb
        yield frame(bomb)
        yield frame(packed)
        yield struct.pack("<i", len(packed)) + packed  # as the Raft library itself would have it
        yield frame(b"\x00" + bomb)
        yield PREFACE + SETTINGS + http2_data(b"\x00" + LENGTH.pack(len(bomb)) + bomb)


def http2_data(content: bytes) -> bytes:
    return len(content[:16_000]).to_bytes(3, "big") + bytes([0, 1, 0, 0, 0, 1]) + content[:16_000]


def noise(count: int, chance: random.Random) -> Iterator[bytes]:
    """Random bytes, in no frame, in a right one, in one that lies about its length, and after an HTTP/2 preface."""
    for number in range(count):
        content = chance.randbytes(chance.randrange(1, FRAME_BYTES_MOST))
        match number % 4:
            case 0:
                yield content
            case 1:
                yield frame(content)
            case 2:
                yield LENGTH.pack(chance.randrange(1 << 32)) + content
            case _:
                yield PREFACE + SETTINGS + content


class Attack:
    def __init__(self, at: str, hello: bytes) -> None:
        self._ip, _, port = at.rpartition(":")
        self._port = int(port)
        self._hello = frame(hello) if hello else b""
        self.sent = 0
        self.connected = 0
        self.refused = 0

    async def send(self, contents: Iterator[bytes]) -> None:
        """Each on a connection of its own, several at a time."""
        await asyncio.gather(*(self._send(contents) for _ in range(TOGETHER)))

    async def _send(self, contents: Iterator[bytes]) -> None:
        for content in contents:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    reader, writer = await asyncio.open_connection(self._ip, self._port)
                    self.connected += 1
                    with suppress(OSError):
                        writer.write(self._hello + content)
                        await writer.drain()
                        self.sent += 1
                        writer.write_eof()
                        while await reader.read(1 << 16):
                            pass
                    writer.transport.abort()

    async def oversize(self) -> None:
        """A frame that is announced as huge, and sent for as long as anybody reads it."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(10):
                _, writer = await asyncio.open_connection(self._ip, self._port)
                self.connected += 1
                writer.write(self._hello + LENGTH.pack(OVERSIZE))
                for _ in range(OVERSIZE // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
                    self.sent += 1
                writer.transport.abort()

    async def hold(self, count: int, seconds: float, drip: bool) -> None:
        """Many connections that say nothing, or (`drip`) one byte now and then."""
        deadline = asyncio.get_running_loop().time() + seconds

        async def one() -> None:
            while asyncio.get_running_loop().time() < deadline:
                try:
                    async with asyncio.timeout(2):
                        reader, writer = await asyncio.open_connection(self._ip, self._port)
                except (OSError, TimeoutError):
                    self.refused += 1
                    await asyncio.sleep(0.5)
                    continue
                self.connected += 1
                with suppress(OSError):
                    while asyncio.get_running_loop().time() < deadline and not reader.at_eof():
                        if drip:
                            writer.write(b"\x00")
                            self.sent += 1
                        with suppress(TimeoutError):
                            async with asyncio.timeout(0.5):
                                await reader.read(1 << 16)
                writer.transport.abort()
                await asyncio.sleep(0.5)  # a source that is turned away tries again, but not as fast as it can

        await asyncio.gather(*(one() for _ in range(count)))

    async def say(self, frames: list[bytes], seconds: float) -> None:
        """What somebody says who has a load balancer's place: its first frame, and then these."""
        reader, writer = await asyncio.open_connection(self._ip, self._port)
        self.connected += 1
        writer.write(self._hello)
        for content in frames:
            writer.write(frame(content))
            self.sent += 1
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await reader.read(1 << 16):
                    pass
        writer.transport.abort()

    async def flood(self, name: str, rate: float, seconds: float) -> None:
        """Checks of one node, so many a second, or as many as are taken."""
        check = node_pb2.Check(node=name, weight=1, reports_to=3, condition=node_pb2.CONDITION_SERVING)
        packed = check.SerializeToString()
        message = b"\x00" + LENGTH.pack(len(packed)) + packed
        reader, writer = await asyncio.open_connection(self._ip, self._port)
        self.connected += 1
        http = H2Connection(H2Configuration(client_side=True))
        http.initiate_connection()
        path = "/gale.v1.NodeService/Checks"
        pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", self._ip)]
        http.send_headers(1, [*pseudo, ("content-type", "application/grpc")])
        began_s = asyncio.get_running_loop().time()
        with suppress(OSError):
            while (elapsed_s := asyncio.get_running_loop().time() - began_s) < seconds and not reader.at_eof():
                window = min(http.local_flow_control_window(1), http.max_outbound_frame_size)
                count = min(window // len(message), int(rate * elapsed_s) - self.sent)
                if count > 0:
                    http.send_data(1, message * count)
                    self.sent += count
                writer.write(http.data_to_send())
                await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.0 if count > 0 else 0.002):
                        self._acknowledge(http, await reader.read(1 << 18))
        writer.transport.abort()

    def _acknowledge(self, http: H2Connection, received: bytes) -> None:
        """Take answers off, so that the other side may go on."""
        for event in http.receive_data(received):
            length = getattr(event, "flow_controlled_length", 0)
            if length:
                http.acknowledge_received_data(length, 1)


async def attack(given: argparse.Namespace) -> Attack:
    one = Attack(given.at, bytes.fromhex(given.hello))
    match given.kind:
        case "bytes":
            await one.send(noise(given.count, random.Random(given.seed)))
        case "gadgets":
            await one.send(gadgets(given.canary))
        case "oversize":
            await asyncio.gather(*(one.oversize() for _ in range(given.count)))
        case "silence" | "slow":
            await one.hold(given.count, given.seconds, drip=given.kind == "slow")
        case "say":
            await one.say([bytes.fromhex(content) for content in given.frames.split(",")], given.seconds)
        case "flood":
            await one.flood(given.name, given.rate, given.seconds)
    return one


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--at", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--canary", default="/nowhere")
    parser.add_argument("--hello", default="")
    parser.add_argument("--frames", default="")
    parser.add_argument("--name", default="")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    done = asyncio.run(attack(parser.parse_args()))
    sys.stdout.write(json.dumps({"sent": done.sent, "connected": done.connected, "refused": done.refused}) + "\n")


if __name__ == "__main__":
    main()
