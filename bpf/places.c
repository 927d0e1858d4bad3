// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Where entries of `flows` and `returns` belong, asked by a start of gale-lb that finds tables of another size
 * (gale/dataplane/convert.py). The frame has entries in the place of a payload, ENTRIES at most (given with -D); the
 * word of each becomes its place. A program of its own: it is run on that frame and attached nowhere.
 */
#define BPF_LICENSE GPL

#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include "flow.h"

int gale_flow_places(struct xdp_md *ctx) {
    struct flow *flow = (void *)(long)ctx->data + ETH_HLEN;

    for (int entry = 0; entry < ENTRIES; entry++, flow++) {
        if ((void *)(flow + 1) > (void *)(long)ctx->data_end)
            break;

        union address client = flow->client;

        flow->word = flow_place(&client, flow->client_port, flow->listener);
    }
    return XDP_PASS;
}

int gale_return_places(struct xdp_md *ctx) {
    struct return_path *path = (void *)(long)ctx->data + ETH_HLEN;

    for (int entry = 0; entry < ENTRIES; entry++, path++) {
        if ((void *)(path + 1) > (void *)(long)ctx->data_end)
            break;
        path->word = return_place(return_base(path->node, path->node_port, path->protocol), path->source_port);
    }
    return XDP_PASS;
}
