// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Internet checksums, kept right by what changed (RFC 1624, equation 3): with ~ and + in one's complement,
 *
 *     new = ~(~old + ~from + to)
 *
 * One's complement does not care for byte order, so everything is added as it is loaded. The order of additions does
 * not matter either, so changes are summed in 64 bits and folded once.
 *
 * Zero has two forms there, 0x0000 and 0xffff. A header is never all zeroes, so a full sum never folds to 0x0000 and a
 * full checksum is never 0xffff. Nor is ours: ~from + to is not 0x0000 either, and a sum of such numbers never folds
 * to it. The result is therefore the one a full sum would give, for every packet that came with a right one; a wrong
 * checksum stays wrong, and the receiver refuses it.
 */
#pragma once
#include <linux/types.h>

/* What a field's change adds to a sum. */
static __always_inline __u64 csum_change32(__be32 from, __be32 to) {
    return (__u64)(__u32)~from + to;
}

static __always_inline __u64 csum_change16(__be16 from, __be16 to) {
    return (__u64)(__u16)~from + to;
}

/* The same sum in 16 bits. Three folds suffice for a sum of up to 2^14 32-bit words. */
static __always_inline __u16 csum_fold(__u64 sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u16 csum_apply(__u16 checksum, __u64 change) {
    return ~csum_fold((__u16)~checksum + change);
}

/* True if the change is zero: so it is for a client that keeps its port. */
static __always_inline bool csum_unchanged(__u64 change) {
    return csum_fold(change) == 0xffff;
}
