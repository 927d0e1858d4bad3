// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Every packet ends in exactly one verdict, and each verdict counts its packets: "why was it dropped" has an answer.
 * gale/dataplane/abi.py reads names, actions and meanings from this list; bpf/README.md says how to add one.
 *
 * VERDICT(name, action, meaning). Actions: REDIRECT, out of another interface; PASS, to this machine's kernel,
 * untouched; DROP. A packet of a service that no flow knows is passed rather than dropped, so that the kernel answers
 * it with a reset and the client does not hang.
 */
#pragma once

#define VERDICTS(VERDICT)                                                                                              \
    VERDICT(FORWARDED, REDIRECT, "client to node: packet of a known flow")                                             \
    VERDICT(RETURNED, REDIRECT, "node to client: packet of a known flow")                                              \
    VERDICT(OPENED, REDIRECT, "client to node: first packet of a new flow")                                            \
    VERDICT(NOT_IPV4, PASS, "public side: not IPv4, or in a VLAN")                                                     \
    VERDICT(NOT_TCP, PASS, "public side: IPv4, but not TCP")                                                           \
    VERDICT(LATER_FRAGMENT, PASS, "public side: fragment without ports, so without a service")                         \
    VERDICT(NO_SERVICE, PASS, "public side: no service has this address and port")                                     \
    VERDICT(NOT_A_REPLY, PASS, "private side: no flow waits for it")                                                   \
    VERDICT(NO_FLOW, PASS, "for a service, opens no flow and belongs to none")                                         \
    VERDICT(NODE_GONE, PASS, "the flow's node receives no packets any more")                                           \
    VERDICT(MALFORMED, DROP, "public side: lengths or version of the IPv4 or TCP header do not fit the frame")         \
    VERDICT(FRAGMENT, DROP, "first fragment of a packet of a service: the others have no ports")                       \
    VERDICT(TTL_EXPIRED, DROP, "for a service or a client, with a time to live of 1 or 0")                             \
    VERDICT(NO_NODE, DROP, "new flow, but its slot has no node")                                                       \
    VERDICT(NO_NEIGHBOUR, DROP, "the MAC address of the node's next hop is not known yet")                             \
    VERDICT(NO_PORT, DROP, "new flow, but every port tried towards its node is in use")                                \
    VERDICT(NO_ROOM, DROP, "new flow, but the flow table refused it")

enum verdict {
#define NAME(name, action, meaning) name,
    VERDICTS(NAME)
#undef NAME
        VERDICT_COUNT,
    UNDECIDED = VERDICT_COUNT, /* what a step returns that leaves the decision to the next */
};

/* A set of verdicts per action, one bit each: a switch would become a table in memory, which BCC cannot load. */
enum action { REDIRECT, PASS, DROP };
#define IF_DROP(name, act, meaning) | ((__u32)((act) == DROP) << (name))
#define IF_PASS(name, act, meaning) | ((__u32)((act) == PASS) << (name))
enum { DROPPED = 0 VERDICTS(IF_DROP), PASSED = 0 VERDICTS(IF_PASS) };
_Static_assert(VERDICT_COUNT <= 32, "a set of verdicts is 32 bits");

static __always_inline enum action action_of(enum verdict verdict) {
    if (DROPPED >> verdict & 1)
        return DROP;
    return PASSED >> verdict & 1 ? PASS : REDIRECT;
}
