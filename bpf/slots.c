// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* From a flow's slot to the node that owns it: in l2 and l3 for every packet, in l4 for a new flow. */

/* As a packet finds it. `owner`: with MOVED beside it, if it is. */
struct slot {
    const struct slot_table *table;
    __u32 place;
    __u32 owner;
};

/* `client`, `client_port`: of the flow, whoever the packet is from. */
static __always_inline bool find_slot(const struct listener *listener, const union address *client, __be16 client_port,
                                      const int version, struct slot *slot, const bool dry) {
    __u32 service = listener->service;
    __u32 *table_number = active.lookup(&service);

    if (!table_number)
        return false;
    slot->table = slot_tables.lookup(table_number);
    if (!slot->table)
        return false;

    __u32 hash = hash_flow(client, &listener->address, client_port, listener->port, listener->protocol, version);

    slot->place = hash & (SLOTS - 1);
    slot->owner = slot_owner(slot->table, hash);
    if (dry)
        explain_slot(slot->place, slot->owner & ~MOVED);
    return true;
}

/* NULL if nobody has the number, as nobody has NO_OWNER. */
static __always_inline struct node *node_at(__u32 number) {
    struct node *node = nodes.lookup(&number);

    return node && node->address ? node : NULL;
}

/* For a new flow: the owner. NULL if there is none. */
static __always_inline struct node *choose_node(const struct listener *listener, const union address *client,
                                                __be16 client_port, const int version, __u32 *number, const bool dry) {
    struct slot slot;

    if (!find_slot(listener, client, client_port, version, &slot, dry))
        return NULL;
    *number = slot.owner & ~MOVED;
    return node_at(*number);
}

static __always_inline bool has_address(const struct node *node, const int version) {
    return version == 4 || node->address6.halves[0] || node->address6.halves[1];
}
