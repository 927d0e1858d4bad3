// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Flows that an operator ends (gale/dataplane/flows.py), over the live tables: whoever takes a place of `returns` does
 * it by the same rule as the packet path, under the entry's lock, and takes the flow's entry in `flows` away first. The
 * frame has choices in the place of a payload, CHOICES at most (given with -D), and comes back with what became of
 * them. A program of its own: it is run on that frame and attached nowhere.
 */

/* `word`: as it was when the entry was chosen. A place that has another flow by now is left alone. */
struct choice {
    __u64 word;
    __u32 place;
    __u32 killed;
};

static __always_inline bool kill_flow(__u32 place, __u64 chosen) {
    struct return_path *path = returns.lookup(&place);

    if (!path)
        return false;
    for (int attempt = 0; attempt < NOTE_TRIES; attempt++) {
        __u64 word = read_word(&path->word);

        if (!(word & USED) || !same_version(word, chosen))
            return false;
        if (lock_entry(&path->word, word)) {
            change_flow(path, 0, 0, true);
            unlock_entry(&path->word, 0);
            return true;
        }
    }
    return false;
}

int gale_kill(struct xdp_md *ctx) {
    struct choice *choice = (void *)(long)ctx->data + ETH_HLEN;

    for (int number = 0; number < CHOICES; number++, choice++) {
        if ((void *)(choice + 1) > (void *)(long)ctx->data_end)
            break;
        choice->killed = kill_flow(choice->place, choice->word);
    }
    return XDP_PASS;
}
