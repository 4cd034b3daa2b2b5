/* SPDX-License-Identifier: GPL-2.0-only */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
