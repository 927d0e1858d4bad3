// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The outer header of mode l3: IP in IP, either version in either (RFC 2003, 4213, 2473). It takes over the class of
 * traffic, ECN included (RFC 6040), so that routers treat the tunnel as they would the packet; the node carries back
 * what they mark. It may not be fragmented: what does not fit is answered (toobig.c) before it gets here.
 */
#pragma once
#include "csum.h"
#include "late.h"
#include "packet.h"

#define TUNNEL_TTL 64
#define DO_NOT_FRAGMENT bpf_htons(0x4000)

/* The byte with DSCP and ECN, of either version. */
static __always_inline __u8 traffic_class(const struct packet *packet, const int version) {
    if (version == 4)
        return packet->ip->tos;
    return bpf_ntohs(*(__be16 *)packet->ip6) >> 4;
}

static __always_inline __u8 inner_protocol(const int version) {
    return version == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
}

/* One hop less, of the packet inside. The time to live is the first byte of its 16-bit word in the packet. */
static __always_inline void one_hop_less(const struct packet *packet, const int version) {
    if (version == 6) {
        packet->ip6->hop_limit--;
        return;
    }
    packet->ip->ttl--;
    packet->ip->check = csum_apply(packet->ip->check, csum_change16(bpf_htons(0x0100), 0));
}

/* `inside`: bytes of the packet inside. Its sum is worked out from the fields: nearly all of them are constants. */
static __always_inline void write_outer4(struct iphdr *outer, __u8 class, __u16 inside, __u8 protocol,
                                         __be32 destination) {
    __be16 first = bpf_htons(0x4500 | class), length = bpf_htons(sizeof(*outer) + inside);
    __be16 life = bpf_htons(TUNNEL_TTL << 8 | protocol);
    __u64 sum = (__u64)first + length + DO_NOT_FRAGMENT + life + SOURCE_ADDRESS + destination;

    *(__be16 *)outer = first;
    outer->tot_len = length;
    outer->id = 0;
    outer->frag_off = DO_NOT_FRAGMENT;
    *(__be16 *)&outer->ttl = life;
    outer->check = ~csum_fold(sum);
    outer->saddr = SOURCE_ADDRESS;
    outer->daddr = destination;
}

static __always_inline void write_outer6(struct ipv6hdr *outer, __u8 class, __u16 inside, __u8 protocol,
                                         const union address *destination) {
    *(__be32 *)outer = bpf_htonl(0x60000000 | (__u32) class << 20);
    outer->payload_len = bpf_htons(inside);
    outer->nexthdr = protocol;
    outer->hop_limit = TUNNEL_TTL;
    *(union address *)&outer->saddr = (union address){.halves = {SOURCE6_0, SOURCE6_1}};
    *(union address *)&outer->daddr = *destination;
}
