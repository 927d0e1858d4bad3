// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * How a frame leaves: the MAC addresses of its next hop, and the VLAN tags of that hop. A tag says which network a
 * frame is in, so the tags it came with are gone, whoever it goes to.
 *
 * XDP finds tags in the frame, and the head of the frame has to move when their number changes. In TC the outer one is
 * beside the frame, mostly; only helpers may touch it.
 *
 * Both functions are the last step: the pointers of the packet are stale after them.
 */
#pragma once
#include "parse.h"

/* Wide words where the alignment of a frame allows them: LLVM would copy a byte at a time. */
static __always_inline void set_macs(void *frame, const __u8 macs[12]) {
    *(__u64 *)frame = *(const __u64 *)macs;
    *(__u32 *)(frame + 8) = *(const __u32 *)(macs + 8);
}

/*
 * Writes the Ethernet header and up to one tag, of the VLAN `vlan` unless it is 0, and returns where the packet begins;
 * NULL when it would not lie in the frame.
 */
static __always_inline void *write_start(void *frame, const void *end, const __u8 macs[12], __be16 vlan, __be16 type) {
    struct ethhdr *eth = frame;
    struct vlan_tag *tag = (void *)(eth + 1);

    if ((void *)(tag + 1) > end)
        return NULL;
    set_macs(eth, macs);
    if (likely(!vlan)) {
        eth->h_proto = type;
        return tag;
    }
    eth->h_proto = bpf_htons(ETH_P_8021Q);
    tag->control = vlan;
    tag->protocol = type;
    return tag + 1;
}

static __always_inline __be16 ether_type(int version) {
    return version == 6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

/* By how many bytes the head moves for the new tag (backward) and the old ones (forward). */
static __always_inline int tags_move(const struct packet *packet, __be16 vlan) {
    return (packet->tags - !!vlan) * (int)sizeof(struct vlan_tag);
}

/* False if the frame has no room for a tag; then it is as it was. */
static __always_inline bool leave_xdp(struct xdp_md *ctx, const struct packet *packet, const __u8 macs[12],
                                      __be16 vlan) {
    if (likely(!packet->tags && !vlan)) {
        set_macs(packet->eth, macs);
        return true;
    }

    int move = tags_move(packet, vlan);

    if (move && bpf_xdp_adjust_head(ctx, move))
        return false;
    return write_start((void *)(long)ctx->data, (void *)(long)ctx->data_end, macs, vlan, ether_type(packet->version));
}
