// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Modes l2 and l3. */
static __always_inline enum verdict dsr_forward(struct xdp_md *ctx, struct packet *packet,
                                                const struct listener *listener, const int version, const bool dry) {
    return NO_NODE;
}

static __always_inline enum verdict dsr_error(struct xdp_md *ctx, struct packet *packet, const struct packet *quoted,
                                              const struct listener *listener, const int version, const bool dry) {
    return UNRELATED_ERROR;
}
