// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The user API's types, and the short names that BCC's helpers.h takes from the kernel's own header. By its full path,
 * because this file stands in for that one under the same name.
 */
#pragma once
#include "/usr/include/linux/types.h"

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
#define NULL ((void *)0)
#define true 1
#define false 0
