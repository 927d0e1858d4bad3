// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * What the packet path knows of a packet: where its headers are, and what they say as far as anyone asks. Both IP
 * versions have one shape; `version` says which header `ip` is, and most code knows it at compile time.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "address.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * The same number, of which the verifier then knows nothing, because it does not see that what it does not know cancels
 * out. It would follow the rest of the program once for every value that it knows.
 */
static __always_inline __u64 obscure(__u64 number, __u64 unknown) {
    number += unknown;
    asm volatile("" : "+r"(number));
    return number - unknown;
}

enum part { WHOLE, FIRST, LATER }; /* of a fragmented packet the first has the ports, the later ones have not */

#define TAGS_MAX 2

struct packet {
    void *data, *end; /* what can be read: in TC not always all there is */
    struct ethhdr *eth;
    union {
        struct iphdr *ip;
        struct ipv6hdr *ip6;
    };
    void *transport; /* header of TCP, UDP or ICMP; in a later fragment its data */
    union address source, destination;
    __be32 fragment_id;
    __be16 source_port, destination_port;
    __u16 length;           /* of the IP header and all behind it */
    __u16 transport_offset; /* from the IP header: options or extension headers lie before */
    __u32 version;
    __u32 protocol; /* behind the extension headers */
    __u32 tcp_flags;
    __u32 fragment;        /* enum part */
    __u32 tags;            /* how many the frame has */
    __be16 tpid;           /* of the outer tag, if there is one */
    __be16 vlan[TAGS_MAX]; /* tag control information, outer tag first */
};

/* Flags of a TCP header: one byte. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* ICMP, of both versions: the header is 8 bytes, and behind it an error quotes the packet that it is about. */
struct icmp_header {
    __u8 type, code;
    __be16 check;
    __be32 rest;
};

static __always_inline bool is_icmp(__u32 protocol, const int version) {
    return protocol == (version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/* Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem; in IPv6 packet too big. */
static __always_inline bool is_icmp_error(__u8 type, const int version) {
    if (version == 4)
        return type == 3 || type == 11 || type == 12;
    return type >= 1 && type <= 4;
}

static __always_inline __u8 hops_left(const struct packet *packet, const int version) {
    return version == 4 ? packet->ip->ttl : packet->ip6->hop_limit;
}

/* May begin a flow: any packet of UDP that has ports, and of TCP a SYN. */
static __always_inline bool opens(const struct packet *packet) {
    if (packet->protocol == IPPROTO_UDP)
        return packet->fragment != LATER;
    return (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
}
