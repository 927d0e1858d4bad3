"""A gale cluster on one machine: network namespaces for load balancers, nodes and a client, with real programs in them.

topology, options   who is in a lab and how it is configured        pure
netns, network      namespaces, bridges, links, addresses
processes, store    what runs in them, and the notes of it on disk
cluster             the lab itself: up, start, stop, kill, down
server              the HTTP server of a node                       a program of its own
traffic, load       real requests from the client, and their count  a program of its own
watch               the cluster's state as seen from outside        a program of its own
demo, picture       one round of failures and what is seen of it
"""
