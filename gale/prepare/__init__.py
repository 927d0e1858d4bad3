"""What gale-node changes on its machine for services of mode l2 and l3, and how it puts everything back.

In these modes a node gets clients' packets as they are, and answers clients directly. So it must have the service's
address without answering for it on the wire, and for l3 take off the tunnel and announce segments that fit it.

    told by load balancers ──needs──> needs ──plan──> changes ──perform──> kernel
                  machine ──survey──> host ─┘    └── remembered in /run, each with its inverse

`needs.py` and `plan.py` decide and touch nothing; `survey.py`, `perform.py`, `programs.py` and `memory.py` are the
edge; `preparation.py` brings them together in gale-node's loop. docs/NODES.md tells operators.
"""
