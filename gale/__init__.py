"""gale: a layer-4 load balancer in the kernel whose load balancers agree through Raft.

The Raft log decides, the kernel forwards, Python only carries decisions from one to the other.
docs/ARCHITECTURE.md shows the paths of a check and of a packet through these modules.
"""

__version__ = "0.2.0"
