"""The replicated log, carried by PySyncObj 0.3.17: the only package that knows the library.

consensus.py  gale.ports.Consensus: ticks, proposals that always end, status
replica.py    the library's object, around the state
transport.py  the wire          rules.py    what the library's protocol lacks
journal.py    the disk          records.py  what its bytes mean
"""
