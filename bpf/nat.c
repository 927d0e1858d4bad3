// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Mode l4: network address translation in both directions.
 *
 *     client -> public side (XDP)   listener -> flow -> node: from the load balancer's own address to the node
 *     node   -> private side (TC)   return path: from the service to the client
 *
 * What is for a client goes by helpers of the kernel, which know what only it can see: whether a checksum is whole, or
 * the pseudo header's sum alone, to be completed by the network card (CHECKSUM_PARTIAL, which is how segments of a
 * local sender and merged segments arrive; ports are not in that sum). They cost half of what such a packet costs, so
 * where the card says that it has verified the sum (CHECKSUM_UNNECESSARY), which is then whole, they are not asked.
 */

/* The address nodes see, and answer to. */
static __always_inline union address own_address(const int version) {
    if (version == 4)
        return address4(SOURCE_ADDRESS);
    return (union address){.halves = {SOURCE6_0, SOURCE6_1}};
}

static __always_inline const struct hop *hop_to(const struct node *node, const int version) {
    return version == 4 ? &node->hop4 : &node->hop6;
}

/* Both ends of a node's way have an address of this version. */
static __always_inline bool both_have(const struct node *node, const int version) {
    return has_address(node, version) && (version == 4 || HAS_SOURCE6);
}

/*
 * Redirected by a map of interfaces rather than by an interface's number, which the kernel would look up once more: 6 %
 * less per packet, from driver to driver.
 */
static __always_inline enum verdict send_to_node(struct xdp_md *ctx, const struct packet *packet, const struct hop *hop,
                                                 enum verdict sent) {
    if (links.redirect_map(hop->link, 0) != XDP_REDIRECT)
        return NO_NEIGHBOUR;
    return leave_xdp(ctx, packet, hop->macs, hop->vlan) ? sent : MALFORMED;
}

static __always_inline struct return_path wanted_path(const struct packet *packet, const struct listener *listener,
                                                      __u16 number, const struct node *node, __u32 node_number,
                                                      const int version) {
    union address address = node_address(node, version);

    return (struct return_path){
        .node = fingerprint(&address, version),
        .node_port = listener->target_port,
        .protocol = packet->protocol,
        .number = node_number,
        .client_port = packet->source_port,
        .listener = number,
        .client = packet->source,
    };
}

/* While a start converts the tables, a flow may only seem to be missing. */
static __always_inline bool taking_over(__u32 now) {
    __u32 zero = 0;
    __u32 *until = takeover.lookup(&zero);

    return until && *until && (__s32)(*until - now) > 0;
}

/* There is a way to the node, for packets of this size. */
static __always_inline bool fits(const struct packet *packet, const struct node *node, const int version) {
    const struct hop *hop = hop_to(node, version);

    return hop->link != NO_LINK && packet->length <= hop->mtu;
}

/* A packet of a client, to the node of its flow, or to one that is chosen now. */
static __always_inline enum verdict nat_forward(struct xdp_md *ctx, struct packet *packet,
                                                const struct listener *listener, __u16 number, const int version,
                                                const bool dry) {
    __u32 now = bpf_jiffies64();
    struct found found;
    struct node *node = NULL;
    enum verdict verdict = NO_FLOW;

    if (unlikely(hops_left(packet, version) <= 1))
        return TTL_EXPIRED;
    if (likely(find_flow(&packet->source, packet->source_port, number, &found))) {
        if (dry)
            explain_flow(found.node, found.source_port, found.word);
        node = node_of(&found);
        verdict = node ? FORWARDED : NODE_GONE;
        if (node && unlikely(!tells_nothing(packet, found.word, now)) &&
            !follow(packet, listener, number, &found, node, now, version, dry || !fits(packet, node, version))) {
            node = NULL;
            verdict = NO_FLOW;
        }
    }
    if (!node) {
        if (!opens(packet))
            return verdict == NO_FLOW && taking_over(now) ? TAKING_OVER : verdict;
        node = choose_node(listener, &packet->source, packet->source_port, version, &found.node, dry);
        verdict = OPENED;
        if (!node)
            return NO_NODE;
        if (!both_have(node, version))
            return NO_ADDRESS6;
    }

    const struct hop *hop = hop_to(node, version);

    if (hop->link == NO_LINK)
        return NO_NEIGHBOUR;
    if (unlikely(packet->length > hop->mtu))
        return too_big(ctx, packet, hop->mtu, version, dry);
    if (unlikely(verdict == OPENED)) {
        struct return_path path = wanted_path(packet, listener, number, node, found.node, version);
        enum verdict refused = open_flow(packet, &path, node->birth, now, dry);

        if (refused != UNDECIDED)
            return refused;
        found.source_port = path.source_port;
        found.word = 0;
        if (dry)
            explain_flow(found.node, found.source_port, 0);
        if (!find_again(packet, version))
            return MALFORMED;
    }

    struct ends ends = {
        .source = own_address(version),
        .destination = node_address(node, version),
        .source_port = found.source_port,
        .destination_port = listener->target_port,
    };

    apply_changes(packet, rewrite(packet, &ends, version));
    if (!dry)
        count_traffic(listener->service, found.node, IN, packet->length, verdict == OPENED);
    return send_to_node(ctx, packet, hop, verdict);
}

/* A return path as it stood together, as far as answers need it. */
struct answer {
    struct return_path *path;
    __u64 word;
    union address client;
    __be16 client_port;
    __u16 listener;
    __u16 node;
    __u8 tags;
    __be16 vlan[2];
    __u32 macs[3];
};

static __always_inline bool find_answer(const union address *node, __be16 node_port, __be16 source_port, __u8 protocol,
                                        const int version, struct answer *answer) {
    __u64 print = fingerprint(node, version);
    __u32 place = return_place(return_base(print, node_port, protocol), source_port);
    struct return_path *path = returns.lookup(&place);

    if (!path)
        return false;

    __u64 word = read_word(&path->word);

    if (!(word & USED) || !is_return_path(path, print, node_port, source_port, protocol))
        return false;
    answer->path = path;
    answer->word = word;
    answer->client = path->client;
    answer->client_port = path->client_port;
    answer->listener = path->listener;
    answer->node = path->number;
    answer->tags = path->tags;
    *(__u32 *)answer->vlan = *(const __u32 *)path->vlan;
    for (int word32 = 0; word32 < 3; word32++)
        answer->macs[word32] = ((const __u32 *)path->macs)[word32];
    return same_version(word, read_word(&path->word));
}

/*
 * A SYN/ACK with a number of its own begins a life: the flow's key may have been in use before. One that is sent again
 * does not.
 */
static __always_inline void see_synack(const struct packet *packet, const struct answer *answer, __u32 now) {
    const struct tcphdr *tcp = packet->transport;
    struct return_path *path = answer->path;

    if ((void *)(tcp + 1) > packet->end)
        return;

    __be32 isn = bpf_htonl(bpf_ntohl(tcp->seq) + 1);
    __u64 fresh = (answer->word & ~(ESTABLISHED | ENDED | CLIENT_FIN | NODE_FIN | WORD_STAMP)) | ANSWERED | now;

    if (answer->word & ANSWERED && path->isn == isn)
        return;
    path->isn = isn;
    __sync_val_compare_and_swap(&path->word, answer->word, fresh);
    if (answer->word & (ESTABLISHED | ENDED))
        change_flow(path, 0, ESTABLISHED | ENDED, false);
}

/* Follows a flow by a packet of its node. */
static __always_inline void see_answer(const struct packet *packet, const struct answer *answer, __u32 now) {
    __u64 word = answer->word, shown = packet->protocol == IPPROTO_UDP ? ANSWERED : 0;

    if (packet->tcp_flags & TCP_SYN) {
        see_synack(packet, answer, now);
        return;
    }
    if (packet->tcp_flags & TCP_RST)
        shown |= ENDED;
    if (packet->tcp_flags & TCP_FIN)
        shown |= NODE_FIN;
    if (note(&answer->path->word, word, shown, now, renewal(word)) & ENDED & ~word)
        change_flow(answer->path, ENDED, 0, false);
}

/* From the start of the frame. */
static __always_inline __u32 transport_at(const struct packet *packet) {
    return sizeof(struct ethhdr) + packet->tags * sizeof(struct vlan_tag) + packet->transport_offset;
}

/* The transport checksum. The packet's pointers may be stale behind this. */
static __always_inline void apply_changes_back(struct __sk_buff *skb, const struct packet *packet,
                                               struct csum_changes changes) {
    bool udp = packet->protocol == IPPROTO_UDP;
    __u32 check_at = transport_at(packet) + (udp ? UDP_CHECK : TCP_CHECK);
    __u64 zero_stays = udp ? BPF_F_MARK_MANGLED_0 : 0;

    if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0) {
        apply_changes(packet, changes);
        return;
    }
    bpf_l4_csum_replace(skb, check_at, 0, csum_fold(changes.addresses), BPF_F_PSEUDO_HDR | zero_stays);
    if (!csum_unchanged(changes.ports))
        bpf_l4_csum_replace(skb, check_at, 0, csum_fold(changes.ports), zero_stays);
}

/* VLAN tags as the client's frames have them, and out. */
static __always_inline bool send_to_client(struct __sk_buff *skb, const struct packet *packet,
                                           const struct answer *answer) {
    __u32 on = packet->tags + !!skb->vlan_present, off = answer->tags & TAGS;

#pragma unroll
    for (__u32 tag = 0; tag <= TAGS_MAX; tag++)
        if (tag < on && bpf_skb_vlan_pop(skb))
            return false;
    if (off > 1 && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), bpf_ntohs(answer->vlan[1])))
        return false;
    if (off && bpf_skb_vlan_push(skb, bpf_htons(answer->tags & OUTER_8021AD ? ETH_P_8021AD : ETH_P_8021Q),
                                 bpf_ntohs(answer->vlan[0])))
        return false;
    return bpf_redirect(PUBLIC_IFINDEX, 0) == TC_ACT_REDIRECT;
}

static __always_inline void set_way(const struct packet *packet, const struct answer *answer) {
    __u32 *eth = (__u32 *)packet->eth;

    for (int word = 0; word < 3; word++)
        eth[word] = answer->macs[word];
}

static __always_inline bool is_own(const union address *address, const int version) {
    union address own = own_address(version);

    return address_equal(address, &own);
}

/* A packet of a node, to the client of its flow. */
static __always_inline enum verdict nat_return(struct __sk_buff *skb, struct packet *packet, const int version,
                                               const bool dry) {
    __u32 now = bpf_jiffies64();
    struct answer answer;

    if (!is_own(&packet->destination, version) ||
        !find_answer(&packet->source, packet->source_port, packet->destination_port, packet->protocol, version,
                     &answer))
        return NOT_A_REPLY;

    const struct listener *listener = listener_at(answer.listener);

    if (!listener)
        return NOT_A_REPLY;
    if (hops_left(packet, version) <= 1)
        return TTL_EXPIRED;

    __u16 carried = exceeded(skb, packet);

    if (dry) {
        explain_listener(answer.listener, listener);
        explain_flow(answer.node, packet->destination_port, answer.word);
    }
    if (unlikely(carried))
        return too_big_back(skb, packet, carried, version, dry);
    if (!dry) {
        if (unlikely(packet->fragment == FIRST))
            remember_ports(packet, version);
        see_answer(packet, &answer, now);
        count_traffic(listener->service, answer.node, OUT, packet->length, false);
    }

    struct ends ends = {
        .source = listener->address,
        .destination = answer.client,
        .source_port = listener->port,
        .destination_port = answer.client_port,
    };
    struct csum_changes changes = rewrite(packet, &ends, version);

    set_way(packet, &answer);
    if (likely(packet->fragment != LATER))
        apply_changes_back(skb, packet, changes);
    return send_to_client(skb, packet, &answer) ? RETURNED : NO_ROOM;
}
