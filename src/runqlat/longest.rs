// SPDX-License-Identifier: GPL-2.0-only
//! Who waited longest. A maximum without a name is hard to act on, and for a task of low priority a long wait is right.

use serde::Serialize;

/// `struct rq_longest`, in bytes: wait_ns, epoch, pid, prio, comm.
const BYTES: usize = 40;
/// The kernel's priority of a normal task of nice 0.
const NICE_0: i32 = 120;

/// The longest wait of a kind of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Longest {
    /// How long, us; 0: none was noted (only waits over a millisecond are).
    pub wait_us: f64,
    /// Whose: `name[tid]`.
    pub task: String,
    /// Its nice value; real-time and deadline tasks have lower numbers than -20.
    pub nice: i32,
}

impl Longest {
    /// The longest of what the CPUs noted in `epoch`; what does not have the layout is left out.
    pub fn decode(per_cpu: &[Vec<u8>], epoch: u64) -> Self {
        let noted = per_cpu.iter().filter_map(|bytes| Self::decode_one(bytes, epoch));
        noted.fold(Self::default(), Self::or)
    }

    fn decode_one(bytes: &[u8], epoch: u64) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.len() != BYTES || word(8)? != epoch {
            return None;
        }
        let comm = bytes.get(24..)?.split(|&b| b == 0).next()?;
        Some(Longest {
            wait_us: word(0)? as f64 / 1e3,
            task: format!("{}[{}]", String::from_utf8_lossy(comm), half(16)?),
            nice: half(20)? - NICE_0,
        })
    }

    /// The longer of the two.
    pub fn or(self, other: Self) -> Self {
        if other.wait_us > self.wait_us { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(wait_ns: u64, epoch: u64, pid: i32, prio: i32, comm: &[u8]) -> Vec<u8> {
        let mut bytes = [wait_ns.to_le_bytes(), epoch.to_le_bytes()].concat();
        bytes.extend([pid.to_le_bytes(), prio.to_le_bytes()].concat());
        bytes.extend(comm);
        bytes.resize(BYTES, 0);
        bytes
    }

    #[test]
    fn the_longest_of_this_epoch_is_named() {
        let cpus = [
            noted(5_000_000, 3, 7, 120, b"short"),
            noted(9_000_000, 3, 42, 139, b"kswapd0"),
            noted(99_000_000, 2, 8, 120, b"earlier"),
        ];
        let longest = Longest::decode(&cpus, 3);
        assert_eq!(longest, Longest { wait_us: 9000.0, task: "kswapd0[42]".into(), nice: 19 });
        assert_eq!(Longest::decode(&[vec![0; 8]], 0), Longest::default());
        assert_eq!(longest.clone().or(Longest::default()), longest);
    }
}
