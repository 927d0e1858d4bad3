// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * ICMP errors in l4, in both directions. An error quotes the packet that it is about, as whoever reports it saw it; who
 * sent that packet knows it by other addresses and ports, so they are changed outside and inside, and every checksum
 * there is stays right: of both IPv4 headers, of the quoted transport header as far as it is quoted, and of ICMP, which
 * covers what is quoted, in IPv6 also the outer addresses.
 *
 * To its receiver the error comes from the one that it speaks with: from the load balancer, or from the service.
 */

/* The checksum of a quoted transport header, if so much of it is quoted. */
static __always_inline __be16 *quoted_check(const struct packet *error, const struct packet *quoted) {
    void *check = quoted->transport + (quoted->protocol == IPPROTO_UDP ? UDP_CHECK : TCP_CHECK);
    __u32 end = quoted->transport_offset + TCP_CHECK + sizeof(__be16) + sizeof(struct icmp_header);

    if (quoted->protocol == IPPROTO_TCP && error->transport_offset + end > error->length)
        return NULL;
    return check + sizeof(__be16) <= error->end ? check : NULL;
}

/* Returns by how much the sum over all that is quoted changes. */
static __always_inline __u64 rewrite_quoted(const struct packet *error, const struct packet *quoted,
                                            const struct ends *ends, const int version) {
    __be16 *check = quoted_check(error, quoted), before = version == 4 ? quoted->ip->check : 0;
    __u64 addresses = rewrite_addresses(quoted, ends, version), ports = rewrite_ports(quoted, ends);
    __u64 change = addresses + ports;

    if (version == 4)
        change += csum_change16(before, quoted->ip->check);
    if (check) {
        before = *check;
        if (quoted->protocol == IPPROTO_UDP)
            apply_udp(check, addresses + ports);
        else
            *check = csum_apply(before, addresses + ports);
        change += csum_change16(before, *check);
    }
    return change;
}

/* `outer`: the new addresses of the error, `inner`: those of the packet that it quotes. */
static __always_inline void rewrite_error(const struct packet *error, const struct packet *quoted,
                                          const struct ends *outer, const struct ends *inner, const int version) {
    struct icmp_header *icmp = error->transport;
    __u64 change = rewrite_quoted(error, quoted, inner, version), addresses = rewrite_addresses(error, outer, version);

    take_hop(error, version);
    icmp->check = csum_apply(icmp->check, change + (version == 6 ? addresses : 0));
}

/* About what a node sent to a client: from anyone out there, to that node. */
static __always_inline enum verdict nat_error(struct xdp_md *ctx, struct packet *packet, const struct packet *quoted,
                                              const struct listener *listener, __u16 number, const int version,
                                              const bool dry) {
    struct found found;
    struct node *node;

    if (!find_flow(&quoted->destination, quoted->destination_port, number, &found))
        return UNRELATED_ERROR;
    if (dry)
        explain_flow(found.node, found.source_port, found.word);
    node = node_of(&found);
    if (!node)
        return NODE_GONE;

    const struct hop *hop = hop_to(node, version);
    struct ends inner = {
        .source = node_address(node, version),
        .destination = own_address(version),
        .source_port = listener->target_port,
        .destination_port = found.source_port,
    };
    struct ends outer = {.source = inner.destination, .destination = inner.source};

    if (hop->link == NO_LINK)
        return NO_NEIGHBOUR;
    rewrite_error(packet, quoted, &outer, &inner, version);
    if (!dry)
        count_traffic(listener->service, found.node, IN, packet->length, false);
    return send_to_node(ctx, packet, hop, ERROR_FORWARDED);
}

/* About what a client sent to a node: from the node or a router on the way to it, to that client. */
static __always_inline enum verdict nat_error_back(struct __sk_buff *skb, struct packet *packet,
                                                   const struct packet *quoted, const int version, const bool dry) {
    struct answer answer;

    if (!is_own(&packet->destination, version) || !is_own(&quoted->source, version) ||
        !find_answer(&quoted->destination, quoted->destination_port, quoted->source_port, quoted->protocol, version,
                     &answer))
        return NOT_A_REPLY;

    const struct listener *listener = listener_at(answer.listener);

    if (!listener)
        return NOT_A_REPLY;
    if (dry) {
        explain_listener(answer.listener, listener);
        explain_flow(answer.node, quoted->source_port, answer.word);
    }
    if (hops_left(packet, version) <= 1)
        return TTL_EXPIRED;

    struct ends inner = {
        .source = answer.client,
        .destination = listener->address,
        .source_port = answer.client_port,
        .destination_port = listener->port,
    };
    struct ends outer = {.source = inner.destination, .destination = inner.source};

    rewrite_error(packet, quoted, &outer, &inner, version);
    set_way(packet, &answer);
    if (!dry)
        count_traffic(listener->service, answer.node, OUT, packet->length, false);
    return send_to_client(skb, packet, &answer) ? ERROR_RETURNED : NO_ROOM;
}
