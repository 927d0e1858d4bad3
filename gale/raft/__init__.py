"""The replicated log, carried by PySyncObj 0.3.17: the only package that knows the library.

replica.py    the library's object: one replicated method taking bytes, and the state that comes of them
transport.py  the library's TCP transport, let in from listed addresses only
consensus.py  gale.ports.Consensus over both: ticks, proposals that always end, status
"""
