// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Answers to packets that are too big (toobig.h), and how many of them there may be. */

/* `mtu`: the largest packet of the sender that fits. The packet must be as it came; its pointers are stale after this.
 */
static __always_inline enum verdict too_big(struct xdp_md *ctx, const struct packet *packet, __u16 mtu,
                                            const int version, const bool dry) {
    __u32 zero = 0;
    struct answer_rate *rate = answer_rate.lookup(&zero);

    if (!rate || packet->fragment == LATER || is_icmp(packet->protocol, version))
        return TOO_BIG_QUIET;
    if (!dry && !rate_allows(rate, bpf_jiffies64()))
        return TOO_BIG_QUIET;
    return write_answer(ctx, packet, mtu, version) ? TOO_BIG : TOO_BIG_QUIET;
}
