// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Every packet ends in exactly one verdict, and each verdict counts its packets: "why was it dropped" has an answer.
 * gale/dataplane/abi.py reads names, actions and meanings from this list; bpf/README.md says how to add one.
 *
 * VERDICT(name, action, meaning). Actions: REDIRECT, out of another interface; PASS, to this machine's kernel,
 * untouched; DROP; REPLY, an answer of gale's own, back to where the packet came from. A packet of a service that no
 * flow knows is passed rather than dropped, so that the kernel answers it with a reset and the client does not hang.
 */
#pragma once

#define VERDICTS(VERDICT)                                                                                              \
    VERDICT(FORWARDED, REDIRECT, "l4, client to node: packet of a known flow")                                         \
    VERDICT(RETURNED, REDIRECT, "l4, node to client: packet of a known flow")                                          \
    VERDICT(OPENED, REDIRECT, "l4, client to node: first packet of a new flow")                                        \
    VERDICT(BRIDGED, REDIRECT, "l2, client to node")                                                                   \
    VERDICT(TUNNELLED, REDIRECT, "l3, client to node")                                                                 \
    VERDICT(STAYED, REDIRECT, "l2, l3, client to node: of a connection whose slot has moved, to the node that has it") \
    VERDICT(ERROR_FORWARDED, REDIRECT, "ICMP error about what a node sent, to that node")                              \
    VERDICT(ERROR_RETURNED, REDIRECT, "l4: ICMP error about what a client sent, to that client")                       \
    VERDICT(NOT_IP, PASS, "public side: neither IPv4 nor IPv6, or more than two VLAN tags")                            \
    VERDICT(OTHER_PROTOCOL, PASS, "public side: neither TCP nor UDP nor an ICMP error, or on its way elsewhere")       \
    VERDICT(LATER_FRAGMENT, PASS, "public side: fragment whose first one, with the ports, did not come here")          \
    VERDICT(NO_SERVICE, PASS, "public side: no service has this address, port and protocol")                           \
    VERDICT(NOT_A_REPLY, PASS, "private side: no flow waits for it")                                                   \
    VERDICT(NO_FLOW, PASS, "l4: opens no flow and belongs to none")                                                    \
    VERDICT(NODE_GONE, PASS, "l4: the flow's node receives no packets any more")                                       \
    VERDICT(UNRELATED_ERROR, PASS, "public side: ICMP error about no packet of a service")                             \
    VERDICT(TOO_BIG, REPLY, "bigger than fits on the way to the node: the sender is told what fits")                   \
    VERDICT(MALFORMED, DROP, "public side: lengths or version of a header do not fit the frame")                       \
    VERDICT(EXTENSIONS, DROP, "public side: more IPv6 extension headers than gale steps over")                         \
    VERDICT(TTL_EXPIRED, DROP, "for a service or a client, with no hop left")                                          \
    VERDICT(NO_NODE, DROP, "its slot has no node")                                                                     \
    VERDICT(NO_NEIGHBOUR, DROP, "the MAC address of the node's next hop is not known yet")                             \
    VERDICT(NOT_ON_LINK, DROP, "l2: the node is behind a router")                                                      \
    VERDICT(NO_ADDRESS6, DROP, "the node has no IPv6 address")                                                         \
    VERDICT(NO_PORT, DROP, "l4, new flow: every port tried towards its node is in use")                                \
    VERDICT(NO_ROOM, DROP, "l4, new flow: its places in the flow tables are held by flows at work")                    \
    VERDICT(TAKING_OVER, DROP, "l4, no flow yet: a start is converting the flow tables; TCP sends it again")           \
    VERDICT(TOO_BIG_QUIET, DROP, "bigger than fits on the way to the node, and enough senders have been told")

enum verdict {
#define NAME(name, action, meaning) name,
    VERDICTS(NAME)
#undef NAME
        VERDICT_COUNT,
    UNDECIDED = VERDICT_COUNT, /* what a step returns that leaves the decision to the next */
};

/* A set of verdicts per action, one bit each: a switch would become a table in memory, which BCC cannot load. */
enum action { REDIRECT, PASS, DROP, REPLY };
#define IF_DROP(name, act, meaning) | ((__u32)((act) == DROP) << (name))
#define IF_PASS(name, act, meaning) | ((__u32)((act) == PASS) << (name))
#define IF_REPLY(name, act, meaning) | ((__u32)((act) == REPLY) << (name))
enum { DROPPED = 0 VERDICTS(IF_DROP), PASSED = 0 VERDICTS(IF_PASS), REPLIED = 0 VERDICTS(IF_REPLY) };
_Static_assert(VERDICT_COUNT <= 32, "a set of verdicts is 32 bits");

static __always_inline enum action action_of(enum verdict verdict) {
    if (DROPPED >> verdict & 1)
        return DROP;
    if (PASSED >> verdict & 1)
        return PASS;
    return REPLIED >> verdict & 1 ? REPLY : REDIRECT;
}
