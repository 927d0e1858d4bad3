// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Programs for bench/packet.py, compiled behind the text of bpf/gale.c in one source, so that they contain the very
 * packet path that they time.
 *
 * The kernel does not renew a packet between the repeats of a test run, and a load balancer changes it. So each program
 * first writes the packet anew, with the addresses and ports of the next flow; the floor does this and nothing else,
 * and is taken away from the others' figures. Words begin at the third byte of the frame: then every field of a header
 * lies within one word, and reading it back does not have to wait for two stores.
 */
#define WORDS 7
#define ADDRESSES 3 /* word of both IPv4 addresses */
#define PORTS_AND_SEQUENCE 4

struct bench_flow {
    __u64 addresses;
    __u64 ports_and_sequence;
};

struct bench_state {
    __u64 words[WORDS];
    __u32 first; /* of the flows that take turns, */
    __u32 flows; /* and how many they are; 0: each packet is of a flow never seen before */
    __u32 turn;
    __u32 zero;
};

BPF_ARRAY(bench_state, struct bench_state, 1);
BPF_ARRAY(bench_flows, struct bench_flow, 1 << 18);

/* A client and a port of its own for each number. */
static __always_inline void never_seen(struct bench_state *state, __u64 *words) {
    __u32 number = state->turn++;

    words[ADDRESSES] = state->words[ADDRESSES] + bpf_htonl(number & 0xffffff);
    words[PORTS_AND_SEQUENCE] = (state->words[PORTS_AND_SEQUENCE] & ~0xffffULL) | bpf_htons(1024 + number % 64512);
}

static __always_inline int renew(void *data, void *end) {
    __u32 zero = 0;
    struct bench_state *state = bench_state.lookup(&zero);
    __u64 *words = data + 2;

    if (!state || (void *)(words + WORDS) > end)
        return -1;
    for (int i = 0; i < WORDS; i++)
        words[i] = state->words[i];
    if (!state->flows) {
        never_seen(state, words);
        return 0;
    }

    __u32 number = state->first + state->turn;
    struct bench_flow *flow = bench_flows.lookup(&number);

    if (!flow)
        return -1;
    words[ADDRESSES] = flow->addresses;
    words[PORTS_AND_SEQUENCE] = flow->ports_and_sequence;
    if (++state->turn >= state->flows)
        state->turn = 0;
    return 0;
}

#define RENEW(ctx) renew((void *)(long)(ctx)->data, (void *)(long)(ctx)->data_end)

int bench_public_empty(struct xdp_md *ctx) {
    return XDP_DROP;
}

int bench_public_floor(struct xdp_md *ctx) {
    return RENEW(ctx) ? XDP_ABORTED : XDP_DROP;
}

int bench_public_parse(struct xdp_md *ctx) {
    struct packet packet = {};

    if (RENEW(ctx))
        return XDP_ABORTED;

    struct cursor cursor = {
        .at = (void *)(long)ctx->data,
        .end = (void *)(long)ctx->data_end,
        .left = ctx->data_end - ctx->data,
    };

    count(parse(cursor, &packet) == UNDECIDED ? packet.ip->saddr & 1 : NOT_TCP);
    return XDP_DROP;
}

int bench_public(struct xdp_md *ctx) {
    return RENEW(ctx) ? XDP_ABORTED : public_side(ctx);
}

int bench_private_floor(struct __sk_buff *skb) {
    return RENEW(skb) ? TC_ACT_UNSPEC : TC_ACT_OK;
}

int bench_private(struct __sk_buff *skb) {
    return RENEW(skb) ? TC_ACT_UNSPEC : private_side(skb);
}
