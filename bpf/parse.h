// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * From a frame to its headers, in three steps that each fill in what they find: parse_frame, parse_ip, parse_ports. The
 * last two return UNDECIDED, or the verdict on a packet that no receiver would accept.
 *
 * A packet that an ICMP error quotes is parsed by the same steps: it may be cut off behind the first 8 bytes of its
 * transport header, which hold the ports.
 */
#pragma once
#include "packet.h"
#include "verdict.h"

#define MALFORMED_FRAME -1
#define NOT_IP_FRAME 0 /* among others */
#define QUOTED_BYTES 8

struct vlan_tag {
    __be16 control;
    __be16 protocol; /* of what follows */
};

static __always_inline bool is_tag(__be16 protocol) {
    return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* In one load: struct ethhdr says that it may lie anywhere, and LLVM would take a byte at a time. */
static __always_inline __be16 frame_protocol(const struct ethhdr *eth) {
    return ((const __be16 *)eth)[ETH_ALEN];
}

/* A frame that is too short for TAGS_MAX tags, and therefore for IP as well. */
static __always_inline int parse_short_frame(const struct packet *packet) {
    const struct ethhdr *eth = packet->data;
    const struct vlan_tag *tag = (void *)(eth + 1);

    if ((void *)tag > packet->end)
        return MALFORMED_FRAME;

    __be16 protocol = frame_protocol(eth);

    if (is_tag(protocol)) {
        if ((void *)(tag + 1) > packet->end)
            return MALFORMED_FRAME;
        protocol = tag->protocol;
    }
    if (is_tag(protocol) || protocol == bpf_htons(ETH_P_IP) || (WITH_IPV6 && protocol == bpf_htons(ETH_P_IPV6)))
        return MALFORMED_FRAME;
    return NOT_IP_FRAME;
}

/*
 * The Ethernet header and up to TAGS_MAX tags. Returns the protocol behind them as it stands there. The verifier is to
 * know no more of a frame with tags than of one without, so that it follows the rest of the program once.
 */
static __always_inline int parse_frame(struct packet *packet) {
    struct ethhdr *eth = packet->data;
    struct vlan_tag *tags = (void *)(eth + 1);

    if (unlikely((void *)(tags + TAGS_MAX) > packet->end))
        return parse_short_frame(packet);

    __be16 protocol = frame_protocol(eth);
    __u32 count = 0;

    packet->eth = eth;
    packet->tpid = protocol;
    packet->vlan[0] = packet->vlan[1] = 0;
    if (unlikely(is_tag(protocol))) {
        packet->vlan[0] = tags[0].control;
        packet->tpid = obscure(protocol, tags[0].control);
        protocol = tags[0].protocol;
        count = 1;
        if (is_tag(protocol)) {
            packet->vlan[1] = tags[1].control;
            protocol = tags[1].protocol;
            count = 2;
        }
    }
    packet->tags = obscure(count, protocol) & 3;
    packet->ip = packet->data + sizeof(*eth) + packet->tags * sizeof(*tags);
    return protocol;
}

/* Masks of iphdr.frag_off, and of its counterpart in an IPv6 fragment header. */
#define MORE_FRAGMENTS bpf_htons(0x2000)
#define FRAGMENT_OFFSET bpf_htons(0x1fff)
#define MORE_FRAGMENTS_6 bpf_htons(0x0001)
#define FRAGMENT_OFFSET_6 bpf_htons(0xfff8)
#define SEGMENTS_LEFT bpf_htons(0x00ff) /* likewise, of a routing header */

/* A frame may be longer than its packet (padding), not shorter; a quoted packet usually is cut off. */
static __always_inline enum verdict parse_ip4(struct packet *packet, __u32 left, const bool quoted) {
    struct iphdr *ip = packet->ip;

    if ((void *)(ip + 1) > packet->end || ip->version != 4 || ip->ihl < 5)
        return MALFORMED;
    packet->transport_offset = ip->ihl * 4;
    packet->length = bpf_ntohs(ip->tot_len);
    if (packet->length < packet->transport_offset || (!quoted && packet->length > left))
        return MALFORMED;
    packet->protocol = ip->protocol;
    packet->fragment = ip->frag_off & FRAGMENT_OFFSET ? LATER : ip->frag_off & MORE_FRAGMENTS ? FIRST : WHOLE;
    packet->fragment_id = ip->id;
    packet->source = address4(ip->saddr);
    packet->destination = address4(ip->daddr);
    return UNDECIDED;
}

#define EXTENSIONS_MAX 6
#define OFFSET_MASK 0x3fff
_Static_assert(40 + EXTENSIONS_MAX * 8 * 256 <= OFFSET_MASK, "where a transport header may begin");

/* Every extension header that is stepped over begins like this, and is 8 bytes long at least. */
struct extension {
    __u8 next;
    __u8 length;   /* in 8 bytes, without the first 8; a fragment header has none */
    __be16 offset; /* here and below: of a fragment header */
    __be32 id;
};

static __always_inline bool is_extension(__u32 protocol) {
    return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_ROUTING ||
           protocol == IPPROTO_FRAGMENT;
}

static __always_inline enum verdict parse_extensions(struct packet *packet) {
    __u32 offset = sizeof(struct ipv6hdr);
    __u32 next = packet->ip6->nexthdr;

    packet->fragment = WHOLE;
    packet->fragment_id = 0;
#pragma unroll /* Linux 6.1 refuses the loop that LLVM makes of it: its end falls through to its start */
    for (int count = 0; count <= EXTENSIONS_MAX && is_extension(next); count++) {
        struct extension *extension = (void *)packet->ip6 + offset;

        if (count == EXTENSIONS_MAX)
            return EXTENSIONS;
        if (offset + sizeof(*extension) > packet->length || (void *)(extension + 1) > packet->end)
            return MALFORMED;

        if (next == IPPROTO_ROUTING && extension->offset & SEGMENTS_LEFT)
            break; /* on its way elsewhere (RFC 8200 4.4): what is behind is not for here */

        bool fragment = next == IPPROTO_FRAGMENT;

        next = extension->next;
        offset += sizeof(*extension) * (fragment ? 1 : extension->length + 1);
        offset = obscure(offset, next) & OFFSET_MASK;
        if (!fragment)
            continue;
        packet->fragment_id = extension->id;
        if (extension->offset & FRAGMENT_OFFSET_6) {
            packet->fragment = LATER;
            break;
        }
        packet->fragment = obscure(extension->offset & MORE_FRAGMENTS_6 ? FIRST : WHOLE, next) & 1;
    }
    packet->transport_offset = obscure(offset, next) & OFFSET_MASK;
    packet->protocol = next;
    return UNDECIDED;
}

static __always_inline enum verdict parse_ip6(struct packet *packet, __u32 left, const bool quoted) {
    struct ipv6hdr *ip = packet->ip6;

    if ((void *)(ip + 1) > packet->end || ip->version != 6)
        return MALFORMED;

    __u32 length = sizeof(*ip) + bpf_ntohs(ip->payload_len);

    if (length > 0xffff || (!quoted && length > left))
        return MALFORMED;
    packet->length = length;

    enum verdict verdict = parse_extensions(packet);

    if (verdict != UNDECIDED)
        return verdict;
    if (packet->length < packet->transport_offset)
        return MALFORMED;
    load_address(&packet->source, &ip->saddr);
    load_address(&packet->destination, &ip->daddr);
    return UNDECIDED;
}

/* `left`: bytes of the frame from the IP header on. */
static __always_inline enum verdict parse_ip(struct packet *packet, __u32 left, const int version, const bool quoted) {
    enum verdict verdict = version == 4 ? parse_ip4(packet, left, quoted) : parse_ip6(packet, left, quoted);

    packet->version = version;
    packet->transport = (void *)packet->ip + packet->transport_offset;
    return verdict;
}

/* Of TCP or UDP, unless this is a later fragment. */
static __always_inline enum verdict parse_ports(struct packet *packet, const bool quoted) {
    const __be16 *ports = packet->transport;
    __u32 left = packet->length - packet->transport_offset;

    if (!quoted && packet->protocol == IPPROTO_TCP) {
        if (left < sizeof(struct tcphdr) || packet->transport + sizeof(struct tcphdr) > packet->end)
            return MALFORMED;
        packet->tcp_flags = ((const __u8 *)ports)[13];
    } else {
        if (left < QUOTED_BYTES || packet->transport + QUOTED_BYTES > packet->end)
            return MALFORMED;
        packet->tcp_flags = 0;
    }
    packet->source_port = ports[0];
    packet->destination_port = ports[1];
    packet->fragment = obscure(packet->fragment, ports[0]) & 1; /* WHOLE or FIRST */
    packet->protocol = obscure(packet->protocol, ports[0]);
    return UNDECIDED;
}

/*
 * The headers of a packet that has ports, found again. The verifier then knows as little of one kind of packet as of
 * another, and follows what lies between once.
 */
static __always_inline bool find_again(struct packet *packet, const int version) {
    __u64 ip = sizeof(struct ethhdr) + packet->tags * sizeof(struct vlan_tag);

    packet->ip = packet->data + (obscure(ip, packet->length) & 31);
    packet->transport = (void *)packet->ip + (obscure(packet->transport_offset, packet->length) & OFFSET_MASK);
    return (void *)packet->ip + (version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) <= packet->end &&
           packet->transport + QUOTED_BYTES <= packet->end;
}
