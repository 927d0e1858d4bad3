// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Giving a packet new addresses and ports, with checksums that stay right. */
#pragma once
#include "csum.h"
#include "parse.h"
