// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Which port a node sees a client at: the client's own if it is free, else one by chance. Chance comes in by argument.
 *
 * The kernel is not asked. A connection that this machine itself makes to a node's service, from SOURCE_ADDRESS and a
 * port that a flow has, would lose its answers to that flow's client.
 *
 * With a share u of the ports towards a node in use, all probes fail with a chance of u^PORT_PROBES: one new flow in
 * five at 90 %, one in 65,000 at 50 %.
 */
#pragma once
#include <linux/types.h>

#define PORT_PROBES 16
#define PORT_PROBES_FLOOD 4 /* after the first, when an opening flow may make room: there are many then */
#define PORT_LOW 1024       /* the highest is 65535 */

static __always_inline __be16 port_by_chance(__u32 chance) {
    return bpf_htons(PORT_LOW + ((__u64)chance * (65536 - PORT_LOW) >> 32));
}

/* The next number of a sequence that begins anywhere (a linear congruential generator, Knuth's constants for 32 bits).
 */
static __always_inline __u32 chance_next(__u32 chance) {
    return chance * 1664525 + 1013904223;
}
