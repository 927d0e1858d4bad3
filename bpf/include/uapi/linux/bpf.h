// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* Empty: BCC brings its own copy of the BPF user API and includes it before this name. */
