// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Giving a packet new addresses and ports, in both directions the same way: MAC addresses from a 12-byte frame start,
 * one hop less to live, new addresses, new ports. The IPv4 checksum is kept right here; the TCP checksum is the
 * caller's, because the two hooks differ in how they may touch it. `struct csum_changes` says by how much.
 */
#pragma once
#include "csum.h"
#include "parse.h"

struct packet {
    struct ethhdr *eth;
    struct iphdr *ip;
    struct tcphdr *tcp;
};

/* Apart, because the addresses are in the TCP checksum by its pseudo header only. */
struct csum_changes {
    __u64 addresses;
    __u64 ports;
};

/* One hop less: the time to live is the first byte of its 16-bit word in the packet. */
#define TTL_CHANGE csum_change16(bpf_htons(0x0100), 0)

/* Wide words where the alignment of a frame allows them: LLVM would copy a byte at a time. */
static __always_inline void rewrite_macs(struct ethhdr *eth, const __u8 macs[12]) {
    *(__u64 *)eth = *(const __u64 *)macs;
    *(__u32 *)((void *)eth + 8) = *(const __u32 *)(macs + 8);
}

static __always_inline struct csum_changes rewrite(const struct packet *packet, const __u8 macs[12], __be32 source,
                                                   __be32 destination, __be16 source_port, __be16 destination_port) {
    struct iphdr *ip = packet->ip;
    struct tcphdr *tcp = packet->tcp;
    struct csum_changes changes = {
        .addresses = csum_change32(ip->saddr, source) + csum_change32(ip->daddr, destination),
        .ports = csum_change16(tcp->source, source_port) + csum_change16(tcp->dest, destination_port),
    };

    rewrite_macs(packet->eth, macs);
    ip->ttl--;
    ip->check = csum_apply(ip->check, changes.addresses + TTL_CHANGE);
    ip->saddr = source;
    ip->daddr = destination;
    tcp->source = source_port;
    tcp->dest = destination_port;
    return changes;
}
