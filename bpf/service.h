// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* From a destination to its listener. Most packets meet a chain of no or one listener. */
#pragma once
#include "abi.h"

/* Listeners of one port in a chain; gale/dataplane/settings.py refuses more. */
#define CHAIN_MAX 64

static __always_inline __u16 find_listener(const struct directory *directory, const union address *address, __be16 port,
                                           __u8 protocol) {
    __u16 number = first_listener(directory, port);

    for (int hop = 0; hop < CHAIN_MAX && number != NO_LISTENER; hop++) {
        const struct listener *listener = &directory->listeners[number & (LISTENERS - 1)];

        if (address_equal(&listener->address, address) && listener->protocol == protocol)
            return number & (LISTENERS - 1);
        number = listener->next;
    }
    return NO_LISTENER;
}
