"""Signs of life between load balancers: datagrams beside the streams, so that a network that loses deposes nobody.

A stream stands still when packets are lost: what was lost is sent again after 200, 400, 800 ms, and all behind it
waits. Where three packets of ten are lost it does so for more than 600 ms a third of the time; a leader and its
followers would lose sight of each other every few seconds. A datagram waits for nobody: of those that leave every 50 ms
half find their way there and back.

A leader asks every peer, and a follower of its term answers. That says who is alive, and nothing else: nothing is
promised, voted or committed by it, and where a network carries no datagrams all goes on by the streams alone.

    code (16 bytes) | kind | term | stamp                        big-endian, 33 bytes
    kind: 1: asks, 2: follows; + 4: hears nothing by the stream

A stream may stand still in one direction, which only its reader can see. So a sign also says whether its sender has
heard nothing by the stream for a while: whoever of the two dials then dials another one.

A datagram counts only while there is a stream to its sender, or was one just now. Each side makes a key when it starts,
and says it in its hello, under the stream's TLS. The code is made with the keys of both (BLAKE2), the receiver's first.
The stamp is the leader's own time when it asked, in microseconds, which the answer brings back: so an answer says when
the peer followed, however late it is, and a question that is no later than the one before is a copy of it.
"""

import struct
from dataclasses import dataclass
from hashlib import blake2s
from hmac import compare_digest

KEY_BYTES = 16
CODE_BYTES = 16
FORM = struct.Struct(">BQQ")
SIZE = CODE_BYTES + FORM.size
ASKS, FOLLOWS, DEAF = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Sign:
    """`asks`: from a leader; else the answer of a follower. `deaf`: by the stream its sender hears nothing."""

    asks: bool
    term: int
    stamp_us: int
    deaf: bool = False


def sealed(key: bytes, sign: Sign) -> bytes:
    """`key`: the receiver's, then the sender's."""
    kind = (ASKS if sign.asks else FOLLOWS) | (DEAF if sign.deaf else 0)
    content = FORM.pack(kind, sign.term, sign.stamp_us)
    return _code(key, content) + content


def opened(key: bytes, datagram: bytes) -> Sign | None:
    """None for what was not sealed with this key: it may be from an earlier start, or from anybody."""
    code, content = datagram[:CODE_BYTES], datagram[CODE_BYTES:]
    if len(datagram) != SIZE or not compare_digest(code, _code(key, content)):
        return None
    kind, term, stamp_us = FORM.unpack(content)
    asks = kind & ~DEAF
    return Sign(asks == ASKS, term, stamp_us, bool(kind & DEAF)) if asks in (ASKS, FOLLOWS) else None


def _code(key: bytes, content: bytes) -> bytes:
    return blake2s(content, digest_size=CODE_BYTES, key=key).digest()
