// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* BCC asks for it to size tracing buffers, which gale does not use. */
#define PAGE_SIZE 4096
