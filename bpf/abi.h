// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The shapes of everything a map holds, shared by the packet path, which reads, and gale/dataplane/, which writes.
 * Python does not repeat them: BCC derives a map's ctypes from these structs.
 *
 * __be16 and __be32 are in network byte order, as in the packet; everything else is in the machine's.
 *
 * Long arrays are declared as bytes, two per number (BCC trips over a sizeof in there): for each element of an array of
 * numbers BCC generates code to print it, and starting gale-lb would take seconds.
 *
 * Compile-time settings (-D, from gale/dataplane/program.py): SERVICES, LISTENERS, SLOTS, FLOWS, CPUS: capacities;
 * SOURCE_ADDRESS: a __be32 constant, the load balancer's own address that nodes answer to; PUBLIC_IFINDEX: the
 * interface answers leave by; JIFFIES_PER_S: the kernel's tick.
 */
#pragma once
#include <linux/types.h>

#define PORTS 65536
#define NODES 65536
#define NO_OWNER 0    /* of a slot, while no node routes */
#define NO_LISTENER 0 /* end of a chain of listeners */
#define NO_LINK 0     /* of a node: the MAC address of its next hop is not known yet */
#define LINKS 64

/* A listener is one address and port that clients connect to. Services may have several. */
struct listener {
    __be32 address;
    __be16 target_port; /* the port on the nodes */
    __u16 next;         /* next listener of the same port, or NO_LISTENER */
    __u16 service;      /* index into `active` */
    __u8 protocol;
    __u8 zero;
};

/* Which listener a packet is for: from the port to the first listener of a chain that differ in their address. */
struct directory {
    __u8 first[2 * PORTS];                /* read with first_listener() */
    struct listener listeners[LISTENERS]; /* number 0 is NO_LISTENER */
};
_Static_assert((LISTENERS & (LISTENERS - 1)) == 0 && LISTENERS <= PORTS, "a listener number is masked, not compared");

/* By the port as it stands in the packet, so that the path swaps no bytes. */
static __always_inline __u16 first_listener(const struct directory *directory, __be16 port) {
    return ((const __u16 *)directory->first)[port];
}

/* The owner of every slot of one service: node numbers. */
struct slot_table {
    __u8 owners[2 * SLOTS]; /* read with slot_owner() */
};
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "a hash is masked to a slot");

static __always_inline __u16 slot_owner(const struct slot_table *table, __u32 hash) {
    return ((const __u16 *)table->owners)[hash & (SLOTS - 1)];
}

/* A node, and how to reach it. Half a cache line, so that no entry lies across two. */
struct node {
    __be32 address; /* 0: no such node */
    __u32 link;     /* place in `links` of the interface it is reached by, or NO_LINK */
    __u8 macs[12];  /* the start of a frame to it: its next hop's MAC, then the interface's own */
    __u32 zero[3];
};
_Static_assert(sizeof(struct node) == 32, "half a cache line");

/*
 * A flow, as its client's packets ask for it. With the kernel's 48 bytes of bookkeeping, key and value make one cache
 * line, which is why a flow holds no precomputed checksums: adding them up again is cheaper than a second line.
 */
struct flow_key {
    __be32 client;
    __be16 client_port;
    __u16 listener;
};

struct flow {
    __be32 node_address; /* differs from the node's entry once the number has gone to another node */
    __u16 node;
    __be16 source_port; /* the port the node sees the client at, on SOURCE_ADDRESS */
};
_Static_assert(sizeof(struct flow_key) + sizeof(struct flow) == 16, "48 + 16 bytes are one cache line");

/* The same flow, as its node's packets ask for it. To hold a key of this map is to own the port. */
struct return_key {
    __be32 node_address;
    __be16 node_port;
    __be16 source_port;
    __u8 protocol;
    __u8 zero[3];
};

/* What makes an answer of the node one of the service. */
struct answer {
    __be32 address; /* what the client connected to */
    __be32 client;
    __be16 port;
    __be16 client_port;
    __u8 macs[12]; /* the start of a frame to the client: both MACs of the frame that opened the flow, swapped */
};

struct return_path {
    struct answer answer;
    __u16 listener; /* with the client's address and port, the flow's key */
    __u16 zero;
    __u32 last_seen; /* jiffies: when the node last sent something, to a copy's lifetime (copy.h) */
    __u64 life;      /* lifetime.h */
};

static __always_inline bool is_return_path_of(const struct return_path *path, const struct flow_key *key) {
    return path->answer.client == key->client && path->answer.client_port == key->client_port &&
           path->listener == key->listener;
}
