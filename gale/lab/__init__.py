"""A gale cluster on one machine: network namespaces for load balancers, nodes and a client, with real programs in them.

topology, options   who is in a lab and how it is configured        pure
netns, network      namespaces, bridges, links, addresses
processes, store    what runs in them, and the notes of it on disk
cluster             the lab itself: up, start, stop, kill, down
server              the HTTP server of a node                       a program of its own
faults              what can go wrong in it, done on purpose
wires, disks        the means of that: ports and loss at the switch, disks that are full or without power
traffic             real requests from the client, and their count  a program of its own
load                as many requests as go through, by wrk
watch               the cluster's state as seen from outside        a program of its own
demo, picture       one round of failures and what is seen of it
"""
