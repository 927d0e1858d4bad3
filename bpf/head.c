// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * gale's packet path. The parts that gale/dataplane/program.py lists are compiled as one text, from head.c to gale.c:
 * BCC rewrites the use of maps in the main file only, so headers are free of it, and parts are what makes a file
 * short. Here stands what every mode needs.
 *
 * Code is written once for both IP versions and for explanations: `version` (4 or 6) and `dry` are constants at compile
 * time, because everything is inlined. What is dry writes to no map but `explanation`.
 */
/* What the kernel is told. It lends its helpers to "GPL", and has no word for "Apache-2.0 OR GPL-2.0-only". */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/pkt_cls.h>
#include "abi.h"
#include "csum.h"
#include "encap.h"
#include "flow.h"
#include "hash.h"
#include "lifetime.h"
#include "maps.h"
#include "moved.h"
#include "packet.h"
#include "parse.h"
#include "port.h"
#include "rewrite.h"
#include "service.h"
#include "toobig.h"
#include "verdict.h"
#include "vlan.h"

static __always_inline void count(enum verdict verdict) {
    __u32 index = verdict;
    __u64 *packets = verdicts.lookup(&index);

    if (packets)
        ++*packets;
}

enum direction { IN, OUT }; /* client to node, node to client */

static __always_inline void add_traffic(struct traffic *traffic, enum direction direction, __u32 bytes, bool opened) {
    if (direction == IN) {
        traffic->in_packets++;
        traffic->in_bytes += bytes;
    } else {
        traffic->out_packets++;
        traffic->out_bytes += bytes;
    }
    if (opened)
        traffic->flows++;
}

/* Of its service and of its node. `bytes`: of IP packets. */
static __always_inline void count_traffic(__u32 service, __u32 node, enum direction direction, __u32 bytes,
                                          bool opened) {
    struct traffic *traffic = service_traffic.lookup(&service);

    if (traffic)
        add_traffic(traffic, direction, bytes, opened);
    traffic = node_traffic.lookup(&node);
    if (traffic)
        add_traffic(traffic, direction, bytes, opened);
}

/* The listener with this number, without its address being compared; NULL is never returned for a number in use. */
static __always_inline const struct listener *listener_at(__u16 number) {
    __u32 zero = 0;
    struct directory *known = directory.lookup(&zero);

    return known ? &known->listeners[number & (LISTENERS - 1)] : NULL;
}
