// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * What a node needs for mode l3, in place of the kernel's ipip and sit modules: two programs, and no more than they
 * must do. gale-node attaches them and fills the maps.
 *
 * gale_decap (XDP, on the interface that tunnels arrive at) takes the outer header off a packet that a load balancer
 * sent to this node, and leaves the packet inside to this machine's kernel, which has the service's address. Both
 * headers may be IPv4 or IPv6. A packet is touched only if all four hold; everything else passes as it came:
 *
 *   1. it is IP in IP, whole, and its outer header has no options;
 *   2. its outer destination is an address of this node: a flooded frame of somebody else's is not taken;
 *   3. its outer source is a load balancer: who forges clients' addresses must at least forge one of these;
 *   4. its inner destination is a service that this node serves: nothing else gets in by the tunnel.
 *
 * Congestion that a router marked on the outer header is carried to the inner one (RFC 6040). VLAN tags stay.
 *
 * gale_clamp (TC, on the interfaces that answers leave by) lowers the largest segment (MSS) that the node announces to
 * clients to what fits the tunnel, so that a packet too big for it is an exception. It looks at SYN and SYN/ACK only.
 */
/* What the kernel is told. It lends its helpers to "GPL", and has no word for "Apache-2.0 OR GPL-2.0-only". */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include "address.h"
#include "csum.h"

/* As in verdict.h; gale/dataplane/abi.py reads this list too. Packets that are neither tunnelled nor clamped do not
 * count: most of a node's are not. */
#define DECAP_VERDICTS(VERDICT)                                                                                        \
    VERDICT(DECAPSULATED, PASS, "the packet in a load balancer's tunnel, to this machine's kernel")                    \
    VERDICT(CLAMPED, PASS, "SYN or SYN/ACK of a service: announces a segment that fits the tunnel")                    \
    VERDICT(NOT_THIS_NODE, PASS, "IP in IP, but its outer destination is not this node's address")                     \
    VERDICT(NOT_A_LOAD_BALANCER, PASS, "IP in IP to this node, but its outer source is not a load balancer")           \
    VERDICT(NOT_SERVED, PASS, "in a load balancer's tunnel, but for no service of this node")                          \
    VERDICT(MALFORMED, DROP, "in a load balancer's tunnel, but lengths, version or checksum do not fit")               \
    VERDICT(TTL_EXPIRED, DROP, "in a load balancer's tunnel, but no time to live is left inside or outside")           \
    VERDICT(CONGESTED, DROP, "congestion was marked on the tunnel of a packet whose sender could not be told")

enum verdict {
#define NAME(name, action, meaning) name,
    DECAP_VERDICTS(NAME)
#undef NAME
        VERDICT_COUNT,
    UNTOUCHED = VERDICT_COUNT, /* does not count */
};

enum action { PASS, DROP };
#define IF_DROP(name, act, meaning) | ((__u32)((act) == DROP) << (name))
enum { DROPPED = 0 DECAP_VERDICTS(IF_DROP) };
_Static_assert(VERDICT_COUNT < 32, "a set of verdicts is 32 bits");

/* Written by gale-node. The key of each is an address of 16 bytes: address.h. */
BPF_HASH(load_balancers, union address, __u32, 64); /* their private addresses */
BPF_HASH(own_addresses, union address, __u32, 64);  /* this node's, which load balancers tunnel to */
BPF_HASH(segments, union address, __u32, 1024);     /* a service of mode l3 -> the largest segment; 0: any */

/* Written here. */
BPF_PERCPU_ARRAY(decap_verdicts, __u64, VERDICT_COUNT);

static __always_inline int count(enum verdict verdict) {
    __u32 index = verdict;
    __u64 *packets = decap_verdicts.lookup(&index);

    if (packets)
        ++*packets;
    return DROPPED >> verdict & 1;
}

#define TAGS 2

struct vlan_tag {
    __be16 control;
    __be16 type; /* of what follows */
};

/* Steps over VLAN tags; NULL if what follows them is not IP. */
static __always_inline void *find_ip(void *frame, void *end, __be16 **type) {
    struct ethhdr *eth = frame;
    struct vlan_tag *tag = (void *)(eth + 1);

    if ((void *)tag > end)
        return NULL;
    *type = &eth->h_proto;
    for (int tags = 0; tags < TAGS; tags++) {
        if (**type != bpf_htons(ETH_P_8021Q) && **type != bpf_htons(ETH_P_8021AD))
            break;
        if ((void *)(tag + 1) > end)
            return NULL;
        *type = &tag->type;
        tag++;
    }
    return **type == bpf_htons(ETH_P_IP) || **type == bpf_htons(ETH_P_IPV6) ? tag : NULL;
}

/* What the programs ask of an IP header, of either version. */
struct header {
    union address source, destination;
    __u32 length; /* of this header */
    __u32 whole;  /* length of the packet */
    __u8 version, protocol, ttl, ecn;
};

/* Only what has the shape that gale sends is a tunnel, so options and fragments are not parsed: `protocol` is 0 then.
 */
static __always_inline bool parse_ip4(struct iphdr *ip, void *end, struct header *header) {
    if ((void *)(ip + 1) > end || ip->version != 4)
        return false;
    *header = (struct header){
        .source = address4(ip->saddr),
        .destination = address4(ip->daddr),
        .length = sizeof(*ip),
        .whole = bpf_ntohs(ip->tot_len),
        .version = 4,
        .protocol = ip->ihl == 5 && !(ip->frag_off & bpf_htons(0x3fff)) ? ip->protocol : 0,
        .ttl = ip->ttl,
        .ecn = ip->tos & 3,
    };
    return true;
}

static __always_inline bool parse_ip6(struct ipv6hdr *ip, void *end, struct header *header) {
    if ((void *)(ip + 1) > end || ip->version != 6)
        return false;
    *header = (struct header){
        .source = *(union address *)&ip->saddr,
        .destination = *(union address *)&ip->daddr,
        .length = sizeof(*ip),
        .whole = sizeof(*ip) + bpf_ntohs(ip->payload_len),
        .version = 6,
        .protocol = ip->nexthdr,
        .ttl = ip->hop_limit,
        .ecn = ip->flow_lbl[0] >> 4 & 3,
    };
    return true;
}

static __always_inline bool parse_ip(void *ip, void *end, bool version6, struct header *header) {
    return version6 ? parse_ip6(ip, end, header) : parse_ip4(ip, end, header);
}

/* The kernel, which would check it, does not see this header any more. */
static __always_inline bool checksum_holds(const struct iphdr *ip) {
    const __u32 *words = (const void *)ip;
    __u64 sum = 0;

    for (int word = 0; word < 5; word++)
        sum += words[word];
    return csum_fold(sum) == 0xffff;
}

#define ECN_NONE 0
#define ECN_CONGESTED 3

static __always_inline void mark_congested(void *ip, const struct header *header) {
    __u16 *start = ip; /* of both headers: version, then the byte with ECN or the half of it */
    __u16 before = *start;

    *start |= header->version == 4 ? bpf_htons(ECN_CONGESTED) : bpf_htons(ECN_CONGESTED << 4);
    if (header->version == 4)
        ((struct iphdr *)ip)->check = csum_apply(((struct iphdr *)ip)->check, csum_change16(before, *start));
}

/* Moves the Ethernet header with its tags to the packet inside. `length` is known when this is compiled. */
static __always_inline void move_start(void *frame, void *inside, const int length) {
    __u16 *from = frame, *to = inside - length;

    for (int half = length / 2 - 1; half >= 0; half--)
        to[half] = from[half];
}

static __always_inline enum verdict decapsulate(struct xdp_md *ctx) {
    void *frame = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct header outer, inner;
    __be16 *type;
    void *ip = find_ip(frame, end, &type);

    if (!ip || !parse_ip(ip, end, *type == bpf_htons(ETH_P_IPV6), &outer) ||
        (outer.protocol != IPPROTO_IPIP && outer.protocol != IPPROTO_IPV6))
        return UNTOUCHED;
    if (!own_addresses.lookup(&outer.destination))
        return NOT_THIS_NODE;
    if (!load_balancers.lookup(&outer.source))
        return NOT_A_LOAD_BALANCER;

    bool inner6 = outer.protocol == IPPROTO_IPV6;
    __u32 start = ip - frame;
    void *inside = outer.version == 6 ? ip + sizeof(struct ipv6hdr) : ip + sizeof(struct iphdr);

    if (!parse_ip(inside, end, inner6, &inner))
        return MALFORMED;
    if (!segments.lookup(&inner.destination))
        return NOT_SERVED;
    if (ip + outer.whole > end || outer.whole < outer.length + inner.whole ||
        (outer.version == 4 && !checksum_holds(ip)))
        return MALFORMED;
    if (!outer.ttl || !inner.ttl)
        return TTL_EXPIRED;
    if (outer.ecn == ECN_CONGESTED) {
        if (inner.ecn == ECN_NONE)
            return CONGESTED;
        mark_congested(inside, &inner);
    }
    *type = inner6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
    if (start == sizeof(struct ethhdr))
        move_start(frame, inside, sizeof(struct ethhdr));
    else if (start == sizeof(struct ethhdr) + sizeof(struct vlan_tag))
        move_start(frame, inside, sizeof(struct ethhdr) + sizeof(struct vlan_tag));
    else
        move_start(frame, inside, sizeof(struct ethhdr) + 2 * sizeof(struct vlan_tag));
    return bpf_xdp_adjust_head(ctx, outer.length) ? MALFORMED : DECAPSULATED;
}

int gale_decap(struct xdp_md *ctx) {
    enum verdict verdict = decapsulate(ctx);

    return verdict != UNTOUCHED && count(verdict) ? XDP_DROP : XDP_PASS;
}

#define HEADER_MAX 60 /* of TCP: 15 words */
#define OPTION_END 0
#define OPTION_NOTHING 1
#define OPTION_SEGMENT 2
#define OPTION_SEGMENT_LENGTH 4

/* At which byte of a TCP header the largest segment stands; 0: nowhere. */
static __always_inline __u64 find_segment_option(const __u8 *header, __u64 length) {
    __u64 at = sizeof(struct tcphdr);

    for (int option = 0; option < HEADER_MAX; option++) {
        if (at + OPTION_SEGMENT_LENGTH > length || at > HEADER_MAX - OPTION_SEGMENT_LENGTH)
            return 0;
        if (header[at] == OPTION_SEGMENT)
            return header[at + 1] == OPTION_SEGMENT_LENGTH ? at + 2 : 0;
        if (header[at] == OPTION_END || (header[at] != OPTION_NOTHING && header[at + 1] < 2))
            return 0;
        at += header[at] == OPTION_NOTHING ? 1 : header[at + 1];
    }
    return 0;
}

/*
 * Written through helpers: they know whether the packet's bytes are shared with the socket that may have to send them
 * again, and whether its checksum is whole, or the pseudo header's sum to be completed by the network card
 * (CHECKSUM_PARTIAL), which has no options in it.
 */
static __always_inline enum verdict clamp(struct __sk_buff *skb) {
    void *frame = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct header header;
    __be16 *type;
    void *ip = find_ip(frame, end, &type);

    if (!ip || !parse_ip(ip, end, *type == bpf_htons(ETH_P_IPV6), &header) || header.protocol != IPPROTO_TCP)
        return UNTOUCHED;

    struct tcphdr *tcp = header.version == 6 ? ip + sizeof(struct ipv6hdr) : ip + sizeof(struct iphdr);

    if ((void *)(tcp + 1) > end || !tcp->syn)
        return UNTOUCHED;

    __u32 *largest = segments.lookup(&header.source);
    __u64 start = (void *)tcp - frame, length = tcp->doff * 4;
    __u8 bytes[HEADER_MAX] = {};

    asm volatile("" : "+r"(length)); /* or LLVM would compare what it comes from, and the verifier not know */
    if (!largest || !*largest || length < sizeof(*tcp) || length > HEADER_MAX ||
        bpf_skb_load_bytes(skb, start, bytes, length))
        return UNTOUCHED;

    __u64 at = find_segment_option(bytes, length);

    if (!at || at > HEADER_MAX - sizeof(__be16))
        return UNTOUCHED;

    __be16 from = bytes[at] | bytes[at + 1] << 8, to = bpf_htons(*largest);

    if (bpf_ntohs(from) <= *largest || bpf_skb_store_bytes(skb, start + at, &to, sizeof(to), 0))
        return UNTOUCHED;
    /* A word that begins at an odd byte is in the sum with its bytes swapped. */
    if (at & 1) {
        from = __builtin_bswap16(from);
        to = __builtin_bswap16(to);
    }
    bpf_l4_csum_replace(skb, start + __builtin_offsetof(struct tcphdr, check), from, to, sizeof(to));
    return CLAMPED;
}

int gale_clamp(struct __sk_buff *skb) {
    enum verdict verdict = clamp(skb);

    if (verdict != UNTOUCHED)
        count(verdict);
    return TC_ACT_UNSPEC;
}
