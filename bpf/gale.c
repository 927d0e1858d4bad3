// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The path of a packet, and the programs.
 *
 *     client -> public side (XDP)   frame -> IP -> ports -> listener -> its mode: dsr.c (l2, l3) or nat.c (l4)
 *     node   -> private side (TC)   l4 only: return path -> client
 *
 * A packet for no service leaves as it came. An ICMP error is for whoever sent the packet that it quotes.
 */

/* The packet that an ICMP error quotes, or why there is none to be had. */
static __always_inline enum verdict parse_quoted(const struct packet *error, struct packet *quoted, const int version) {
    quoted->data = error->data;
    quoted->end = error->end;
    quoted->ip = error->transport + sizeof(struct icmp_header);
    if (parse_ip(quoted, 0, version, true) != UNDECIDED || quoted->fragment == LATER)
        return UNRELATED_ERROR;
    if (quoted->protocol != IPPROTO_TCP && quoted->protocol != IPPROTO_UDP)
        return UNRELATED_ERROR;
    if (error->transport_offset + sizeof(struct icmp_header) + quoted->transport_offset + QUOTED_BYTES > error->length)
        return UNRELATED_ERROR;
    return parse_ports(quoted, true) == UNDECIDED ? UNDECIDED : UNRELATED_ERROR;
}

/* An ICMP error, or UNDECIDED for what is none. Only errors that are whole are looked into. */
static __always_inline enum verdict parse_error(const struct packet *packet, struct packet *quoted, const int version) {
    const struct icmp_header *icmp = packet->transport;

    if (packet->fragment != WHOLE || packet->length - packet->transport_offset < sizeof(*icmp) ||
        (void *)(icmp + 1) > packet->end || !is_icmp_error(icmp->type, version))
        return OTHER_PROTOCOL;
    return parse_quoted(packet, quoted, version);
}

/*
 * A service whose mode or target port has changed: flows of the listener it was go on, new ones are the present one's.
 * A flow of l4 is known by its entry, until it is over, for then its client may have used the port again; what was
 * stateless goes on so until its client opens it anew. `begins`: the packet may open a flow.
 */
static __always_inline __u16 present_or_earlier(const struct directory *known, const union address *client,
                                                __be16 client_port, __u32 protocol, bool begins, __u16 present) {
    __u16 earlier = known->listeners[present & (LISTENERS - 1)].earlier & (LISTENERS - 1);
    struct found found;

    if (protocol == IPPROTO_TCP && begins)
        return present;
    for (int turn = 0; turn < 2; turn++) {
        __u16 number = turn ? earlier : present;

        if (known->listeners[number & (LISTENERS - 1)].mode == L4 && find_flow(client, client_port, number, &found) &&
            !life_over(found.word, protocol, bpf_jiffies64()))
            return number;
    }
    return known->listeners[earlier].mode == L4 || begins ? present : earlier;
}

/* An error about what a service sent: its source is the listener. It comes to the address that it is about. */
static __always_inline enum verdict public_error(struct xdp_md *ctx, struct packet *packet, const int version,
                                                 const bool dry) {
    struct packet quoted = {}; /* else LLVM looks at its ports before it knows whether there are any */
    enum verdict verdict = parse_error(packet, &quoted, version);
    __u32 zero = 0;
    struct directory *known = directory.lookup(&zero);

    if (verdict != UNDECIDED)
        return verdict;
    if (!known || !address_equal(&packet->destination, &quoted.source))
        return UNRELATED_ERROR;

    __u16 number = find_listener(known, &quoted.source, quoted.source_port, quoted.protocol);

    if (number == NO_LISTENER)
        return UNRELATED_ERROR;
    if (WITH_L4 && known->listeners[number & (LISTENERS - 1)].earlier)
        number =
            present_or_earlier(known, &quoted.destination, quoted.destination_port, quoted.protocol, false, number);

    const struct listener *listener = &known->listeners[number & (LISTENERS - 1)];

    if (dry)
        explain_listener(number, listener);
    if (hops_left(packet, version) <= 1)
        return TTL_EXPIRED;
    if (WITH_L4 && listener->mode == L4)
        return nat_error(ctx, packet, &quoted, listener, number, version, dry);
    return dsr_error(ctx, packet, &quoted, listener, version, dry);
}

/* The ports of a packet of TCP or UDP; a later fragment has those of its first, if that came here. */
static __always_inline enum verdict find_ports(struct packet *packet, const int version) {
    if (likely(packet->fragment != LATER))
        return parse_ports(packet, false);
    return recall_ports(packet, version) ? UNDECIDED : LATER_FRAGMENT;
}

static __always_inline enum verdict by_mode(struct xdp_md *ctx, struct packet *packet, const struct listener *listener,
                                            __u16 number, const int version, const bool dry) {
    if (WITH_L4 && listener->mode == L4)
        return nat_forward(ctx, packet, listener, number, version, dry);
    return dsr_forward(ctx, packet, listener, version, dry);
}

static __always_inline enum verdict public_packet(struct xdp_md *ctx, struct packet *packet, const int version,
                                                  const bool dry) {
    enum verdict verdict = parse_ip(packet, packet->end - (void *)packet->ip, version, false);

    if (verdict != UNDECIDED)
        return verdict;
    if (is_icmp(packet->protocol, version))
        return public_error(ctx, packet, version, dry);
    if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
        return OTHER_PROTOCOL;
    verdict = find_ports(packet, version);
    if (verdict != UNDECIDED)
        return verdict;

    __u32 zero = 0;
    struct directory *known = directory.lookup(&zero);

    if (!known)
        return NO_SERVICE;

    __u16 number = find_listener(known, &packet->destination, packet->destination_port, packet->protocol);

    if (number == NO_LISTENER)
        return NO_SERVICE;
    if (WITH_L4 && unlikely(known->listeners[number & (LISTENERS - 1)].earlier))
        number =
            present_or_earlier(known, &packet->source, packet->source_port, packet->protocol, opens(packet), number);
    if (dry)
        explain_listener(number, &known->listeners[number & (LISTENERS - 1)]);
    if (unlikely(packet->fragment == FIRST) && !dry)
        remember_ports(packet, version);
    return by_mode(ctx, packet, &known->listeners[number & (LISTENERS - 1)], number, version, dry);
}

static __always_inline enum verdict public_frame(struct xdp_md *ctx, const bool dry) {
    struct packet packet = {.data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
    int protocol = parse_frame(&packet);

    if (likely(protocol == bpf_htons(ETH_P_IP)))
        return public_packet(ctx, &packet, 4, dry);
    if (protocol == MALFORMED_FRAME)
        return MALFORMED;
    if (WITH_IPV6 && protocol == bpf_htons(ETH_P_IPV6))
        return public_packet(ctx, &packet, 6, dry);
    return NOT_IP;
}

static __always_inline int public_side(struct xdp_md *ctx) {
    enum verdict verdict = public_frame(ctx, false);
    enum action action = action_of(verdict);

    count(verdict);
    if (action == REPLY)
        return links.redirect_map(PUBLIC_LINK, XDP_DROP);
    return action == REDIRECT ? XDP_REDIRECT : action == PASS ? XDP_PASS : XDP_DROP;
}

#ifdef WITH_EXPLAIN /* a build of its own, for nobody who forwards needs it */
/* It sends nothing, whatever the verdict: who asks finds that in the map, and the packet in what is left of it. */
int gale_explain_public(struct xdp_md *ctx) {
    explain_nothing();
    explain_verdict(public_frame(ctx, true));
    return XDP_DROP;
}
#else
int gale_public(struct xdp_md *ctx) {
    return public_side(ctx);
}
#endif

#if WITH_L4
/* So much of a packet is always made readable: some drivers leave headers outside of the part that is. */
#define HEADERS 256

static __always_inline enum verdict private_packet(struct __sk_buff *skb, struct packet *packet, const int version,
                                                   const bool dry) {
    if (parse_ip(packet, skb->len - ((void *)packet->ip - packet->data), version, false) != UNDECIDED)
        return NOT_A_REPLY;
    if (is_icmp(packet->protocol, version)) {
        struct packet quoted;

        if (parse_error(packet, &quoted, version) != UNDECIDED)
            return NOT_A_REPLY;
        return nat_error_back(skb, packet, &quoted, version, dry);
    }
    if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
        return NOT_A_REPLY;
    if (find_ports(packet, version) != UNDECIDED)
        return NOT_A_REPLY;
    return nat_return(skb, packet, version, dry);
}

static __always_inline enum verdict private_frame(struct __sk_buff *skb, const bool dry) {
    __u32 readable = skb->data_end - skb->data;

    if (unlikely(readable < HEADERS && readable < skb->len))
        bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);

    struct packet packet = {.data = (void *)(long)skb->data, .end = (void *)(long)skb->data_end};
    int protocol = parse_frame(&packet);

    if (protocol == bpf_htons(ETH_P_IP))
        return private_packet(skb, &packet, 4, dry);
    if (WITH_IPV6 && protocol == bpf_htons(ETH_P_IPV6))
        return private_packet(skb, &packet, 6, dry);
    return NOT_A_REPLY;
}

/* What is passed goes to the filters behind this one as well. */
static __always_inline int private_side(struct __sk_buff *skb) {
    enum verdict verdict = private_frame(skb, false);
    enum action action = action_of(verdict);

    count(verdict);
    return action == REDIRECT || action == REPLY ? TC_ACT_REDIRECT : action == PASS ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

#ifdef WITH_EXPLAIN
int gale_explain_private(struct __sk_buff *skb) {
    explain_nothing();
    explain_verdict(private_frame(skb, true));
    return TC_ACT_SHOT;
}
#else
int gale_private(struct __sk_buff *skb) {
    return private_side(skb);
}
#endif
#endif
