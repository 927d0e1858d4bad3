// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Programs for bench/packet.py, compiled behind the text of bpf/ in one source.
 *
 * The kernel does not renew a packet between the repeats of a test run, and a load balancer changes it. So what is
 * timed is a program that takes back what the last packet's treatment has done to the head of the frame, writes the
 * packet anew, with the addresses and ports of the next flow, and jumps into the program in question, the very one that
 * is attached in production. Its floor is the same, with an empty program to jump into.
 *
 * Words begin where each field of a header lies within one word (START): then reading it back does not have to wait for
 * two stores, as it does not have to for a packet that a driver hands over.
 */
#define WORDS(version) ((version) == 4 ? 7 : 9)      /* headers of Ethernet, IP and TCP */
#define START(version) ((version) == 4 ? 2 : 6)      /* where in the frame they begin */
#define ADDRESS_WORD(version) 3                      /* IPv4: both addresses, IPv6: the lower half of the source's */
#define PORTS_WORD(version) ((version) == 4 ? 4 : 6) /* both ports, and the sequence number */
#define WORDS_MAX 9
#define BENCH_FLOWS ((1 << 21) + 1)

struct bench_flow {
    __u64 address;
    __u64 ports;
};

struct bench_state {
    __u64 words[WORDS_MAX];
    __u32 length; /* of the frame */
    __u32 first;  /* of the flows that take turns, */
    __u32 flows;  /* and how many they are; 0: each packet is of a flow never seen before */
    __u32 turn;
    __u64 sunk; /* packets that arrived through a wire */
};

BPF_ARRAY(bench_state, struct bench_state, 1);
BPF_F_TABLE("array", __u32, struct bench_flow, bench_flows, BENCH_FLOWS, BPF_F_MMAPABLE);
BPF_PROG_ARRAY(bench_xdp, 1);
BPF_PROG_ARRAY(bench_tc, 1);
BPF_DEVMAP(bench_wires, 2); /* to the load balancer, from it to the node */

/* A client and a port of its own for each number. */
static __always_inline void never_seen(struct bench_state *state, struct bench_flow *flow, const int version) {
    __u32 number = state->turn++;
    __u64 client = bpf_htonl(number & 0xffffff);

    flow->address = state->words[ADDRESS_WORD(version)] + (version == 4 ? client : client << 32);
    flow->ports = (state->words[PORTS_WORD(version)] & ~0xffffULL) | bpf_htons(1024 + number % 64512);
}

static __always_inline int renew(void *data, void *end, const int version) {
    __u32 zero = 0;
    struct bench_state *state = bench_state.lookup(&zero);
    __u64 *words = data + START(version);
    struct bench_flow fresh;

    if (!state || (void *)(words + WORDS(version)) > end)
        return -1;
    if (state->flows) {
        __u32 number = state->first + state->turn;
        struct bench_flow *flow = bench_flows.lookup(&number);

        if (!flow)
            return -1;
        fresh = *flow;
        if (++state->turn >= state->flows)
            state->turn = 0;
    } else {
        never_seen(state, &fresh, version);
    }
    for (int i = 0; i < WORDS(version); i++)
        words[i] = i == ADDRESS_WORD(version) ? fresh.address
                   : i == PORTS_WORD(version) ? fresh.ports
                                              : state->words[i];
    return 0;
}

static __always_inline int take_back(struct xdp_md *ctx) {
    __u32 zero = 0;
    struct bench_state *state = bench_state.lookup(&zero);
    long length = (long)ctx->data_end - (long)ctx->data;

    if (!state)
        return -1;
    asm volatile("" : "+r"(length)); /* LLVM would compare pointers of a packet, which the verifier refuses */
    length -= state->length;
    return length ? bpf_xdp_adjust_head(ctx, (int)length) : 0;
}

static __always_inline int public_bench(struct xdp_md *ctx, const int version) {
    if (take_back(ctx) || renew((void *)(long)ctx->data, (void *)(long)ctx->data_end, version))
        return XDP_ABORTED;
    bench_xdp.call(ctx, 0);
    return XDP_ABORTED;
}

int bench_public4(struct xdp_md *ctx) {
    return public_bench(ctx, 4);
}

int bench_public6(struct xdp_md *ctx) {
    return public_bench(ctx, 6);
}

int bench_empty(struct xdp_md *ctx) {
    return XDP_DROP;
}

int bench_parse(struct xdp_md *ctx) {
    struct packet packet = {.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
    int protocol = parse_frame(&packet), version = protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
    enum verdict verdict = MALFORMED;

    if (version == 4)
        verdict = parse_ip(&packet, packet.end - (void *)packet.ip, 4, false);
    else if (protocol == bpf_htons(ETH_P_IPV6))
        verdict = parse_ip(&packet, packet.end - (void *)packet.ip, 6, false);
    if (verdict == UNDECIDED)
        verdict = parse_ports(&packet, false);
    count(verdict == UNDECIDED ? packet.source.bytes[15] & packet.destination_port & 1 : verdict);
    return XDP_DROP;
}

#if WITH_L4
/* With `verified` the kernel is told what a network card would tell it: that the transport checksum is right. */
static __always_inline int private_bench(struct __sk_buff *skb, const int version, const bool verified) {
    if (verified)
        bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
    if (renew((void *)(long)skb->data, (void *)(long)skb->data_end, version))
        return TC_ACT_SHOT;
    bench_tc.call(skb, 0);
    return TC_ACT_SHOT;
}

int bench_private4(struct __sk_buff *skb) {
    return private_bench(skb, 4, false);
}

int bench_private6(struct __sk_buff *skb) {
    return private_bench(skb, 6, false);
}

int bench_verified4(struct __sk_buff *skb) {
    return private_bench(skb, 4, true);
}

int bench_verified6(struct __sk_buff *skb) {
    return private_bench(skb, 6, true);
}

int bench_empty_tc(struct __sk_buff *skb) {
    return TC_ACT_OK;
}
#endif

/* Through wires: a source of frames, the least a forwarder can do, and a sink. */
int bench_send(struct xdp_md *ctx) {
    if (renew((void *)(long)ctx->data, (void *)(long)ctx->data_end, 4))
        return XDP_DROP;
    return bench_wires.redirect_map(0, 0);
}

int bench_redirect(struct xdp_md *ctx) {
    __u64 *start = (void *)(long)ctx->data;
    struct ethhdr *eth = (void *)start;

    if ((void *)(eth + 1) > (void *)(long)ctx->data_end || eth->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    *start = 0x0202000000000002ULL;
    *(__u32 *)(start + 1) = 1;
    return bench_wires.redirect_map(1, 0);
}

int bench_sink(struct xdp_md *ctx) {
    __u32 zero = 0;
    struct bench_state *state = bench_state.lookup(&zero);

    if (state)
        state->sunk++;
    return XDP_DROP;
}
