// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/* The oldest kernel gale is for; BCC only asks whether it is younger than 4.8. */
#pragma once
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
