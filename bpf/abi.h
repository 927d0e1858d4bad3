// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The shapes of everything a map holds, shared by the packet path, which reads, and gale/dataplane/, which writes.
 * Python does not repeat them: BCC derives a map's ctypes from these structs.
 *
 * __be16, __be32 and union address are in network byte order, as in the packet; everything else is in the machine's.
 *
 * Long arrays are declared as bytes, two per number (BCC trips over a sizeof in there): for each element of an array of
 * numbers BCC generates code to print it, and starting gale-lb would take seconds.
 *
 * Compile-time settings (-D, from gale/dataplane/program.py): SERVICES, SLOTS: how many there are; FLOW_PLACES,
 * RETURN_PLACES, FRAGMENTS, STRAYS: places in their tables; WITH_L2, WITH_L3, WITH_L4, WITH_IPV6: 1 when some service
 * asks for it; HAS_SOURCE6: 1 when the load balancer has an IPv6 address of its own; JIFFIES_PER_S: the kernel's tick;
 * LEARNING: for how many of them a slot that has moved learns (moved.h); WITH_EXPLAIN: defined for the programs that
 * explain. What differs from one start to the next is in late.h.
 */
#pragma once
#include "address.h"

#define PORTS 65536
#define LISTENERS 256 /* BCC generates code to print each of them, which takes 0.7 ms */
#define NODES 16384
#define NO_OWNER 0    /* of a slot, while no node routes */
#define NO_LISTENER 0 /* end of a chain of listeners */
#define NO_LINK 0     /* of a hop: not known, or the MAC address of the next hop is not */
#define PUBLIC_LINK 1 /* place in `links` of the public interface */
#define LINKS 64

enum mode { L2 = 2, L3 = 3, L4 = 4 };

/*
 * A listener is one address, port and protocol that clients connect to. Services may have several. Flows name it by its
 * number, which therefore stays with it as long as it is served, over restarts too (gale/dataplane/listeners.py).
 */
struct listener {
    union address address;
    __be16 port;
    __be16 target_port; /* the port on the nodes: l4 */
    __u16 next;         /* next listener of the same port, or NO_LISTENER */
    __u16 service;      /* index into `active` and `service_traffic` */
    __u16 earlier;      /* the listener it was before its mode or its target port changed: flows of then go on so */
    __u8 protocol;
    __u8 mode;   /* enum mode */
    __u8 tunnel; /* l3: IP version of the outer header, 4 or 6 */
    __u8 zero[3];
};
_Static_assert(sizeof(struct listener) == 32, "half a cache line");

/* Which listener a packet is for: from the port to the first listener of a chain that differ in address or protocol. */
struct directory {
    __u8 first[2 * PORTS];                /* read with first_listener() */
    struct listener listeners[LISTENERS]; /* number 0 is NO_LISTENER */
};

/* By the port as it stands in the packet, so that the path swaps no bytes. */
static __always_inline __u16 first_listener(const struct directory *directory, __be16 port) {
    return ((const __u16 *)directory->first)[port];
}

#define MOVED 0x8000 /* beside the owner of a slot: its flows may be another node's (moved.h) */
_Static_assert(NODES <= MOVED, "a node's number leaves room for it");

/* Of a slot that is MOVED, in jiffies: since when it is, and when it last began to learn whose its flows are. */
struct move {
    __u32 since;
    __u32 began;
    __u16 earlier; /* the owner until then */
    __u8 zero[2];
};

/* The owner of every slot of one service: node numbers. And what is noted of those that are MOVED. */
struct slot_table {
    __u8 owners[2 * SLOTS]; /* read with slot_owner() */
    __u8 moves[12 * SLOTS]; /* read with slot_move() */
};
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "a hash is masked to a slot");
_Static_assert(sizeof(struct move) == 12, "what a slot table has for each slot");

/* With MOVED beside it, if it is. */
static __always_inline __u16 slot_owner(const struct slot_table *table, __u32 slot) {
    return ((const __u16 *)table->owners)[slot & (SLOTS - 1)];
}

static __always_inline const struct move *slot_move(const struct slot_table *table, __u32 slot) {
    return &((const struct move *)table->moves)[slot & (SLOTS - 1)];
}

/* How a frame gets to a node. The link is that of the route the kernel has to it. */
struct hop {
    __u8 macs[12]; /* the start of the frame: its next hop's MAC, then the interface's own */
    __u16 link;    /* place in `links` of the interface it leaves by, or NO_LINK */
    __be16 vlan;   /* tag control information of the VLAN it leaves in, 0: none */
    __u16 mtu;     /* bytes of the largest IP packet that fits */
    __u16 on_link; /* 1: the next hop is the node itself, no router */
};

/* A node, by both IP versions. One cache line. */
struct node {
    struct hop hop4; /* first, and aligned to 4 bytes: its MACs are copied in wide words */
    struct hop hop6;
    union address address6; /* all zeroes: it has none */
    __be32 address;         /* 0: no such node */
    __u8 birth;             /* grows when the number goes to another address; stays when the node is gone */
    __u8 zero[3];
};
_Static_assert(sizeof(struct node) == 64, "a cache line");

/*
 * A flow as its client's packets ask for it: its place is one of the FLOW_WAYS of its set (flow.h). Half a cache line.
 * It is read without a lock: `word` before and after, and what was read counts if nothing changed.
 */
struct flow {
    union address client;
    __be16 client_port;
    __u16 listener;
    __u16 node;
    __be16 source_port; /* the port the node sees the client at, on SOURCE_ADDRESS */
    __u64 word;         /* flow.h: version, flags, birth of the node, when last seen */
};
_Static_assert(sizeof(struct flow) == 32, "half a cache line");

/*
 * The same flow, as its node's packets ask for it. Its place follows from its first four fields, so a port of a node
 * has one place, and whoever holds the place owns the port. One cache line.
 */
struct return_path {
    __u64 node;         /* fingerprint of the node's address: flow.h */
    __be16 node_port;   /* the listener's target port */
    __be16 source_port; /* on SOURCE_ADDRESS */
    __u8 protocol;
    __u8 tags;    /* VLAN tags of the client's frames: 0 to 2, and OUTER_8021AD */
    __u16 number; /* the node's */
    __be32 isn;   /* the sequence number of the node's SYN/ACK, plus one: what its client must acknowledge */
    __be16 client_port;
    __u16 listener; /* with the client's address and port, the flow's key */
    union address client;
    __be16 vlan[2]; /* tag control information, outer tag first */
    __u8 macs[12];  /* the start of a frame to the client: both MACs of its last frames, swapped */
    __u64 word;     /* flow.h */
};
#define TAGS 3         /* mask of return_path.tags: how many */
#define OUTER_8021AD 4 /* in return_path.tags: the outer tag is 802.1ad's, not 802.1Q's */
_Static_assert(sizeof(struct return_path) == 64, "a cache line");

/* Ports that later fragments lack. */
struct fragment_key {
    union address source, destination;
    __be32 id;
    __u32 protocol;
};

struct fragment {
    __be16 source_port, destination_port;
    __u32 seen; /* jiffies */
};

/* What passed. Client to node is `in`; what nodes answer directly (l2, l3) is not seen. */
struct traffic {
    __u64 in_packets, in_bytes, out_packets, out_bytes, flows;
};
