// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Late constants: known when a program is loaded, not when it is compiled, so that what was compiled once serves every
 * start. Each is a number of 64 bits that the compiler cannot see through; gale/dataplane/compiled.py finds it in the
 * instructions and puts the value there. For the verifier and for the processor it is a constant like any other.
 */
#pragma once

#define LATE_MARK 0x67616c656c617400ULL

#define LATE(number)                                                                                                   \
    ({                                                                                                                 \
        __u64 value;                                                                                                   \
        asm("%0 = %1 ll" : "=r"(value) : "i"(LATE_MARK + (number)));                                                   \
        value;                                                                                                         \
    })

/* Of 32 bits: the compiler may rely on the upper half being empty. */
#define LATE32(number)                                                                                                 \
    ({                                                                                                                 \
        __u64 whole = LATE(number);                                                                                    \
        if (whole >> 32)                                                                                               \
            __builtin_unreachable();                                                                                   \
        (__u32) whole;                                                                                                 \
    })

#define SECRET_0 LATE(0) /* 64 random bits each, which place flows in their tables */
#define SECRET_1 LATE(1)
#define SOURCE_ADDRESS LATE32(2) /* a __be32: the load balancer's own address, which nodes see and answer to */
#define SOURCE6_0 LATE(3)        /* the halves of its IPv6 address (`union address`), if HAS_SOURCE6 */
#define SOURCE6_1 LATE(4)
#define PUBLIC_IFINDEX LATE32(5) /* the interface answers leave by */
