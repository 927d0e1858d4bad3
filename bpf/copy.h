// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Copies of table entries that are in use, so that most packets need no look-up in a hash table: that is a chain of
 * kernel functions, and costs more than all the rest of the packet path.
 *
 * Each CPU has a table of its own, hence no locks; one plugged in later has none, and does without. A copy has one
 * place, by a hash of its key; flows that share one take it from each other. A copy is good for COPY_LIFETIME. Then the
 * table is asked again, which also tells it that the entry is in use.
 *
 * So a table entry that is gone may be followed for COPY_LIFETIME more. The packets this concerns fare as if they had
 * been forwarded before and held up on the wire for as long, which TCP is made for. It is shorter than every quiet of
 * lifetime.h: when a port goes to another flow, no copy of its return path is left.
 */
#pragma once
#include "abi.h"
#include "lifetime.h"

#define COPY_LIFETIME (JIFFIES_PER_S / 10)
_Static_assert(2 * COPY_LIFETIME < QUIET_ENDED, "no copy outlives its return path");

#define NO_COPY 0 /* the key of no flow */

#define COPIES 32768 /* per CPU and direction: 1 MiB for flows, 2 MiB for answers */
#define COPIES_BITS 15
_Static_assert(COPIES == 1 << COPIES_BITS, "a hash is shifted to a place");

/* Aligned to half a cache line, and to a whole one. */
struct flow_copy {
    __u64 key;
    struct flow flow;
    __u32 taken; /* jiffies */
    __u32 zero[3];
};
_Static_assert(sizeof(struct flow_copy) == 32, "half a cache line");

struct answer_copy {
    __u64 key;
    struct answer answer;
    __u32 taken;
    __u32 zero[7];
};
_Static_assert(sizeof(struct answer_copy) == 64, "a cache line");

static __always_inline __u64 copy_key(__be32 address, __be16 port, __u16 third) {
    return (__u64)third << 48 | (__u64)port << 32 | address;
}

/* Fibonacci hashing: the upper bits of the product are taken, which the lower bits of the factor reach best. */
static __always_inline __u32 copy_place(__u64 key, __u32 cpu) {
    return cpu * COPIES + (key * 0x9e3779b97f4a7c15ULL >> (64 - COPIES_BITS));
}

static __always_inline bool copy_good(__u32 taken, __u32 now) {
    return now - taken < COPY_LIFETIME;
}
