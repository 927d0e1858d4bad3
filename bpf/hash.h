// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * From a flow to its slot: the same on every load balancer, so that any of them may take any packet. Hence the fixed
 * seed, and fields in the machine's byte order, which makes the number independent of the machine.
 *
 * Rounds of the splitmix64 finaliser, which lets every input bit flip every output bit with a chance of one half. An
 * attacker can aim at a slot, and gains nothing from it: a slot is a node, and nodes are told apart by their answers.
 */
#pragma once
#include "packet.h"

#define HASH_SEED 0x9e3779b97f4a7c15ULL

static __always_inline __u64 hash_mix(__u64 x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* The halves of an address as numbers. */
static __always_inline __u64 high(const union address *address) {
    return bpf_ntohll(address->halves[0]);
}

static __always_inline __u64 low(const union address *address) {
    return bpf_ntohll(address->halves[1]);
}

/* The flow of a client and a service's address, in this order: for what a node sends it is destination and source. */
static __always_inline __u32 hash_flow(const union address *client, const union address *address, __be16 client_port,
                                       __be16 port, __u8 protocol, const int version) {
    __u64 ports = (__u64)protocol << 32 | (__u32)bpf_ntohs(client_port) << 16 | bpf_ntohs(port);

    if (version == 4) {
        __u64 addresses = (__u64)bpf_ntohl(client->words[3]) << 32 | bpf_ntohl(address->words[3]);

        return hash_mix(hash_mix(HASH_SEED ^ addresses) ^ ports);
    }

    __u64 to = low(address) + high(address) * HASH_SEED;

    return hash_mix(hash_mix(hash_mix(HASH_SEED ^ high(client)) ^ low(client) ^ to) ^ ports);
}
