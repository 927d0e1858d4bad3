// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * From a frame to its headers. All parsers have one shape: parse_x(cursor, &header) checks that the header lies within
 * the frame, moves the cursor behind it and returns the next protocol in the machine's byte order, or MALFORMED_HEADER.
 * The last one, parse_tcp, moves nothing: gale does not look at what a connection carries.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#define MALFORMED_HEADER -1

struct cursor {
    void *at;
    void *end;  /* behind the last byte that can be read */
    __u32 left; /* bytes from `at` on: of the frame, once in IPv4 of the packet; not all of them can be read in TC */
};

static __always_inline int parse_ethernet(struct cursor *cursor, struct ethhdr **header) {
    struct ethhdr *eth = cursor->at;

    if ((void *)(eth + 1) > cursor->end)
        return MALFORMED_HEADER;
    *header = eth;
    cursor->at = eth + 1;
    cursor->left -= sizeof(*eth);
    return bpf_ntohs(eth->h_proto);
}

/* Options are stepped over: they travel on as they came. A frame may be longer than its packet (padding), not shorter.
 */
static __always_inline int parse_ipv4(struct cursor *cursor, struct iphdr **header) {
    struct iphdr *ip = cursor->at;

    if ((void *)(ip + 1) > cursor->end || ip->version != 4 || ip->ihl < 5)
        return MALFORMED_HEADER;

    __u32 header_length = ip->ihl * 4, length = bpf_ntohs(ip->tot_len);

    if (length < header_length || length > cursor->left)
        return MALFORMED_HEADER;
    *header = ip;
    cursor->at += header_length;
    cursor->left = length - header_length;
    return ip->protocol;
}

static __always_inline int parse_tcp(struct cursor *cursor, struct tcphdr **header) {
    struct tcphdr *tcp = cursor->at;

    if (cursor->left < sizeof(*tcp) || (void *)(tcp + 1) > cursor->end)
        return MALFORMED_HEADER;
    *header = tcp;
    return IPPROTO_TCP;
}

/* Flags of a TCP header: one byte, as the masks below name them. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline __u8 tcp_flags(const struct tcphdr *tcp) {
    return ((const __u8 *)tcp)[13];
}

/* Masks of iphdr.frag_off. */
#define MORE_FRAGMENTS bpf_htons(0x2000)
#define FRAGMENT_OFFSET bpf_htons(0x1fff)
