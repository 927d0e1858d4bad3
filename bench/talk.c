// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Both ends of TCP connections, for bench/talking.py, at the TC hook where frames arrive: whoever hears something says
 * something back, for ever. An end remembers nothing. What it says next follows from what it heard: its sequence number
 * is the other's acknowledgement, its acknowledgement what it heard and no more. So a segment that is sent again is
 * answered again, and a proxy between the two finds TCP that it can talk to.
 *
 * The node answers a SYN; the client's SYNs come from outside, and it begins to speak when they are answered.
 *
 * OURS: which port is ours, dest or source; PORT: its number, in network byte order.
 */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#define SAID 64 /* bytes, all zero, so that they change no checksum */
#define FIRST_SEQUENCE 1
#define WINDOW 0xffff

struct segment {
    __u16 unused; /* what follows Ethernet's header is aligned */
    struct ethhdr eth;
    struct iphdr ip;
    struct tcphdr tcp;
    __u8 said[SAID];
};

struct pseudo {
    __be32 source, destination, protocol_length;
};

#define FRAME_BYTES(said) (sizeof(struct segment) - sizeof(__u16) - SAID + (said))

BPF_PERCPU_ARRAY(bench_heard, __u64, 1);

static __always_inline __u16 folded(__u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

int bench_talk(struct __sk_buff *skb) {
    struct segment answer = {};
    struct ethhdr *eth = (void *)(long)skb->data;
    struct iphdr *ip = (void *)(eth + 1);
    struct tcphdr *tcp = (void *)(ip + 1);
    __u32 zero = 0;

    if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
        return TC_ACT_OK;
    if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_TCP || tcp->OURS != PORT)
        return TC_ACT_OK;

    __u32 heard = bpf_ntohs(ip->tot_len) - sizeof(*ip) - 4 * tcp->doff;
    __u32 opening = tcp->syn && !tcp->ack, said = opening ? 0 : SAID;

    if (tcp->rst || tcp->fin || (!tcp->syn && !heard))
        return TC_ACT_SHOT;

    __builtin_memcpy(answer.eth.h_dest, eth->h_source, ETH_ALEN);
    __builtin_memcpy(answer.eth.h_source, eth->h_dest, ETH_ALEN);
    answer.eth.h_proto = eth->h_proto;
    answer.ip.version = 4;
    answer.ip.ihl = 5;
    answer.ip.tot_len = bpf_htons(sizeof(*ip) + sizeof(*tcp) + said);
    answer.ip.ttl = 64;
    answer.ip.protocol = IPPROTO_TCP;
    answer.ip.saddr = ip->daddr;
    answer.ip.daddr = ip->saddr;
    answer.ip.check = folded(bpf_csum_diff(0, 0, (__be32 *)&answer.ip, sizeof(answer.ip), 0));
    answer.tcp.source = tcp->dest;
    answer.tcp.dest = tcp->source;
    answer.tcp.seq = opening ? bpf_htonl(FIRST_SEQUENCE) : tcp->ack_seq;
    answer.tcp.ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + heard + tcp->syn);
    answer.tcp.doff = 5;
    answer.tcp.ack = 1;
    answer.tcp.syn = opening;
    answer.tcp.psh = !opening;
    answer.tcp.window = bpf_htons(WINDOW);

    struct pseudo pseudo = {
        .source = answer.ip.saddr,
        .destination = answer.ip.daddr,
        .protocol_length = bpf_htonl(IPPROTO_TCP << 16 | (sizeof(*tcp) + said)),
    };
    __s64 sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);

    answer.tcp.check = folded(bpf_csum_diff(0, 0, (__be32 *)&answer.tcp, sizeof(answer.tcp), sum));

    __u64 *count = bench_heard.lookup(&zero);

    if (count && !opening)
        (*count)++;
    if (bpf_skb_change_tail(skb, opening ? FRAME_BYTES(0) : FRAME_BYTES(SAID), 0))
        return TC_ACT_SHOT;
    if (opening ? bpf_skb_store_bytes(skb, 0, &answer.eth, FRAME_BYTES(0), 0)
                : bpf_skb_store_bytes(skb, 0, &answer.eth, FRAME_BYTES(SAID), 0))
        return TC_ACT_SHOT;
    return bpf_redirect(skb->ifindex, 0);
}
