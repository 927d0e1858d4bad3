// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The maps. Only gale.c may use them: BCC rewrites map calls in the main file alone, though it reads tables anywhere.
 */
#pragma once
#include "abi.h"
#include "copy.h"
#include "verdict.h"

/* Written by gale-lb, read here. */
BPF_ARRAY(directory, struct directory, 1);               /* destination -> listener */
BPF_ARRAY(active, __u32, SERVICES);                      /* service -> which of its two slot tables holds */
BPF_ARRAY(slot_tables, struct slot_table, 2 * SERVICES); /* of service n: 2n and 2n + 1 */
BPF_ARRAY(nodes, struct node, NODES);                    /* number -> node */
BPF_DEVMAP(links, LINKS);                                /* place -> interface; NO_LINK is always empty */

/*
 * Written here: the two tables that hold a flow. A full one makes room by its least recently used entry. A return path
 * that lost its flow only occupies a port for a while, but a flow that lost its return path gets no answers, and
 * another may get its port. So `returns` has twice the room: what is forgotten there has long been forgotten in
 * `flows`.
 */
BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, FLOWS);
BPF_TABLE("lru_hash", struct return_key, struct return_path, returns, 2 * FLOWS);

/* Of either table, per CPU. Not per-CPU maps: in a plain array, copies lie side by side, and kernels before 6.10 too
 * compile the look-up into the program. */
BPF_ARRAY(flow_copies, struct flow_copy, COPIES *CPUS);
BPF_ARRAY(answer_copies, struct answer_copy, COPIES *CPUS);

BPF_PERCPU_ARRAY(verdicts, __u64, VERDICT_COUNT); /* packets per verdict */
