// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* What an explanation says. */
static __always_inline void explain_listener(__u16 number, const struct listener *listener) {
}

static __always_inline void explain_slot(__u32 slot, __u32 number) {
}

static __always_inline void explain_flow(__be16 source_port, __u32 age, __u64 flags) {
}

static __always_inline void explain_verdict(enum verdict verdict) {
}
