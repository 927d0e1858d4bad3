"""Everything said over gRPC and in protobuf: the only package that knows grpc.

codec.py         commands of the log, as bytes and back; likewise snapshot_codec.py states, raft_codec.py messages
log_codec.py     these three as one object, for gale.raft
node_service.py  what nodes call       (proto/gale/v1/node.proto)
api_service.py   what gale-ctl calls   (proto/gale/v1/api.proto); questions.py is the larger part of the questions,
                 everywhere.py puts them to the other load balancers, shares.py tells of services
answers.py       what the data plane counts and explains, as messages
plain.py         messages as plain values
status.py        the cluster's status, composed of a state and what each load balancer says of itself
server.py        listening            client.py  calling
auth.py          who may call what    limits.py  how much of it    arrivals.py  who never came to a call
v1/              generated from proto/ by scripts/proto

gRPC reads two settings from the environment, before it is first used. It cannot be told to do TLS 1.3 only, but the
suites of 1.2 can be named: one that needs a key agreed in advance, which nobody here has, leaves no 1.2 to agree on.
And it would write a line for each handshake that a stranger breaks.
"""

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-CHACHA20-POLY1305"
os.environ["GRPC_VERBOSITY"] = "ERROR"
