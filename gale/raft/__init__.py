"""The replicated log, carried by PySyncObj 0.3.17: the only package that knows the library.

consensus.py  gale.ports.Consensus: ticks, proposals that always end, status
replica.py    the library's object, around the state
transport.py  the wire          rules.py    what the library's protocol lacks
journal.py    the disk          records.py  what its bytes mean

The library puts a function of Windows in the place of socket.inet_ntop, on every system. It is undone here, before
anybody in this process wants to read an IPv6 address.
"""

import _socket
import socket

import pysyncobj.syncobj  # noqa: F401  so that it has done it already

socket.inet_ntop = _socket.inet_ntop
