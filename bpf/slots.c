// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* From a flow's slot to the node that owns it: in l2 and l3 for every packet, in l4 for a new flow. */

/* NULL if none does. `client`, `client_port`: of the flow, whoever the packet is from. */
static __always_inline struct node *choose_node(const struct listener *listener, const union address *client,
                                                __be16 client_port, const int version, __u32 *number, const bool dry) {
    __u32 service = listener->service;
    __u32 *table_number = active.lookup(&service);

    if (!table_number)
        return NULL;

    struct slot_table *table = slot_tables.lookup(table_number);

    if (!table)
        return NULL;

    __u32 hash = hash_flow(client, &listener->address, client_port, listener->port, listener->protocol, version);

    *number = slot_owner(table, hash);
    if (dry)
        explain_slot(hash & (SLOTS - 1), *number);
    if (*number == NO_OWNER)
        return NULL;

    struct node *node = nodes.lookup(number);

    return node && node->address ? node : NULL;
}

static __always_inline bool has_address(const struct node *node, const int version) {
    return version == 4 || node->address6.halves[0] || node->address6.halves[1];
}
