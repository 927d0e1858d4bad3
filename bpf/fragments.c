// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Ports for fragments that have none: the first fragment of a packet, which has them, leaves them in a table, by what a
 * receiver puts fragments together by (RFC 791, RFC 8200 4.5). Later ones are then treated like the first. One that
 * overtakes its first finds nothing.
 *
 * The table is shared by both directions and bounded; the least recently used entry makes room. A sender uses an
 * identification again, so an entry is good for as long as a receiver waits for the rest of a packet.
 */
#define FRAGMENT_LIFETIME (30 * JIFFIES_PER_S)

static __always_inline struct fragment_key fragment_key(const struct packet *packet, const int version) {
    return (struct fragment_key){
        .source = packet->source,
        .destination = packet->destination,
        .id = packet->fragment_id,
        .protocol = version == 4 ? packet->protocol : 0,
    };
}

static __always_inline void remember_ports(const struct packet *packet, const int version) {
    struct fragment_key key = fragment_key(packet, version);
    struct fragment ports = {
        .source_port = packet->source_port,
        .destination_port = packet->destination_port,
        .seen = bpf_jiffies64(),
    };

    fragments.update(&key, &ports);
}

static __always_inline bool recall_ports(struct packet *packet, const int version) {
    struct fragment_key key = fragment_key(packet, version);
    struct fragment *ports = fragments.lookup(&key);

    if (!ports || (__u32)bpf_jiffies64() - ports->seen > FRAGMENT_LIFETIME)
        return false;
    packet->source_port = ports->source_port;
    packet->destination_port = ports->destination_port;
    packet->tcp_flags = 0;
    packet->protocol = obscure(packet->protocol, ports->source_port);
    return true;
}
