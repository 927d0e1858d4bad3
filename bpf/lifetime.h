// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * When a flow may be taken for over.
 *
 * A flow's `life` is one 64-bit word, so that it can be compared and swapped: the low half holds what has been seen,
 * the high half when it began, in jiffies. The word of a flow that a client opens again therefore differs from the old
 * one's.
 *
 * Rule: a flow is over once its node has been quiet for as long as its state asks for. Quiet is what the *node* sends,
 * because the way to the node does not touch the entry, and because every segment with data is acknowledged anyway. The
 * short wait after an end lets the last acknowledgements through, and makes a forged RST or FIN harmless: the next
 * packet of a living flow starts the wait again.
 *
 * Times come in by argument, as the low 32 bits of jiffies; differences are right across a wrap.
 */
#pragma once
#include <linux/types.h>

#define SEEN_ANSWER 0x1     /* the node sent something after its SYN/ACK */
#define SEEN_CLIENT_FIN 0x2 /* in either order, */
#define SEEN_NODE_FIN 0x4   /* both FINs end a connection */
#define SEEN_RST 0x8
#define SEEN_THIEF 0x10 /* the port has been given to another flow */

/* How long the node must have been quiet. */
#define QUIET_ENDED (JIFFIES_PER_S / 2)
#define QUIET_OPENING (60 * JIFFIES_PER_S) /* its SYN/ACKs are up to 32 s apart */
#define QUIET_OPEN (7440 * JIFFIES_PER_S)  /* two hours and four minutes, RFC 5382 REQ-5 */

static __always_inline __u64 life_begin(__u32 now) {
    return (__u64)now << 32;
}

static __always_inline bool life_ended(__u64 life) {
    return life & SEEN_RST || (life & SEEN_CLIENT_FIN && life & SEEN_NODE_FIN);
}

static __always_inline bool life_over(__u64 life, __u32 last_seen, __u32 now) {
    __u32 quiet = now - last_seen;

    if (life & SEEN_THIEF)
        return false;
    if (life_ended(life))
        return quiet >= QUIET_ENDED;
    return quiet >= (life & SEEN_ANSWER ? QUIET_OPEN : QUIET_OPENING);
}
