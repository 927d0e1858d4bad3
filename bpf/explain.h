// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * What the packet path says about one packet to whoever asks. The programs gale_explain_public and gale_explain_private
 * are the packet path itself, compiled with `dry` true: they decide and rewrite as it does, over the same maps, and
 * write to no map but `explanation`. So an explanation cannot differ from what would happen, and leaves no trace.
 */
#pragma once
#include <linux/types.h>

/* What was found on the way, in the order of the path; the fields of the others are 0. */
#define FOUND_LISTENER 0x1
#define FOUND_SLOT 0x2 /* a stateless mode or a new flow: the slot chose the node */
#define FOUND_NODE 0x4
#define FOUND_FLOW 0x8

struct explanation {
    __u32 verdict; /* enum verdict */
    __u32 found;
    __u32 slot;
    __u32 age;     /* jiffies since the flow was last seen */
    __u16 service; /* of the listener */
    __u16 listener;
    __u16 node;
    __be16 source_port; /* l4: the one the node sees the client at */
    __u8 mode;
    __u8 flags;   /* of the flow: flow.h */
    __u8 zero[6]; /* of a size that has no holes */
};
_Static_assert(sizeof(struct explanation) == 32, "no holes");
