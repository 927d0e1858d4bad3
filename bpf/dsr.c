// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Modes l2 and l3: the packet reaches the node with the service's address, and the node answers its client directly.
 * There is no state: hash -> slot -> node, on every load balancer the same, for every packet anew. So any load balancer
 * may take any packet of a flow. Where a slot has moved lately, connections that are open stay with their node
 * (moved.h).
 *
 * l2 changes MAC addresses and nothing else, like a bridge; the node must be on the link. l3 puts the packet into a
 * tunnel (encap.h) to a node anywhere, and is one hop of its way.
 *
 * ICMP errors about what a node sent go to that node: the packet they quote is the node's, so its flow is that packet's
 * turned round.
 */

/* The way to the node that needs no router; IPv6's where there is none by IPv4. */
static __always_inline enum verdict bridge(struct xdp_md *ctx, const struct packet *packet, const struct node *node,
                                           const int version, const bool dry) {
    const struct hop *hop = likely(node->hop4.link != NO_LINK) ? &node->hop4 : &node->hop6;
    int redirected = links.redirect_map(hop->link, 0);

    if (unlikely(redirected != XDP_REDIRECT))
        return NO_NEIGHBOUR;
    if (unlikely(!hop->on_link))
        return NOT_ON_LINK;
    if (unlikely(packet->length > hop->mtu))
        return too_big(ctx, packet, hop->mtu, version, dry);
    return likely(leave_xdp(ctx, packet, hop->macs, hop->vlan)) ? BRIDGED : MALFORMED;
}

/* By `outer`, the IP version of the tunnel. */
static __always_inline enum verdict tunnel_by(struct xdp_md *ctx, const struct packet *packet, const struct node *node,
                                              const int outer, const int version, const bool dry) {
    const struct hop *hop = outer == 4 ? &node->hop4 : &node->hop6;
    const __u32 header = outer == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
    __u16 inside = packet->length;
    int redirected = links.redirect_map(hop->link, 0);

    if (unlikely(redirected != XDP_REDIRECT))
        return NO_NEIGHBOUR;
    if (unlikely(inside + header > hop->mtu))
        return too_big(ctx, packet, hop->mtu - header, version, dry);

    __u8 class = traffic_class(packet, version);

    one_hop_less(packet, version);
    if (unlikely(bpf_xdp_adjust_head(ctx, tags_move(packet, hop->vlan) - (int)header)))
        return MALFORMED;

    void *end = (void *)(long)ctx->data_end;
    void *start = write_start((void *)(long)ctx->data, end, hop->macs, hop->vlan, ether_type(outer));

    if (!start || start + header > end)
        return MALFORMED;
    if (outer == 4)
        write_outer4(start, class, inside, inner_protocol(version), node->address);
    else
        write_outer6(start, class, inside, inner_protocol(version), &node->address6);
    return TUNNELLED;
}

/* Where the tunnel that was asked for cannot be, for want of an address at one of its ends, it is IPv4. */
static __always_inline enum verdict tunnel(struct xdp_md *ctx, const struct packet *packet, __u8 asked,
                                           const struct node *node, const int version, const bool dry) {
    if (HAS_SOURCE6 && asked == 6 && has_address(node, 6))
        return tunnel_by(ctx, packet, node, 6, version, dry);
    return tunnel_by(ctx, packet, node, 4, version, dry);
}

/* The packet goes to the node of this client's flow. */
static __always_inline enum verdict to_node_of(struct xdp_md *ctx, const struct packet *packet,
                                               const union address *client, __be16 client_port,
                                               const struct listener *listener, const int version, const bool dry) {
    struct slot slot;

    if (!find_slot(listener, client, client_port, version, &slot, dry))
        return NO_NODE;

    __u32 number = slot.owner;
    struct node *node = unlikely(number & MOVED)
                            ? node_of_moved(packet, client, client_port, listener, &slot, &number, dry)
                            : node_at(number);

    if (unlikely(!node))
        return NO_NODE;
    if (dry)
        explain_node(number & ~MOVED);

    __u32 bytes = packet->length;
    bool opens = packet->protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    enum verdict verdict = WITH_L2 && (!WITH_L3 || listener->mode == L2)
                               ? bridge(ctx, packet, node, version, dry)
                               : tunnel(ctx, packet, listener->tunnel, node, version, dry);

    if (verdict != BRIDGED && verdict != TUNNELLED)
        return verdict;
    if (!dry)
        count_traffic(listener->service, number & ~MOVED, IN, bytes, opens);
    return unlikely(number & MOVED) ? STAYED : verdict;
}

static __always_inline enum verdict dsr_forward(struct xdp_md *ctx, const struct packet *packet,
                                                const struct listener *listener, const int version, const bool dry) {
    if (unlikely(hops_left(packet, version) <= 1))
        return TTL_EXPIRED;
    return to_node_of(ctx, packet, &packet->source, packet->source_port, listener, version, dry);
}

/* `quoted`: the packet that the error is about, sent by a node from the listener's address. */
static __always_inline enum verdict dsr_error(struct xdp_md *ctx, const struct packet *packet,
                                              const struct packet *quoted, const struct listener *listener,
                                              const int version, const bool dry) {
    enum verdict verdict =
        to_node_of(ctx, packet, &quoted->destination, quoted->destination_port, listener, version, dry);

    return verdict == BRIDGED || verdict == TUNNELLED || verdict == STAYED ? ERROR_FORWARDED : verdict;
}
