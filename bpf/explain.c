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

/* `owner`: of the slot, NO_OWNER if nobody is. */
static __always_inline void explain_slot(__u32 slot, __u32 owner) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found |= owner == NO_OWNER ? FOUND_SLOT : FOUND_SLOT | FOUND_NODE;
    told->slot = slot;
    told->node = owner;
}

/* The node that gets the packet, whoever owns its slot. */
static __always_inline void explain_node(__u32 node) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found |= FOUND_NODE;
    told->node = node;
}

/* `word`: of the flow (flow.h), 0 if it is only about to be opened. */
static __always_inline void explain_flow(__u32 node, __be16 source_port, __u64 word) {
    struct explanation *told = explained();

    if (!told)
        return;
    told->found = (told->found & ~FOUND_FLOW) | FOUND_NODE | (word ? FOUND_FLOW : 0);
    told->node = node;
    told->source_port = source_port;
    told->age = word ? word_age(word, bpf_jiffies64()) : 0;
    told->flags = word >> WORD_FLAGS;
}

static __always_inline void explain_verdict(enum verdict verdict) {
    struct explanation *told = explained();

    if (told)
        told->verdict = verdict;
}
