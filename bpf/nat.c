// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Mode l4. */
static __always_inline enum verdict nat_forward(struct xdp_md *ctx, struct packet *packet,
                                                const struct listener *listener, __u16 number, const int version,
                                                const bool dry) {
    return NO_FLOW;
}

static __always_inline enum verdict nat_error(struct xdp_md *ctx, struct packet *packet, const struct packet *quoted,
                                              const struct listener *listener, __u16 number, const int version,
                                              const bool dry) {
    return UNRELATED_ERROR;
}

static __always_inline enum verdict nat_return(struct __sk_buff *skb, struct packet *packet, const int version,
                                               const bool dry) {
    return NOT_A_REPLY;
}

static __always_inline enum verdict nat_error_back(struct __sk_buff *skb, struct packet *packet,
                                                   const struct packet *quoted, const int version, const bool dry) {
    return NOT_A_REPLY;
}
