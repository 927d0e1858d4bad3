// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Giving a packet new addresses and ports, in both directions the same way. The IPv4 checksum is kept right here; that
 * of the transport header is the caller's, because the two hooks differ in how they may touch it: struct csum_changes
 * says by how much.
 */
#pragma once
#include "csum.h"
#include "packet.h"

/* Apart, because the addresses are in a transport checksum by its pseudo header only. */
struct csum_changes {
    __u64 addresses;
    __u64 ports;
};

struct ends {
    union address source, destination;
    __be16 source_port, destination_port;
};

static __always_inline __u64 csum_change_address(const union address *from, const union address *to,
                                                 const int version) {
    __u64 change = csum_change32(from->words[3], to->words[3]);

    if (version == 6)
        change += csum_change32(from->words[0], to->words[0]) + csum_change32(from->words[1], to->words[1]) +
                  csum_change32(from->words[2], to->words[2]);
    return change;
}

/* What is in packet->source and ->destination stays: it tells who sent the packet. Returns the change of both. */
static __always_inline __u64 rewrite_addresses(const struct packet *packet, const struct ends *ends,
                                               const int version) {
    __u64 change = csum_change_address(&packet->source, &ends->source, version) +
                   csum_change_address(&packet->destination, &ends->destination, version);

    if (version == 4) {
        packet->ip->saddr = ends->source.words[3];
        packet->ip->daddr = ends->destination.words[3];
        packet->ip->check = csum_apply(packet->ip->check, change);
    } else {
        __builtin_memcpy(&packet->ip6->saddr, &ends->source, sizeof(ends->source));
        __builtin_memcpy(&packet->ip6->daddr, &ends->destination, sizeof(ends->destination));
    }
    return change;
}

static __always_inline __u64 rewrite_ports(const struct packet *packet, const struct ends *ends) {
    __be16 *ports = packet->transport;

    ports[0] = ends->source_port;
    ports[1] = ends->destination_port;
    return csum_change16(packet->source_port, ends->source_port) +
           csum_change16(packet->destination_port, ends->destination_port);
}

/* One hop less: the time to live is the first byte of its 16-bit word in the packet. */
static __always_inline void take_hop(const struct packet *packet, const int version) {
    if (version == 4) {
        packet->ip->ttl--;
        packet->ip->check = csum_apply(packet->ip->check, csum_change16(bpf_htons(0x0100), 0));
    } else {
        packet->ip6->hop_limit--;
    }
}

/* A later fragment has no ports, and no checksum: that of the first one covers it. */
static __always_inline struct csum_changes rewrite(const struct packet *packet, const struct ends *ends,
                                                   const int version) {
    struct csum_changes changes = {.addresses = rewrite_addresses(packet, ends, version)};

    take_hop(packet, version);
    if (likely(packet->fragment != LATER))
        changes.ports = rewrite_ports(packet, ends);
    return changes;
}

#define TCP_CHECK 16 /* where a checksum stands in its header */
#define UDP_CHECK 6

/* Of UDP: zero says that there is none; the sum that comes out as zero is sent as 0xffff instead (RFC 768). */
static __always_inline void apply_udp(__be16 *check, __u64 change) {
    if (*check)
        *check = csum_apply(*check, change) ?: 0xffff;
}

/* For a packet whose transport checksum is whole. */
static __always_inline void apply_changes(const struct packet *packet, struct csum_changes changes) {
    if (unlikely(packet->fragment == LATER))
        return;
    if (packet->protocol == IPPROTO_UDP) {
        apply_udp(packet->transport + UDP_CHECK, changes.addresses + changes.ports);
    } else {
        __be16 *check = packet->transport + TCP_CHECK;

        if ((void *)(check + 1) <= packet->end) /* which the verifier may have forgotten */
            *check = csum_apply(*check, changes.addresses + changes.ports);
    }
}
