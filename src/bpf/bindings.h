/* SPDX-License-Identifier: GPL-2.0-only */
/* What bindgen reads: types only, no kernel headers. */
#include "probe.h"
