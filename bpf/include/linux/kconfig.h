// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The one kernel option BCC looks at before it offers its helpers. */
#define CONFIG_BPF_SYSCALL 1
