// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * When a flow may be taken for over, and who makes room when there is none.
 *
 * Rule: a flow is over once it has been quiet, on both sides, for as long as its state asks for. The short wait after
 * an end lets the last acknowledgements through, and makes a forged RST or FIN harmless: the next packet of a living
 * flow starts the wait again.
 *
 * A flow is ESTABLISHED once its client has shown that it gets the answers: in TCP by acknowledging the sequence number
 * that the node has chosen, in UDP by going on after an answer. Nobody who forges source addresses comes that far, so
 * a flood of opening flows takes room from other opening flows, and from no established one that is at work: where all
 * places that a new flow may have are held by such, it is the new one that has to wait.
 *
 * Times come in by argument, as the low 32 bits of jiffies; differences are right across a wrap.
 */
#pragma once
#include "flow.h"

/* A node may send this much before its client's first acknowledgement arrives, with TCP Fast Open: 10 segments. */
#define FIRST_FLIGHT 16384

#define QUIET_ENDED (JIFFIES_PER_S / 2)
#define QUIET_OPENING (60 * JIFFIES_PER_S)       /* SYN/ACKs are up to 32 s apart */
#define QUIET_ESTABLISHED (7440 * JIFFIES_PER_S) /* two hours and four minutes, RFC 5382 REQ-5 */
#define QUIET_PRESSED (3 * JIFFIES_PER_S)        /* of an opening flow, when there is no other port to be had */
#define QUIET_AT_WORK (60 * JIFFIES_PER_S)       /* of an established flow, when there is no other room to be had */
#define QUIET_UNANSWERED (30 * JIFFIES_PER_S)    /* UDP */
#define QUIET_ANSWERED (180 * JIFFIES_PER_S)

/* A living flow's packets renew its stamps this often; between them they write nothing. */
static __always_inline __u32 renewal(__u64 word) {
    return word & ENDED ? 1 : JIFFIES_PER_S;
}

static __always_inline bool life_over(__u64 word, __u8 protocol, __u32 now) {
    __u32 quiet = word_age(word, now);

    if (word & ENDED)
        return quiet >= QUIET_ENDED;
    if (protocol == IPPROTO_UDP)
        return quiet >= (word & (ANSWERED | ESTABLISHED) ? QUIET_ANSWERED : QUIET_UNANSWERED);
    return quiet >= (word & ESTABLISHED ? QUIET_ESTABLISHED : QUIET_OPENING);
}

/* Who makes room: the greatest of these, and among equals the one that has been quiet longest. */
enum room { NO_ROOM_HERE, OF_ESTABLISHED, OF_OPENING, OF_ENDED, FREE, OWN };

#define ROOM(kind) ((__u64)(kind) << 32)

static __always_inline __u64 room_in(enum room kind, __u64 word, __u32 now) {
    return ROOM(kind) | word_age(word, now);
}

/* Of a flow that is not over. */
static __always_inline __u64 room_of_living(__u64 word, __u32 now) {
    if (!(word & ESTABLISHED))
        return room_in(OF_OPENING, word, now);
    return word_age(word, now) < QUIET_AT_WORK ? ROOM(NO_ROOM_HERE) : room_in(OF_ESTABLISHED, word, now);
}
