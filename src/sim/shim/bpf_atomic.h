/* SPDX-License-Identifier: GPL-2.0-only */
/* Takes the place of the scx header of this name: the simulator is one thread, so nothing is reordered or torn. */
#ifndef __SCX_RL_SIM_BPF_ATOMIC_H
#define __SCX_RL_SIM_BPF_ATOMIC_H

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, val) ((*(volatile typeof(x) *)&(x)) = (val))
#define smp_mb() __asm__ volatile("" ::: "memory")
#define smp_rmb() smp_mb()
#define smp_wmb() smp_mb()

#endif /* __SCX_RL_SIM_BPF_ATOMIC_H */
