// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* From a flow of a slot that has moved to its node: moved.h says why. */

/* NULL if the node has gone, even when another one has its number now. */
static __always_inline struct node *node_born(__u32 number, __u8 birth) {
    struct node *node = node_at(number);

    return node && node->birth == birth ? node : NULL;
}

/* A SYN has gone to the owner. A flood of them makes entries only while the slot learns. */
static __always_inline void note_opening(const struct stray_key *key, struct stray *stray, const struct slot *slot,
                                         const struct node *owner, const struct tcphdr *tcp, __u32 now, bool learning) {
    __u32 opening = bpf_ntohl(tcp->seq) + 1;

    if (stray) {
        stray->opening = opening;
        stray->next_birth = owner->birth;
        stray->next = slot->owner & ~MOVED;
    } else if (learning) {
        struct stray fresh = {
            .seen = now,
            .opening = opening,
            .slot = slot->place,
            .next = slot->owner & ~MOVED,
            .next_birth = owner->birth,
        };

        strays.update(key, &fresh);
    }
}

/* The flow is this node's. What a SYN has left stays if the flow is not the one that it opened. */
static __always_inline void enter_stray(const struct stray_key *key, const struct stray *opened,
                                        const struct slot *slot, __u16 number, const struct node *node,
                                        const struct packet *packet, __u32 now) {
    struct stray fresh = {
        .seen = now,
        .slot = slot->place,
        .node = number,
        .birth = node->birth,
        .ended = !!(packet->tcp_flags & TCP_FIN),
    };

    if (packet->tcp_flags & TCP_RST)
        return;
    if (opened) {
        fresh.opening = opened->opening;
        fresh.next = opened->next;
        fresh.next_birth = opened->next_birth;
    }
    strays.update(key, &fresh);
}

static __always_inline void see_stray(struct stray *stray, const struct packet *packet, __u32 now) {
    if (packet->tcp_flags & (TCP_FIN | TCP_RST))
        stray->ended = 1;
    if (now - stray->seen >= (stray->ended ? 1 : STRAY_RENEWAL))
        stray->seen = now;
}

/*
 * The node of a flow whose slot is MOVED, NULL if there is none; `number`: with MOVED beside it if it is not the owner.
 * `packet` may be an error about the flow, or a later fragment, which tell nothing of it.
 */
static __always_inline struct node *node_of_moved(const struct packet *packet, const union address *client,
                                                  __be16 client_port, const struct listener *listener,
                                                  const struct slot *slot, __u32 *number, const bool dry) {
    const struct tcphdr *tcp = packet->transport;
    const struct move *move = slot_move(slot->table, slot->place);
    __u32 owned_by = slot->owner & ~MOVED, known = NO_OWNER, now = bpf_jiffies64();
    struct node *owner = node_at(owned_by), *node = NULL;

    *number = owned_by;
    if (listener->protocol != IPPROTO_TCP)
        return owner;

    bool learning = now - move->began < LEARNING;
    bool tells = packet->protocol == IPPROTO_TCP && packet->fragment != LATER && (void *)(tcp + 1) <= packet->end;
    struct stray_key key = {
        .client = *client,
        .address = listener->address,
        .client_port = client_port,
        .port = listener->port,
    };
    struct stray *stray = strays.lookup(&key);

    if (stray && (__s32)(stray->seen - move->since) < 0)
        stray = NULL;
    if (tells && opens(packet)) {
        if (owner && !dry)
            note_opening(&key, stray, slot, owner, tcp, now, learning);
        return owner;
    }
    if (stray && tells && continues(tcp, stray)) {
        known = stray->next;
        node = node_born(known, stray->next_birth);
        if (node && !dry)
            enter_stray(&key, NULL, slot, known, node, packet, now);
    } else if (stray && stray->node != NO_OWNER) {
        known = stray->node;
        node = node_born(known, stray->birth);
        if (tells && !dry)
            see_stray(stray, packet, now);
    } else if (learning) {
        known = move->earlier;
        node = node_at(known);
        if (node && tells && !dry)
            enter_stray(&key, stray, slot, known, node, packet, now);
    }
    if (!node || known == owned_by)
        return owner;
    *number = known | MOVED;
    return node;
}
