// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Packets of very many clients, for tests/packet/flood.py: each run of the program gives the frame the addresses and
 * ports of the client whose number follows, and jumps into the program that is attached in production.
 *
 * ADDRESS, ADDRESS6_0 .. ADDRESS6_3, PORT: of the service, in network byte order.
 */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include "hash.h"

struct clients {
    __u32 next;
    __u32 address; /* of all of them, in network byte order, and their ports count up; 0: anybody, from any port */
};

BPF_ARRAY(clients, struct clients, 1);
BPF_PROG_ARRAY(target, 1);

int gale_flood(struct xdp_md *ctx) {
    struct ethhdr *eth = (void *)(long)ctx->data;
    struct iphdr *ip = (void *)(eth + 1);
    struct ipv6hdr *ip6 = (void *)(eth + 1);
    __u32 zero = 0;
    struct clients *of = clients.lookup(&zero);
    __be16 *ports = (void *)(ip6 + 1);

    if (!of || (void *)(ports + 2) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;

    __u32 number = of->next++;
    __u64 chance = hash_mix(number);

    if (eth->h_proto == bpf_htons(ETH_P_IP)) {
        ports = (void *)(ip + 1);
        ip->saddr = of->address ?: (__u32)chance;
        ip->daddr = ADDRESS;
        ip->ttl = 64;
    } else {
        ip6->saddr = (struct in6_addr){.s6_addr32 = {bpf_htonl(0x20010db8), 0, 0, of->address ?: (__u32)chance}};
        ip6->daddr = (struct in6_addr){.s6_addr32 = {ADDRESS6_0, ADDRESS6_1, ADDRESS6_2, ADDRESS6_3}};
        ip6->hop_limit = 64;
    }
    ports[0] = of->address ? bpf_htons(number) : (__be16)(chance >> 32);
    ports[1] = PORT;
    target.call(ctx, 0);
    return XDP_ABORTED;
}
