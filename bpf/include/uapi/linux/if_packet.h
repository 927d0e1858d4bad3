// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* BCC includes this name for socket filters, which gale does not use. */
