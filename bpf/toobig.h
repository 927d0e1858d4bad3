// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The one packet that gale writes itself: the answer to a packet that does not fit the way to its node, or to its
 * client, ICMP "fragmentation needed" (RFC 792, 1191) or ICMPv6 "packet too big" (RFC 4443). Its sender finds out the
 * size that fits, and sends smaller ones. It comes from the address that the packet was sent to, because that is the
 * only one the sender knows, and goes back the way the packet came: its MAC addresses swapped, in its VLANs.
 *
 * The answer quotes the start of the packet, which must hold the ports: there lie at most 60 bytes of IPv4 header
 * before them, or some IPv6 extension headers. It is answered without "don't fragment" too: gale does not fragment, and
 * senders take the size to heart in any case.
 *
 * No answer to errors (RFC 1122, 3.2.2) or later fragments, of which a sender could not tell what they were about; and
 * not to everybody at once: ANSWERS_PER_S.
 */
#pragma once
#include "csum.h"
#include "packet.h"
#include "vlan.h"

#define QUOTED_4 128
#define QUOTED_6 1232      /* as much as fits 1280 bytes, the least that every way carries */
#define SUMMED_MAX 512     /* bytes that the kernel sums at a time */
#define ANSWERS_PER_S 1000 /* by each CPU */
#define ANSWER_TTL 64
#define ANSWER_CLASS 0xc0 /* internetwork control, RFC 1812, 4.3.2.5 */

struct answer4 {
    struct iphdr ip;
    struct icmp_header icmp;
    __u8 quoted[QUOTED_4];
};

struct answer6 {
    struct ipv6hdr ip;
    struct icmp_header icmp;
    __u8 quoted[QUOTED_6];
};

/* Answers of this CPU in the second that began at `start`. */
struct answer_rate {
    __u32 start; /* jiffies */
    __u32 answers;
};

static __always_inline bool rate_allows(struct answer_rate *rate, __u32 now) {
    if (now - rate->start >= JIFFIES_PER_S) {
        rate->start = now;
        rate->answers = 0;
    }
    return rate->answers++ < ANSWERS_PER_S;
}

static __always_inline __u64 address_sum(const union address *address) {
    return (__u64)address->words[0] + address->words[1] + address->words[2] + address->words[3];
}

/* `begin`: the sum of what is not in ICMP's message but in its checksum. `length`: known when this is compiled. */
static __always_inline void write_message(struct icmp_header *icmp, __u8 type, __u8 code, __u16 mtu, __u64 begin,
                                          const __u32 length) {
    __u64 sum = begin;

    *icmp = (struct icmp_header){.type = type, .code = code, .rest = bpf_htonl(mtu)};
    for (__u32 at = 0; at < length; at += SUMMED_MAX)
        sum += (__u32)bpf_csum_diff(NULL, 0, (void *)icmp + at, length - at < SUMMED_MAX ? length - at : SUMMED_MAX, 0);
    icmp->check = ~csum_fold(sum);
}

static __always_inline void write_answer4(struct answer4 *answer, const struct packet *packet, __u16 mtu) {
    const __be16 first = bpf_htons(0x4500 | ANSWER_CLASS), length = bpf_htons(sizeof(*answer));
    const __be16 life = bpf_htons(ANSWER_TTL << 8 | IPPROTO_ICMP);
    __be32 source = packet->destination.words[3], destination = packet->source.words[3];

    *(__be16 *)&answer->ip = first;
    answer->ip.tot_len = length;
    *(__be32 *)&answer->ip.id = 0; /* and no flags */
    *(__be16 *)&answer->ip.ttl = life;
    answer->ip.check = ~csum_fold((__u64)first + length + life + source + destination);
    answer->ip.saddr = source;
    answer->ip.daddr = destination;
    write_message(&answer->icmp, 3, 4, mtu, 0, sizeof(*answer) - sizeof(answer->ip));
}

static __always_inline void write_answer6(struct answer6 *answer, const struct packet *packet, __u16 mtu) {
    const __be16 length = bpf_htons(sizeof(*answer) - sizeof(answer->ip));
    __u64 pseudo =
        address_sum(&packet->source) + address_sum(&packet->destination) + length + bpf_htons(IPPROTO_ICMPV6);

    *(__be32 *)&answer->ip = bpf_htonl(0x60000000 | ANSWER_CLASS << 20);
    answer->ip.payload_len = length;
    answer->ip.nexthdr = IPPROTO_ICMPV6;
    answer->ip.hop_limit = ANSWER_TTL;
    *(union address *)&answer->ip.saddr = packet->destination;
    *(union address *)&answer->ip.daddr = packet->source;
    write_message(&answer->icmp, 2, 0, mtu, pseudo, sizeof(*answer) - sizeof(answer->ip));
}

#define FRAME_START (sizeof(struct ethhdr) + TAGS_MAX * sizeof(struct vlan_tag))

/* The frame's start, moved over `gap` bytes to the front and turned round. Tags or not: what is too much is written
 * over. */
static __always_inline void turn_start(void *frame, const __u32 gap) {
    const __u16 *from = frame + gap;
    __u16 *to = frame;

    for (int half = 0; half < 3; half++) {
        to[half] = from[half + 3];
        to[half + 3] = from[half];
    }
    for (int half = 6; half < (int)FRAME_START / 2; half++)
        to[half] = from[half];
}

/* `start`: bytes of the frame before IP. False: there are not enough behind. */
static __always_inline bool write_headers(void *frame, const void *end, __u64 start, const struct packet *packet,
                                          __u16 mtu, const int version) {
    const __u32 length = version == 4 ? sizeof(struct answer4) : sizeof(struct answer6);
    void *answer = frame + start;

    if (frame + length > end || answer + length > end)
        return false;
    turn_start(frame, length - (version == 4 ? QUOTED_4 : QUOTED_6));
    if (version == 4)
        write_answer4(answer, packet, mtu);
    else
        write_answer6(answer, packet, mtu);
    return true;
}

/* Cuts the packet, and puts the answer's headers before what is left. False: no room for them, or it is too short. */
static __always_inline bool write_answer(struct xdp_md *ctx, const struct packet *packet, __u16 mtu,
                                         const int version) {
    const __u32 length = version == 4 ? sizeof(struct answer4) : sizeof(struct answer6);
    const __u32 quoted = version == 4 ? QUOTED_4 : QUOTED_6, headers = length - quoted;
    __u64 start = sizeof(struct ethhdr) + (packet->tags & 3) * sizeof(struct vlan_tag);
    int excess = (int)(packet->end - packet->data) - (int)(start + quoted);

    if (packet->length < quoted || bpf_xdp_adjust_tail(ctx, -excess) || bpf_xdp_adjust_head(ctx, -(int)headers))
        return false;
    return write_headers((void *)(long)ctx->data, (void *)(long)ctx->data_end, start, packet, mtu, version);
}

/* The same of a packet from a node. The kernel keeps an outermost tag beside the frame, and sends it along. */
static __always_inline bool write_answer_back(struct __sk_buff *skb, const struct packet *packet, __u16 mtu,
                                              const int version) {
    const __u32 length = version == 4 ? sizeof(struct answer4) : sizeof(struct answer6);
    const __u32 quoted = version == 4 ? QUOTED_4 : QUOTED_6, headers = length - quoted;
    __u64 start = sizeof(struct ethhdr) + (packet->tags & 3) * sizeof(struct vlan_tag);

    if (packet->length < quoted || bpf_skb_change_tail(skb, start + quoted, 0) ||
        bpf_skb_change_head(skb, headers, 0) || bpf_skb_pull_data(skb, start + length))
        return false;
    return write_headers((void *)(long)skb->data, (void *)(long)skb->data_end, start, packet, mtu, version);
}
