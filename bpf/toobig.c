// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The answer to a packet that is too big. */
static __always_inline enum verdict too_big(struct xdp_md *ctx, struct packet *packet, const union address *service,
                                            __u16 mtu, const int version, const bool dry) {
    return TOO_BIG_QUIET;
}
