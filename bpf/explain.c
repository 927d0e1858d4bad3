// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* What is told on the way, by a path that is explained: called as `if (dry) explain_...`, so others pay nothing. */

static __always_inline struct explanation *explained(void) {
    __u32 zero = 0;

    return explanation.lookup(&zero);
}

static __always_inline void explain_nothing(void) {
    struct explanation *told = explained();

    if (told)
        *told = (struct explanation){};
}

static __always_inline void explain_listener(__u16 number, const struct listener *listener) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found |= FOUND_LISTENER;
    told->listener = number;
    told->service = listener->service;
    told->mode = listener->mode;
}

/* The slot of a client's flow, and who owns it: NO_OWNER if nobody does. */
static __always_inline void explain_choice(const struct listener *listener, const union address *client,
                                           __be16 client_port, const int version, __u16 owner) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found |= owner == NO_OWNER ? FOUND_SLOT : FOUND_SLOT | FOUND_NODE;
    told->slot =
        hash_flow(client, &listener->address, client_port, listener->port, listener->protocol, version) & (SLOTS - 1);
    told->node = owner;
}

/* `age`: jiffies since it was last seen. A flow whose node has gone still names its number. */
static __always_inline void explain_flow(__u16 node, __be16 source_port, __u32 age, __u8 flags) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found |= FOUND_FLOW | FOUND_NODE;
    told->node = node;
    told->source_port = source_port;
    told->age = age;
    told->flags = flags;
}

/* The port that a new flow would get. */
static __always_inline void explain_port(__be16 source_port) {
    struct explanation *told = explained();

    if (told)
        told->source_port = source_port;
}

static __always_inline void explain_verdict(enum verdict verdict) {
    struct explanation *told = explained();

    if (told)
        told->verdict = verdict;
}
