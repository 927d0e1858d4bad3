// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Modes l2 and l3: connections stay where they are when their slot moves.
 *
 * A slot is all that these modes know of a flow. When it gets another owner, flows that are open would be sent to a
 * node that has never heard of them, and be reset. So gale-lb flags the slot as MOVED, and notes whose it was. Packets
 * of other slots ask for nothing more than before; those of a MOVED one ask, in TCP, by these rules:
 *
 * 1. A flow that has an entry in `strays` goes to the node that stands there, as long as that node is there.
 * 2. For LEARNING after the move, a flow without an entry was open before, because every flow that is opened meanwhile
 *    gets one. It is the earlier owner's, and entered as that. Later, it is the owner's.
 * 3. A SYN goes to the owner, always, and changes nothing: somebody else may have sent it in the client's name. What
 *    it would open is noted beside what is known of the flow, and holds from the first packet on that continues it:
 *    nobody who forges a source address knows its number.
 *
 * If the slot moves again before LEARNING has passed, its earlier owner and the time stay as they are: a flow without
 * an entry is still the first one's. So however often slots move, a flow keeps its node if its client sends something
 * within LEARNING of a move; one that is quiet for longer goes to the owner. gale-lb takes the flag away when no flow
 * needs it any more (gale/dataplane/strays.py). An entry from before the flag does not count.
 *
 * Datagrams have no connection: they go to the owner at once. ICMP errors go where their flow does, and teach nothing.
 *
 * Times are the low 32 bits of jiffies; differences are right across a wrap.
 */
#pragma once
#include "abi.h"
#include "packet.h"

#define STRAY_RENEWAL JIFFIES_PER_S /* a flow's packets renew its entry this often */
#define FIRST_BYTES 16384           /* behind its SYN a client may have sent this much before the owner has seen any */

/* Of a flow of TCP, by the packet alone: nothing in it depends on what a start of gale-lb numbers. */
struct stray_key {
    union address client, address;
    __be16 client_port, port;
    __u32 zero; /* of a size that has no holes */
};

/* `next`: the owner that the last SYN went to, if that has not been continued yet; `opening`: where that goes on. */
struct stray {
    __u32 seen; /* jiffies */
    __u32 opening;
    __u32 slot;
    __u16 node; /* NO_OWNER: nothing is known but a SYN */
    __u16 next; /* NO_OWNER: there was none */
    __u8 birth; /* of the node; and of the next */
    __u8 next_birth;
    __u8 ended; /* 1: its client has sent a FIN or RST */
    __u8 zero;
};

/* The packet goes on where the last SYN began. */
static __always_inline bool continues(const struct tcphdr *tcp, const struct stray *stray) {
    return stray->next != NO_OWNER && bpf_ntohl(tcp->seq) - stray->opening < FIRST_BYTES;
}
