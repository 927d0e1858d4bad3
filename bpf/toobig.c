// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Answers to packets that are too big (toobig.h), and how many of them there may be. */

static __always_inline bool may_answer(const struct packet *packet, const int version, const bool dry) {
    __u32 zero = 0;
    struct answer_rate *rate = answer_rate.lookup(&zero);

    if (!rate || packet->fragment == LATER || is_icmp(packet->protocol, version))
        return false;
    return dry || rate_allows(rate, bpf_jiffies64());
}

/* `mtu`: the largest packet of the sender that fits. The packet must be as it came; its pointers are stale after this.
 */
static __always_inline enum verdict too_big(struct xdp_md *ctx, const struct packet *packet, __u16 mtu,
                                            const int version, const bool dry) {
    return may_answer(packet, version, dry) && write_answer(ctx, packet, mtu, version) ? TOO_BIG : TOO_BIG_QUIET;
}

#if WITH_L4
#define FITS_EVERYWHERE 1280 /* bytes: what every link carries that IPv6 knows; smaller packets are not looked at */

/* The bytes of a node's packet on its way to the client: segments that the kernel has merged leave as they came. */
static __always_inline __u32 length_out(const struct __sk_buff *skb, const struct packet *packet) {
    const struct tcphdr *tcp = packet->transport;

    if (!skb->gso_size)
        return packet->length;
    if (packet->protocol == IPPROTO_UDP)
        return packet->transport_offset + sizeof(struct udphdr) + skb->gso_size;
    return (void *)(tcp + 1) > packet->end ? 0 : packet->transport_offset + 4 * tcp->doff + skb->gso_size;
}

/* What the public interface carries, if this packet of a node is larger; else 0. */
static __always_inline __u16 exceeded(struct __sk_buff *skb, const struct packet *packet) {
    __u32 mtu = 0;

    if (likely(packet->length <= FITS_EVERYWHERE) || bpf_check_mtu(skb, PUBLIC_IFINDEX, &mtu, 0, 0) < 0)
        return 0;
    return length_out(skb, packet) > mtu ? mtu : 0;
}

/* Like too_big, of a packet from a node. */
static __always_inline enum verdict too_big_back(struct __sk_buff *skb, const struct packet *packet, __u16 mtu,
                                                 const int version, const bool dry) {
    if (!may_answer(packet, version, dry) || !write_answer_back(skb, packet, mtu, version))
        return TOO_BIG_QUIET;
    return dry || bpf_redirect(skb->ifindex, 0) == TC_ACT_REDIRECT ? TOO_BIG : TOO_BIG_QUIET;
}
#endif
