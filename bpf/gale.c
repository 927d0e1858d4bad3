// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * gale's packet path, mode l4: network address translation in both directions.
 *
 *     client -> public side (XDP)   listener -> flow -> node: from SOURCE_ADDRESS to the node, out to the node
 *     node   -> private side (TC)   return path: from the service to the client, out to the client
 *
 * Two tables hold a flow, each with what its direction asks for: `flows` by client and listener, `returns` by node and
 * source port. Invariants:
 *
 * 1. A key of `returns` belongs to one flow. A new flow gets its source port by inserting the key where none is; a port
 *    is taken from another flow only once that one is over (lifetime.h), by the one CPU that swaps its `life`, and only
 *    after its entry in `flows` is gone. So two flows never share a node's view of them.
 * 2. Only a SYN opens a flow, and a SYN cannot move a flow that lives: it goes to the node the flow has, which knows
 * how to answer (RFC 9293, 3.10.7.4). Someone who forges SYNs breaks no connection.
 * 3. A packet in the middle of a connection reads one table or a copy of its entry (copy.h), writes to none but a time
 *    stamp, and takes no lock.
 * 4. A packet for no service leaves as it came.
 *
 * Every map access stands in this file: BCC rewrites them in the main file only.
 */
/* What the kernel is told. It lends its helpers to "GPL", and has no word for "Apache-2.0 OR GPL-2.0-only". */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/pkt_cls.h>
#include "abi.h"
#include "copy.h"
#include "hash.h"
#include "lifetime.h"
#include "maps.h"
#include "port.h"
#include "rewrite.h"
#include "service.h"
#include "verdict.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

static __always_inline void count(enum verdict verdict) {
    __u32 index = verdict;
    __u64 *packets = verdicts.lookup(&index);

    if (packets)
        ++*packets;
}

/* The return path of a flow; NULL if its port belongs to another flow by now, or to none. */
static __always_inline struct return_path *find_return_path(const struct flow_key *key, const struct flow *flow,
                                                            const struct listener *listener) {
    struct return_key return_key = {
        .node_address = flow->node_address,
        .node_port = listener->target_port,
        .source_port = flow->source_port,
        .protocol = listener->protocol,
    };
    struct return_path *path = returns.lookup(&return_key);

    return path && is_return_path_of(path, key) ? path : NULL;
}

/* The flow of a packet in the middle of a connection: from a copy, if there is one. */
static __always_inline struct flow *find_flow_copy(const struct flow_key *key, __u32 now) {
    __u64 word = copy_key(key->client, key->client_port, key->listener);
    __u32 place = copy_place(word, bpf_get_smp_processor_id());
    struct flow_copy *copy = flow_copies.lookup(&place);

    if (likely(copy && copy->key == word && copy_good(copy->taken, now)))
        return &copy->flow;

    struct flow *flow = flows.lookup((struct flow_key *)key);

    if (!flow || !copy)
        return flow;
    copy->key = word;
    copy->flow = *flow;
    copy->taken = now;
    return &copy->flow;
}

/* The node of a flow; NULL if it has gone, even when another node has its number now. */
static __always_inline struct node *find_node(const struct flow *flow) {
    __u32 number = flow->node;
    struct node *node = nodes.lookup(&number);

    return node && node->address == flow->node_address ? node : NULL;
}

/* Records what a packet shows about a flow's life. Most show nothing new, and write nothing. */
static __always_inline void see(struct return_path *path, __u64 seen) {
    if ((path->life & seen) != seen)
        __sync_fetch_and_or(&path->life, seen);
}

/* Forgets the flow that held a port, unless its client has opened another one since. */
static __always_inline void forget_flow(const struct return_key *key, const struct return_path *held) {
    struct flow_key holder = {
        .client = held->answer.client,
        .client_port = held->answer.client_port,
        .listener = held->listener,
    };
    struct flow *flow = flows.lookup(&holder);

    if (flow && flow->node_address == key->node_address && flow->source_port == key->source_port)
        flows.delete(&holder);
}

/* Takes a port from its flow, if that is over. Of two CPUs that try, one swaps `life` (invariant 1). */
static __always_inline bool take_port(const struct return_key *key, struct return_path *held, __u32 now) {
    __u64 life = held->life;

    if (!life_over(life, held->last_seen, now) ||
        __sync_val_compare_and_swap(&held->life, life, life | SEEN_THIEF) != life)
        return false;
    forget_flow(key, held);
    return true;
}

/* Makes the port that `key` stands for the flow's own, if it is free, the flow's already, or to be taken. */
static __always_inline bool claim_port(const struct return_key *key, const struct flow_key *flow_key,
                                       const struct return_path *path, __u32 now) {
    if (!returns.insert((struct return_key *)key, (struct return_path *)path))
        return true;

    struct return_path *held = returns.lookup((struct return_key *)key);

    if (!held || (!is_return_path_of(held, flow_key) && !take_port(key, held, now)))
        return false;
    return !returns.update((struct return_key *)key, (struct return_path *)path);
}

/* The node of a new flow, and its number. */
static __always_inline enum verdict choose_node(const struct packet *packet, const struct listener *listener,
                                                __u16 *number, struct node **node) {
    __u32 service = listener->service, index;
    __u32 *table_number = active.lookup(&service);

    if (!table_number)
        return NO_NODE;

    struct slot_table *table = slot_tables.lookup(table_number);

    if (!table)
        return NO_NODE;
    index = slot_owner(table, hash_flow(packet->ip->saddr, packet->ip->daddr, packet->tcp->source, packet->tcp->dest,
                                        listener->protocol));
    if (index == NO_OWNER)
        return NO_NODE;
    *node = nodes.lookup(&index);
    *number = index;
    if (!*node || !(*node)->address)
        return NO_NODE;
    return (*node)->link != NO_LINK ? UNDECIDED : NO_NEIGHBOUR;
}

/*
 * Redirected by a map of interfaces rather than by an interface's number, which the kernel would look up once more: 6 %
 * less per packet, from driver to driver. The verdict is `sent`, unless there is nowhere to send it.
 */
static __always_inline enum verdict send_to_node(const struct packet *packet, const struct listener *listener,
                                                 const struct node *node, __be16 source_port, enum verdict sent) {
    int redirected = links.redirect_map(node->link, 0);

    if (unlikely(redirected != XDP_REDIRECT))
        return NO_NEIGHBOUR;

    struct csum_changes changes =
        rewrite(packet, node->macs, SOURCE_ADDRESS, node->address, source_port, listener->target_port);

    packet->tcp->check = csum_apply(packet->tcp->check, changes.addresses + changes.ports);
    return sent;
}

static __always_inline enum verdict open_flow(const struct packet *packet, const struct listener *listener,
                                              const struct flow_key *key, __u32 now, __u32 chance) {
    struct flow flow = {};
    struct node *node;
    enum verdict verdict = choose_node(packet, listener, &flow.node, &node);

    if (verdict != UNDECIDED)
        return verdict;

    struct return_key return_key = {
        .node_address = node->address,
        .node_port = listener->target_port,
        .source_port = packet->tcp->source,
        .protocol = listener->protocol,
    };
    struct return_path path = {
        .answer.address = packet->ip->daddr,
        .answer.client = packet->ip->saddr,
        .answer.port = packet->tcp->dest,
        .answer.client_port = packet->tcp->source,
        .listener = key->listener,
        .last_seen = now,
        .life = life_begin(now),
    };

    __builtin_memcpy(path.answer.macs, packet->eth->h_source, ETH_ALEN);
    __builtin_memcpy(path.answer.macs + ETH_ALEN, packet->eth->h_dest, ETH_ALEN);

    for (int probe = 0; !claim_port(&return_key, key, &path, now); probe++) {
        if (probe == PORT_PROBES)
            return NO_PORT;
        chance = chance_next(chance);
        return_key.source_port = port_by_chance(chance);
    }

    flow.node_address = return_key.node_address;
    flow.source_port = return_key.source_port;
    if (flows.update((struct flow_key *)key, &flow))
        return NO_ROOM;
    return send_to_node(packet, listener, node, flow.source_port, OPENED);
}

/* The headers of a TCP packet, or why there are none. */
static __always_inline enum verdict parse(struct cursor cursor, struct packet *packet) {
    int protocol = parse_ethernet(&cursor, &packet->eth);

    if (protocol != ETH_P_IP)
        return protocol == MALFORMED_HEADER ? MALFORMED : NOT_IPV4;
    protocol = parse_ipv4(&cursor, &packet->ip);
    if (protocol != IPPROTO_TCP)
        return protocol == MALFORMED_HEADER ? MALFORMED : NOT_TCP;
    if (unlikely(packet->ip->frag_off & FRAGMENT_OFFSET))
        return LATER_FRAGMENT;
    return parse_tcp(&cursor, &packet->tcp) == MALFORMED_HEADER ? MALFORMED : UNDECIDED;
}

/* What gale cannot forward although it is for a service or a client. */
static __always_inline enum verdict check_forwardable(const struct iphdr *ip) {
    if (unlikely(ip->frag_off & MORE_FRAGMENTS))
        return FRAGMENT;
    return unlikely(ip->ttl <= 1) ? TTL_EXPIRED : UNDECIDED;
}

static __always_inline enum verdict client_to_node(struct cursor cursor) {
    struct packet packet;
    enum verdict verdict = parse(cursor, &packet);

    if (verdict != UNDECIDED)
        return verdict;

    __u32 zero = 0;
    struct directory *known = directory.lookup(&zero);

    if (!known)
        return NO_SERVICE;

    struct flow_key key = {
        .client = packet.ip->saddr,
        .client_port = packet.tcp->source,
        .listener = find_listener(known, packet.ip->daddr, packet.tcp->dest, IPPROTO_TCP),
    };

    if (key.listener == NO_LISTENER)
        return NO_SERVICE;
    verdict = check_forwardable(packet.ip);
    if (verdict != UNDECIDED)
        return verdict;

    const struct listener *listener = &known->listeners[key.listener & (LISTENERS - 1)];
    __u8 flags = tcp_flags(packet.tcp) & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
    bool middle = flags == TCP_ACK; /* neither opens nor ends a connection */
    __u32 now = bpf_jiffies64();
    struct flow *flow = likely(middle) ? find_flow_copy(&key, now) : flows.lookup(&key);
    struct node *node = likely(flow) ? find_node(flow) : NULL;

    if (unlikely(!middle)) {
        struct return_path *path = node ? find_return_path(&key, flow, listener) : NULL;

        if (flags == TCP_SYN && (!path || life_over(path->life, path->last_seen, now)))
            return open_flow(&packet, listener, &key, now, bpf_get_prandom_u32());
        if (path && flags & (TCP_FIN | TCP_RST))
            see(path, (flags & TCP_FIN ? SEEN_CLIENT_FIN : 0) | (flags & TCP_RST ? SEEN_RST : 0));
    }
    if (unlikely(!node))
        return flow ? NODE_GONE : NO_FLOW;
    return send_to_node(&packet, listener, node, flow->source_port, FORWARDED);
}

/* What a node's packet tells about its flow. A SYN/ACK begins a life: the flow's key may have been in use before. */
static __always_inline void see_answer(struct return_path *path, __u8 flags, __u32 now) {
    path->last_seen = now;
    if (flags & TCP_SYN)
        path->life = life_begin(now);
    else
        see(path, SEEN_ANSWER | (flags & TCP_FIN ? SEEN_NODE_FIN : 0) | (flags & TCP_RST ? SEEN_RST : 0));
}

/* What becomes of a node's packet; NULL if no flow waits for it. Packets that tell nothing new are served by a copy. */
static __always_inline struct answer *find_answer(const struct return_key *key, __u8 flags, __u32 now) {
    __u64 word = copy_key(key->node_address, key->node_port, key->source_port);
    __u32 place = copy_place(word, bpf_get_smp_processor_id());
    struct answer_copy *copy = answer_copies.lookup(&place);
    bool middle = !(flags & (TCP_SYN | TCP_FIN | TCP_RST));

    if (likely(copy && copy->key == word && copy_good(copy->taken, now) && middle))
        return &copy->answer;

    struct return_path *path = returns.lookup((struct return_key *)key);

    if (!path)
        return NULL;
    see_answer(path, flags, now);
    if (!copy)
        return &path->answer;
    copy->key = flags & TCP_SYN ? NO_COPY : word; /* the next packet, the first answer, must be seen too */
    copy->answer = path->answer;
    copy->taken = now;
    return &copy->answer;
}

#define PACKET_HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct tcphdr))

static __always_inline enum verdict node_to_client(struct __sk_buff *skb, __u32 now) {
    /* Some drivers leave headers outside of the part that can be read. */
    if (unlikely((void *)(long)skb->data + PACKET_HEADERS > (void *)(long)skb->data_end))
        bpf_skb_pull_data(skb, PACKET_HEADERS);

    struct cursor cursor = {.at = (void *)(long)skb->data, .end = (void *)(long)skb->data_end, .left = skb->len};
    struct packet packet;

    if (parse(cursor, &packet) != UNDECIDED || packet.ip->daddr != SOURCE_ADDRESS || skb->vlan_present)
        return NOT_A_REPLY;

    struct return_key key = {
        .node_address = packet.ip->saddr,
        .node_port = packet.tcp->source,
        .source_port = packet.tcp->dest,
        .protocol = IPPROTO_TCP,
    };
    struct answer *answer = find_answer(&key, tcp_flags(packet.tcp), now);

    if (!answer)
        return NOT_A_REPLY;

    enum verdict verdict = check_forwardable(packet.ip);

    if (verdict != UNDECIDED)
        return verdict;

    /*
     * The TCP checksum goes through a helper, which knows what only the kernel can see: whether the checksum is whole,
     * or the pseudo header's sum alone, to be completed by the network card (CHECKSUM_PARTIAL, which is how segments of
     * a local sender and merged segments arrive; ports are not in that sum). The packet's pointers are stale after it.
     */
    __u32 check_at = (void *)&packet.tcp->check - cursor.at;
    struct csum_changes changes =
        rewrite(&packet, answer->macs, answer->address, answer->client, answer->port, answer->client_port);

    bpf_l4_csum_replace(skb, check_at, 0, csum_fold(changes.addresses), BPF_F_PSEUDO_HDR);
    if (!csum_unchanged(changes.ports))
        bpf_l4_csum_replace(skb, check_at, 0, csum_fold(changes.ports), 0);
    bpf_redirect(PUBLIC_IFINDEX, 0);
    return RETURNED;
}

static __always_inline int public_side(struct xdp_md *ctx) {
    struct cursor cursor = {
        .at = (void *)(long)ctx->data,
        .end = (void *)(long)ctx->data_end,
        .left = ctx->data_end - ctx->data,
    };
    enum verdict verdict = client_to_node(cursor);
    enum action action = action_of(verdict);

    count(verdict);
    return action == REDIRECT ? XDP_REDIRECT : action == PASS ? XDP_PASS : XDP_DROP;
}

static __always_inline int private_side(struct __sk_buff *skb) {
    enum verdict verdict = node_to_client(skb, bpf_jiffies64());
    enum action action = action_of(verdict);

    count(verdict);
    return action == REDIRECT ? TC_ACT_REDIRECT : action == PASS ? TC_ACT_OK : TC_ACT_SHOT;
}

int gale_public(struct xdp_md *ctx) {
    return public_side(ctx);
}

int gale_private(struct __sk_buff *skb) {
    return private_side(skb);
}
