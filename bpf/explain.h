// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* What an explanation says beside the packet. */
#pragma once
#include <linux/types.h>

struct explanation {
    __u32 verdict;
};
