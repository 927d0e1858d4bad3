"""Faults to plant in the text of the packet path, each of which the fuzzer must find: who finds nothing proves nothing.

Each is a list of replacements. One whose text is not there any more fails its test, so plants follow the code.
"""

from collections.abc import Mapping, Sequence

PLANTS: Mapping[str, Sequence[tuple[str, str]]] = {
    "UDP without a checksum gets one": [("    if (*check)\n        *check = csum_apply(", "    *check = csum_apply(")],
    "a UDP checksum may become none": [("change) ?: 0xffff;", "change);")],
    "the hop is taken without mending the checksum": [
        ("csum_change16(bpf_htons(0x0100), 0));\n    } else", "0);\n    } else")
    ],
    "ICMPv6 forgets its pseudo header": [("change + (version == 6 ? addresses : 0)", "change")],
    "a quoted checksum is left alone": [
        ("        change += csum_change16(before, *check);", "        *check = before;")
    ],
    "padding counts as packet": [("(!quoted && packet->length > left)", "false")],
    "fragments of one packet are all that come between two addresses": [(".id = packet->fragment_id,", ".id = 0,")],
    "half of the client's address chooses the slot": [("^ high(client)) ^ low(client) ^ to)", "^ high(client)) ^ to)")],
    "TCP and UDP share their listeners": [(" && listener->protocol == protocol)", ")")],
    "a node's number is enough to know it": [(" && node->birth == word_birth(found->word)", "")],
    "a SYN's word is taken for whose a connection is": [
        ("stray->next != NO_OWNER && bpf_ntohl(tcp->seq) - stray->opening < FIRST_BYTES", "stray->next != NO_OWNER")
    ],
    "a connection whose slot moves again is its second owner's": [
        (
            "} else if (stray && stray->node != NO_OWNER) {",
            "} else if (stray && stray->node != NO_OWNER && !learning) {",
        )
    ],
    "the tunnel's header is not counted": [
        ("if (unlikely(inside + header > hop->mtu))", "if (unlikely(inside > hop->mtu))")
    ],
    "the last hop is used up": [
        (
            "    if (unlikely(hops_left(packet, version) <= 1))\n        return TTL_EXPIRED;\n    if (likely(find_flow",
            "    if (likely(find_flow",
        )
    ],
    "an answer is counted as a question": [
        ("count_traffic(listener->service, answer.node, OUT", "count_traffic(listener->service, answer.node, IN")
    ],
    "an explanation leaves a trace": [
        ("explain_verdict(public_frame(ctx, true))", "explain_verdict(public_frame(ctx, false))")
    ],
}
