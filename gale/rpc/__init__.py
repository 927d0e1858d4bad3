"""Everything said over gRPC and in protobuf: the only package that knows grpc.

codec.py         commands of the log, as bytes and back; likewise snapshot_codec.py states, raft_codec.py messages
log_codec.py     these three as one object, for gale.raft
node_service.py  what nodes call       (proto/gale/v1/node.proto)
api_service.py   what gale-ctl calls   (proto/gale/v1/api.proto)
status.py        the cluster's status, composed of a state and what each load balancer says of itself
server.py        listening            client.py  calling
v1/              generated from proto/ by scripts/proto
"""
