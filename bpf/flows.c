// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The tables of flows: finding, opening and following. Invariants:
 *
 * 1. A place of `returns` belongs to one flow, and so does the port it stands for. It is taken from a flow that is over
 *    (lifetime.h), or when no other is to be had: from one whose port is another node's and that is not at work, or
 *    from one that has been opening for longer than any client needs. From an established flow of the same port it is
 *    never taken.
 *    Who takes a place takes the old flow's entry in `flows` away first, so that nobody goes on sending by it.
 * 2. Only a SYN, or UDP, opens a flow, and neither can move a flow that lives: it goes to the node the flow has, which
 *    knows how to answer (RFC 9293, 3.10.7.4). Someone who forges SYNs breaks no connection.
 * 3. A packet in the middle of a flow reads its entry in `flows`, no more, and takes no lock. Once a second one also
 *    renews the stamps, and what answers need to find the way to the client.
 */

/* What a flow's entry says, as it stood together. */
struct found {
    struct flow *entry;
    __u64 word;
    __u32 node;
    __be16 source_port;
};

static __always_inline bool find_flow(const union address *client, __be16 client_port, __u16 listener,
                                      struct found *found) {
    __u32 first = flow_place(client, client_port, listener);

#pragma unroll
    for (__u32 way = 0; way < FLOW_WAYS; way++) {
        __u32 place = flow_way(first, way);
        struct flow *flow = flows.lookup(&place);

        if (!flow)
            return false;

        __u64 word = read_word(&flow->word);

        if (!(word & USED) || !is_flow(flow, client, client_port, listener))
            continue;
        found->entry = flow;
        found->node = flow->node;
        found->source_port = flow->source_port;
        found->word = word;
        if (same_version(word, read_word(&flow->word)))
            return true;
    }
    return false;
}

/* The node of a flow; NULL if it has gone, even when another node has its number now. */
static __always_inline struct node *node_of(const struct found *found) {
    __u32 number = found->node;
    struct node *node = nodes.lookup(&number);

    return node && node->address && node->birth == word_birth(found->word) ? node : NULL;
}

static __always_inline union address node_address(const struct node *node, const int version) {
    return version == 4 ? address4(node->address) : node->address6;
}

/* Changes the entry of a flow that has a certain port, if it is still there; with `forget` it goes. */
static __always_inline void change_flow(const struct return_path *path, __u64 set, __u64 clear, const bool forget) {
    struct found found;

    if (!find_flow(&path->client, path->client_port, path->listener, &found) || found.node != path->number ||
        found.source_port != path->source_port)
        return;
    for (int attempt = 0; attempt < NOTE_TRIES; attempt++) {
        __u64 fresh = forget ? (found.word & ~(WORD_VERSION - 1)) + WORD_VERSION : (found.word & ~clear) | set;
        __u64 held = __sync_val_compare_and_swap(&found.entry->word, found.word, fresh);

        if (held == found.word || !same_version(held, found.word))
            return;
        found.word = held;
    }
}

/* What a client's packet shows about its flow. */
static __always_inline __u64 shown_by_client(const struct packet *packet, const struct return_path *path, __u64 word) {
    __u64 shown = 0;

    if (packet->protocol == IPPROTO_UDP)
        return word & ANSWERED ? ESTABLISHED : 0;
    if (packet->tcp_flags & TCP_ACK && word & ANSWERED) {
        const struct tcphdr *tcp = packet->transport;

        if ((void *)(tcp + 1) <= packet->end && bpf_ntohl(tcp->ack_seq) - bpf_ntohl(path->isn) < FIRST_FLIGHT)
            shown |= ESTABLISHED;
    }
    if (packet->tcp_flags & TCP_RST)
        shown |= ENDED;
    if (packet->tcp_flags & TCP_FIN)
        shown |= CLIENT_FIN;
    return shown;
}

/* The way back to the client, as its last frames showed it. Whole words: a reader may see one frame's and another's. */
static __always_inline void remember_way(struct return_path *path, const struct packet *packet) {
    const void *destination = packet->eth->h_dest, *source = packet->eth->h_source;

    *(__u32 *)path->macs = *(const __u32 *)source;
    *(__u16 *)(path->macs + 4) = *(const __u16 *)(source + 4);
    *(__u16 *)(path->macs + 6) = *(const __u16 *)destination;
    *(__u32 *)(path->macs + 8) = *(const __u32 *)(destination + 2);
    path->tags = packet->tags | (packet->tpid == bpf_htons(ETH_P_8021AD) ? OUTER_8021AD : 0);
    path->vlan[0] = packet->vlan[0];
    path->vlan[1] = packet->vlan[1];
}

/* True if a packet tells nothing of its flow that its entry does not say already. */
static __always_inline bool tells_nothing(const struct packet *packet, __u64 word, __u32 now) {
    return !(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) && word & ESTABLISHED &&
           word_age(word, now) < renewal(word);
}

/*
 * Follows a flow by a packet of its client. False if it is over and the packet begins another, or if its port is gone.
 * `unseen`: nothing is noted, because the packet goes nowhere.
 */
static __always_inline bool follow(const struct packet *packet, const struct listener *listener, __u16 number,
                                   const struct found *found, const struct node *node, __u32 now, const int version,
                                   bool unseen) {
    union address address = node_address(node, version);
    __u64 print = fingerprint(&address, version);
    __u32 place = return_place(return_base(print, listener->target_port, packet->protocol), found->source_port);
    struct return_path *path = returns.lookup(&place);

    if (!path)
        return false;

    __u64 word = read_word(&path->word);

    if (!(word & USED) || !is_return_path(path, print, listener->target_port, found->source_port, packet->protocol) ||
        !leads_to(path, &packet->source, packet->source_port, number))
        return false;
    if (opens(packet) && life_over(word, packet->protocol, now))
        return false;
    if (unseen)
        return true;
    if (!(packet->tcp_flags & TCP_SYN))
        remember_way(path, packet);
    word = note(&path->word, word, shown_by_client(packet, path, word), now, renewal(word));
    note(&found->entry->word, found->word, word & (ESTABLISHED | ENDED), now, renewal(found->word));
    return true;
}

/* How much may be had of a place of `returns`, for a port of a node. */
static __always_inline __u64 room_of_path(const struct return_path *path, const struct return_path *wanted, __u64 word,
                                          __u32 now) {
    if (word & LOCKED)
        return 0;
    if (!(word & USED))
        return ROOM(FREE);
    if (life_over(word, path->protocol, now))
        return room_in(OF_ENDED, word, now);
    if (is_return_path(path, wanted->node, wanted->node_port, wanted->source_port, wanted->protocol)) {
        if (leads_to(path, &wanted->client, wanted->client_port, wanted->listener))
            return ROOM(OWN);
        if (word & ESTABLISHED || word_age(word, now) < QUIET_PRESSED)
            return 0;
    }
    return room_of_living(word, now);
}

/* How much may be had of a place of `flows`. */
static __always_inline __u64 room_of_flow(const struct flow *flow, const struct return_path *wanted, __u64 word,
                                          __u32 now) {
    if (word & LOCKED)
        return 0;
    if (!(word & USED))
        return ROOM(FREE);
    if (is_flow(flow, &wanted->client, wanted->client_port, wanted->listener))
        return ROOM(OWN);
    if (word & ENDED && word_age(word, now) >= QUIET_ENDED)
        return room_in(OF_ENDED, word, now);
    return room_of_living(word, now);
}

/* Writes the entry in `flows` that leads to a return path. False if others were faster. */
static __always_inline bool enter_flow(const struct return_path *path, __u8 birth, __u32 now) {
    __u32 first = flow_place(&path->client, path->client_port, path->listener);
    struct flow *best = NULL;
    __u64 most = 0, best_word = 0;

    for (__u32 way = 0; way < FLOW_WAYS; way++) {
        __u32 place = flow_way(first, way);
        struct flow *flow = flows.lookup(&place);

        if (!flow)
            return false;

        __u64 word = read_word(&flow->word);
        __u64 room = obscure(room_of_flow(flow, path, word, now), word);

        if (room > most) {
            most = room;
            best = flow;
            best_word = word;
        }
    }
    if (!best || !lock_entry(&best->word, best_word))
        return false;
    best->client = path->client;
    best->client_port = path->client_port;
    best->listener = path->listener;
    best->node = path->number;
    best->source_port = path->source_port;
    unlock_entry(&best->word, word_of(now, birth, USED));
    return true;
}

/* A place of `returns`, its word as it was when it was looked at, and the port it stands for. */
struct candidate {
    struct return_path *path;
    __u64 word, room;
    __be16 port;
};

/*
 * Finds a place of `returns`, and with it a port: the client's own if that is to be had, else one by chance. One that
 * is free or over is taken at once; while there is none, the flow of another node that can best be done without.
 */
static __always_inline enum verdict find_room(struct return_path *wanted, struct candidate *best, __u32 now,
                                              const bool dry) {
    __u32 base = return_base(wanted->node, wanted->node_port, wanted->protocol);
    __u32 chance = now ^ flow_hash(&wanted->client, wanted->client_port, wanted->listener) >> 32;

    best->room = 0;
    wanted->source_port = wanted->client_port;
    for (int probe = 0; probe < PORT_PROBES; probe++) {
        __u32 place = return_place(base, wanted->source_port);
        struct return_path *path = returns.lookup(&place);

        if (!path)
            return NO_PORT;

        __u64 word = read_word(&path->word), room = obscure(room_of_path(path, wanted, word, now), word);
        bool taken = room >= ROOM(OF_ENDED) && (dry || lock_entry(&path->word, word));

        if (taken || (room > best->room && room < ROOM(OF_ENDED)))
            *best = (struct candidate){.path = path, .word = word, .room = room, .port = wanted->source_port};
        if (taken)
            return UNDECIDED;
        if (probe >= PORT_PROBES_FLOOD && best->room >= ROOM(OF_OPENING))
            break;
        chance = chance_next(chance);
        wanted->source_port = port_by_chance(chance);
    }
    if (!best->room)
        return NO_PORT;
    wanted->source_port = best->port;
    return dry || lock_entry(&best->path->word, best->word) ? UNDECIDED : NO_ROOM;
}

/* Opens the flow that `wanted` describes, as far as its source port, which is chosen here. */
static __always_inline enum verdict open_flow(const struct packet *packet, struct return_path *wanted, __u8 birth,
                                              __u32 now, const bool dry) {
    struct candidate place;
    enum verdict verdict = find_room(wanted, &place, now, dry);

    if (verdict != UNDECIDED || dry)
        return verdict;
    if (place.word & USED)
        change_flow(place.path, 0, 0, true);
    __builtin_memcpy(place.path, wanted, __builtin_offsetof(struct return_path, vlan));
    remember_way(place.path, packet);

    bool entered = enter_flow(wanted, birth, now);

    unlock_entry(&place.path->word, entered ? word_of(now, birth, USED) : 0);
    return entered ? UNDECIDED : NO_ROOM;
}
