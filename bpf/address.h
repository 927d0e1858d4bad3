// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * One shape for the addresses of both IP versions: 16 bytes in network byte order, an IPv4 address as ::ffff:a.b.c.d
 * (RFC 4291, 2.5.5.2). So tables, hashes and comparisons know no versions; only headers do.
 */
#pragma once
#include <linux/types.h>

union address {
    __u8 bytes[16];
    __be32 words[4];
    __u64 halves[2];
};

#define MAPPED bpf_htonl(0xffff) /* the third word of an IPv4 address */

static __always_inline union address address4(__be32 address) {
    return (union address){.words = {0, 0, MAPPED, address}};
}

/* In two loads: LLVM would take four, for want of alignment, and what reads both halves of it then had to wait. */
static __always_inline void load_address(union address *address, const void *from) {
    address->halves[0] = ((const __u64 *)from)[0];
    address->halves[1] = ((const __u64 *)from)[1];
}

static __always_inline bool address_equal(const union address *a, const union address *b) {
    return a->halves[1] == b->halves[1] && a->halves[0] == b->halves[0];
}
