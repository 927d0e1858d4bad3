// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The two tables that hold flows, as memory of gale's own: what a hash table of the kernel does not offer is to choose
 * who makes room (lifetime.h), and to take a place without a lock that is shared by all.
 *
 *     flows     a flow has a set of FLOW_WAYS places, by a hash of its key; one of them, usually the first tried, is
 * its returns   a port of a node has one place: whoever holds the place owns the port, so no two flows look alike to a
 *               node
 *
 * Each entry has a word that says what the rest is worth: its version, flags, the birth of its node, and when the flow
 * was last seen. Who changes what an entry stands for swaps the word for one that is LOCKED and has the next version,
 * writes, and puts the new word in its place. Who reads takes the word before and after: the same version, and not
 * LOCKED, means that what lies between belongs together. A reader never waits; what is being changed is no longer what
 * it looks for.
 *
 * Hashes are keyed with random bits (SECRET_0, SECRET_1): nobody outside can aim at one set.
 */
#pragma once
#include "abi.h"
#include "hash.h"
#include "late.h"

#define FLOW_WAYS 4
_Static_assert((FLOW_PLACES & (FLOW_PLACES - 1)) == 0, "a hash is masked to a place");
_Static_assert((RETURN_PLACES & (RETURN_PLACES - 1)) == 0, "a hash is masked to a place");

/* The word, from its low end: 32 bits of jiffies, 8 of the node's birth, 8 flags, 16 of version. */
#define WORD_STAMP 0xffffffffULL
#define WORD_BIRTH 32
#define WORD_FLAGS 40
#define WORD_VERSION (1ULL << 48)

#define USED (1ULL << (WORD_FLAGS + 0))
#define LOCKED (1ULL << (WORD_FLAGS + 1))
#define ESTABLISHED (1ULL << (WORD_FLAGS + 2)) /* both sides have shown that they hear each other */
#define ENDED (1ULL << (WORD_FLAGS + 3))
#define ANSWERED (1ULL << (WORD_FLAGS + 4)) /* this and the next two: of return paths only */
#define CLIENT_FIN (1ULL << (WORD_FLAGS + 5))
#define NODE_FIN (1ULL << (WORD_FLAGS + 6))

static __always_inline __u64 word_of(__u32 now, __u8 birth, __u64 flags) {
    return now | (__u64)birth << WORD_BIRTH | flags;
}

static __always_inline __u8 word_birth(__u64 word) {
    return word >> WORD_BIRTH;
}

static __always_inline __u32 word_age(__u64 word, __u32 now) {
    return now - (__u32)word;
}

/* Words of one version, neither of them locked, speak of the same flow. */
static __always_inline bool same_version(__u64 before, __u64 after) {
    return !((before ^ after) / WORD_VERSION) && !((before | after) & LOCKED);
}

/*
 * Loaded here and now: what stands before and behind in the program is loaded before and after. Some processors do not
 * keep that order by themselves; an exchange that changes nothing makes them.
 */
static __always_inline __u64 read_word(__u64 *word) {
#ifdef __x86_64__
    asm volatile("" ::: "memory");

    __u64 value = *(const volatile __u64 *)word;

    asm volatile("" ::: "memory");
    return value;
#else
    return __sync_val_compare_and_swap(word, 0, 0);
#endif
}

/* Takes an entry from what it stood for. The caller then writes it, and unlocks it. */
static __always_inline bool lock_entry(__u64 *word, __u64 seen) {
    __u64 locked = (seen & ~(WORD_VERSION - 1)) + WORD_VERSION + LOCKED;

    return !(seen & LOCKED) && __sync_val_compare_and_swap(word, seen, locked) == seen;
}

/* `fresh`: all but the version, which is that of the lock. */
static __always_inline void unlock_entry(__u64 *word, __u64 fresh) {
    __u64 locked = read_word(word);

    __sync_lock_test_and_set(word, (locked & ~(WORD_VERSION - 1)) | fresh);
}

static __always_inline __u64 flow_hash(const union address *client, __be16 client_port, __u16 listener) {
    __u64 rest = ((__u64)client_port << 16 | listener) * (SECRET_1 | 1);

    return hash_mix((hash_mix(SECRET_0 ^ client->halves[0]) ^ client->halves[1]) + rest);
}

/* Which place of its set a flow tries first. */
static __always_inline __u32 flow_place(const union address *client, __be16 client_port, __u16 listener) {
    return flow_hash(client, client_port, listener) & (FLOW_PLACES - 1);
}

/* The places of a set, from the one tried first: two share a cache line. */
static __always_inline __u32 flow_way(__u32 place, __u32 way) {
    return place ^ way;
}

static __always_inline bool is_flow(const struct flow *flow, const union address *client, __be16 client_port,
                                    __u16 listener) {
    return flow->client_port == client_port && flow->listener == listener && address_equal(&flow->client, client);
}

/* What a node's address is known by in `returns`. Of IPv6, no two of one network have the same: the factor is odd. */
static __always_inline __u64 fingerprint(const union address *node, const int version) {
    return version == 4 ? bpf_ntohl(node->words[3]) : high(node) * HASH_SEED + low(node) * (SECRET_0 | 1);
}

/* Where the ports of a node and a protocol begin: they lie side by side. */
static __always_inline __u32 return_base(__u64 node, __be16 node_port, __u8 protocol) {
    return hash_mix(SECRET_1 ^ node ^ (__u64)node_port << 32 ^ (__u64)protocol << 48);
}

static __always_inline __u32 return_place(__u32 base, __be16 source_port) {
    return (base + bpf_ntohs(source_port)) & (RETURN_PLACES - 1);
}

static __always_inline bool is_return_path(const struct return_path *path, __u64 node, __be16 node_port,
                                           __be16 source_port, __u8 protocol) {
    return path->node == node && path->node_port == node_port && path->source_port == source_port &&
           path->protocol == protocol;
}

static __always_inline bool leads_to(const struct return_path *path, const union address *client, __be16 client_port,
                                     __u16 listener) {
    return path->client_port == client_port && path->listener == listener && address_equal(&path->client, client);
}

/*
 * Adds to a word what a packet shows, and when. Most show nothing new, and write nothing. Tries are bounded: what is
 * lost here, the next packet shows. Returns the word as it is then. A flow ends with the second FIN: which one that is
 * shows here alone, for two processors may have met one each at the same moment.
 */
#define NOTE_TRIES 4
#define BOTH_FINS (CLIENT_FIN | NODE_FIN)

static __always_inline __u64 note(__u64 *word, __u64 seen, __u64 flags, __u32 now, __u32 renewal) {
    if ((seen & flags) == flags && word_age(seen, now) < renewal)
        return seen;
    for (int attempt = 0; attempt < NOTE_TRIES; attempt++) {
        __u64 fresh = (seen & ~WORD_STAMP) | flags | now;

        if ((fresh & BOTH_FINS) == BOTH_FINS)
            fresh |= ENDED;

        __u64 found = __sync_val_compare_and_swap(word, seen, fresh);

        if (found == seen)
            return fresh;
        if (!same_version(found, seen))
            break;
        seen = found;
    }
    return seen;
}
