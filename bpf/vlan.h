// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The start of a frame that leaves: MAC addresses. */
#pragma once
#include "packet.h"

static __always_inline void set_macs(struct ethhdr *eth, const __u8 macs[12]) {
    *(__u64 *)eth = *(const __u64 *)macs;
    *(__u32 *)((void *)eth + 8) = *(const __u32 *)(macs + 8);
}

static __always_inline bool leave_xdp(struct xdp_md *ctx, const struct packet *packet, const __u8 macs[12],
                                      __be16 vlan) {
    set_macs(packet->eth, macs);
    return true;
}
