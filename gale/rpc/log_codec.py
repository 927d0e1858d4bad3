"""Everything the replicated log writes and sends, as gale.raft wants it: one object with all its codecs."""

from gale.rpc.codec import decode as decode_command
from gale.rpc.codec import encode as encode_command
from gale.rpc.raft_codec import decode, decode_hello, encode, encode_hello
from gale.rpc.snapshot_codec import SnapshotReader, encode_snapshot


class LogCodec:
    encode_hello = staticmethod(encode_hello)
    decode_hello = staticmethod(decode_hello)
    encode = staticmethod(encode)
    decode = staticmethod(decode)
    encode_command = staticmethod(encode_command)
    decode_command = staticmethod(decode_command)
    encode_snapshot = staticmethod(encode_snapshot)
    snapshot_reader = SnapshotReader
