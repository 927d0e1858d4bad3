// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The maps. Only the .c files may use them: BCC rewrites map calls in the main file alone, though it reads tables
 * anywhere. */
#pragma once
#include "abi.h"
#include "explain.h"
#include "moved.h"
#include "toobig.h"
#include "verdict.h"

/*
 * Written by gale-lb, read here. A start of gale-lb makes new ones, fills them, and then puts its programs in the place
 * of the old ones: nothing here changes its shape under a running program.
 */
BPF_ARRAY(directory, struct directory, 1);               /* destination -> listener */
BPF_ARRAY(active, __u32, SERVICES);                      /* service -> which of its two slot tables holds */
BPF_ARRAY(slot_tables, struct slot_table, 2 * SERVICES); /* of service n: 2n and 2n + 1 */
BPF_ARRAY(nodes, struct node, NODES);                    /* number -> node */
BPF_ARRAY(takeover, __u32, 1);                           /* jiffies until which flows may be missing; 0: none are */
BPF_DEVMAP(links, LINKS);                                /* place -> interface; NO_LINK is always empty */

/*
 * Written here: the tables that hold flows, as memory of gale's own (flow.h). They outlive gale-lb, and a start goes on
 * with them: gale/dataplane/compiler.py puts them in the place of the new ones. What can be mapped into memory begins
 * at a page, so that no entry straddles cache lines.
 */
BPF_F_TABLE("array", __u32, struct flow, flows, FLOW_PLACES, 1U << 10); /* BPF_F_MMAPABLE: Python reads it, too */
BPF_F_TABLE("array", __u32, struct return_path, returns, RETURN_PLACES, 1U << 10);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment, fragments, FRAGMENTS);
BPF_TABLE("lru_hash", struct stray_key, struct stray, strays, STRAYS);

/* Written here, read by gale-lb. */
BPF_PERCPU_ARRAY(verdicts, __u64, VERDICT_COUNT); /* packets per verdict */
BPF_PERCPU_ARRAY(service_traffic, struct traffic, SERVICES);
BPF_PERCPU_ARRAY(node_traffic, struct traffic, NODES);
BPF_ARRAY(explanation, struct explanation, 1);        /* of the last packet that was explained */
BPF_PERCPU_ARRAY(answer_rate, struct answer_rate, 1); /* of ICMP answers */
