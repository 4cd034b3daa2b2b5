// SPDX-License-Identifier: GPL-2.0-only
//! Scheduling domains: the CPUs that share a queue, and how far apart the queues are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use scx_utils::{Cpumask, Topology};

use crate::policy::{RL_DIST_LLC, RL_DIST_NODE, RL_DIST_NUMA, RL_DIST_SMT, RL_MAX_CPUS, RL_MAX_DOMAINS};

/// How domains are formed: the value of `--domains`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DomainSpec {
    /// One domain per last-level cache.
    #[default]
    Llc,
    /// One domain per L2 cache.
    L2,
    /// One domain per NUMA node.
    Numa,
    /// Last-level caches split into parts of MIN to MAX cores (scx_utils' virtual LLCs).
    Virtual {
        /// Least number of cores in a part.
        min: usize,
        /// Largest number of cores in a part.
        max: usize,
    },
    /// Explicit CPU lists.
    Cpus(Vec<String>),
}

impl FromStr for DomainSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let usage = "expected llc, l2, numa, virt:MIN-MAX (cores), or cpus:LIST/LIST/... such as cpus:0-3/4-7";
        match s.split_once(':') {
            None => match s {
                "llc" => Ok(Self::Llc),
                "l2" => Ok(Self::L2),
                "numa" => Ok(Self::Numa),
                _ => Err(format!("unknown domains {s:?}: {usage}")),
            },
            Some(("virt", range)) => {
                let parts = range.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                match parts {
                    Some((min, max)) if min > 0 && min <= max => Ok(Self::Virtual { min, max }),
                    _ => Err(format!("bad range {range:?} of virtual LLCs: expected MIN-MAX with 0 < MIN <= MAX")),
                }
            }
            Some(("cpus", lists)) if !lists.is_empty() => Ok(Self::Cpus(lists.split('/').map(String::from).collect())),
            _ => Err(format!("unknown domains {s:?}: {usage}")),
        }
    }
}

impl fmt::Display for DomainSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Llc => write!(f, "llc"),
            Self::L2 => write!(f, "l2"),
            Self::Numa => write!(f, "numa"),
            Self::Virtual { min, max } => write!(f, "virt:{min}-{max}"),
            Self::Cpus(lists) => write!(f, "cpus:{}", lists.join("/")),
        }
    }
}

/// Where one CPU sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuPlace {
    /// CPU id.
    pub cpu: usize,
    /// Physical core id, unique in the machine.
    pub core: usize,
    /// L2 cache id.
    pub l2: usize,
    /// Last-level cache id (of the hardware, not virtual).
    pub llc: usize,
    /// NUMA node id.
    pub node: usize,
}

/// The domains of the machine that the scheduler runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains {
    /// CPUs of each domain, ascending.
    pub cpus: Vec<Vec<usize>>,
    /// Distance class (`RL_DIST_*`) between each two domains.
    pub distance: Vec<Vec<u8>>,
    /// For each domain the others, nearest first.
    pub neighbours: Vec<Vec<u16>>,
    /// One more than the largest CPU id.
    pub nr_cpu_ids: usize,
    /// Does any core have more than one CPU?
    pub smt: bool,
    /// In words: which domains were found, and why.
    pub description: String,
}

impl Domains {
    /// Read the machine's topology and form domains.
    ///
    /// # Errors
    /// When the topology cannot be read, or explicit lists do not hold every online CPU exactly once, or a limit of the
    /// BPF side is exceeded.
    pub fn discover(spec: &DomainSpec) -> Result<Self> {
        let hardware = Topology::new().context("cannot read the CPU topology from /sys")?;
        let places: Vec<CpuPlace> = hardware
            .all_cpus
            .values()
            .map(|c| CpuPlace { cpu: c.id, core: c.core_id, l2: c.l2_id, llc: c.llc_id, node: c.node_id })
            .collect();
        let groups = match spec {
            DomainSpec::Virtual { min, max } => {
                let virt = Topology::with_virt_llcs(Some((*min, *max))).context("cannot form virtual LLCs")?;
                virt.all_llcs.values().map(|llc| llc.all_cpus.keys().copied().collect()).collect()
            }
            DomainSpec::Cpus(lists) => explicit_groups(lists)?,
            DomainSpec::Llc => group_by(&places, |p| (p.node, p.llc)),
            DomainSpec::L2 => group_by(&places, |p| (p.llc, p.l2)),
            DomainSpec::Numa => group_by(&places, |p| (p.node, 0)),
        };
        Self::from_groups(spec, &places, groups)
    }

    /// Form domains from given groups of CPUs; every place must be in exactly one of them.
    pub fn from_groups(spec: &DomainSpec, places: &[CpuPlace], mut groups: Vec<Vec<usize>>) -> Result<Self> {
        groups.retain(|g| !g.is_empty());
        groups.iter_mut().for_each(|g| g.sort_unstable());
        groups.sort();
        let online: BTreeMap<usize, &CpuPlace> = places.iter().map(|p| (p.cpu, p)).collect();
        let mut seen = BTreeSet::new();
        for &cpu in groups.iter().flatten() {
            ensure!(online.contains_key(&cpu), "--domains names CPU {cpu}, which is not online");
            ensure!(seen.insert(cpu), "--domains names CPU {cpu} twice; domains must not overlap");
        }
        if let Some(cpu) = online.keys().find(|c| !seen.contains(c)) {
            bail!("--domains leaves out CPU {cpu}; every online CPU must be in a domain");
        }
        let nr_cpu_ids = online.keys().last().map_or(0, |c| c + 1);
        ensure!(nr_cpu_ids <= RL_MAX_CPUS as usize, "{nr_cpu_ids} CPU ids, but at most {RL_MAX_CPUS} are supported");
        ensure!(
            groups.len() <= RL_MAX_DOMAINS as usize,
            "{} domains, but at most {RL_MAX_DOMAINS} are supported: choose larger ones, such as --domains numa",
            groups.len()
        );

        let of = |g: &Vec<usize>| -> Vec<CpuPlace> { g.iter().map(|c| *online[c]).collect() };
        let distance: Vec<Vec<u8>> =
            groups.iter().map(|a| groups.iter().map(|b| distance(&of(a), &of(b))).collect()).collect();
        let neighbours = (0..groups.len())
            .map(|a| {
                let mut others: Vec<u16> = (0..groups.len() as u16).filter(|&b| b as usize != a).collect();
                // Equally near ones start after `a` itself, so that not everybody looks at domain 0 first.
                others.sort_by_key(|&b| (distance[a][b as usize], (b as usize + groups.len() - a) % groups.len()));
                others
            })
            .collect();
        let cores: BTreeSet<usize> = places.iter().map(|p| p.core).collect();
        let description = describe(spec, places, &groups);
        Ok(Self { smt: cores.len() < places.len(), cpus: groups, distance, neighbours, nr_cpu_ids, description })
    }

    /// The domain of each CPU id.
    pub fn domain_of_cpu(&self) -> BTreeMap<usize, usize> {
        self.cpus.iter().enumerate().flat_map(|(d, cpus)| cpus.iter().map(move |&c| (c, d))).collect()
    }

    /// A short form that tells machines apart in checkpoints, such as `4 cpus: 0-1/2-3`.
    pub fn signature(&self) -> String {
        format!("{} cpus: {}", self.cpus.iter().map(Vec::len).sum::<usize>(), self.lists())
    }

    /// The CPUs of each domain, such as `0-1/2-3`.
    pub fn lists(&self) -> String {
        self.cpus.iter().map(|cpus| cpulist(cpus)).collect::<Vec<_>>().join("/")
    }
}

/// The CPUs of places with equal keys, in order of the keys.
pub(crate) fn group_by<K: Ord>(places: &[CpuPlace], key: impl Fn(&CpuPlace) -> K) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for p in places {
        groups.entry(key(p)).or_default().push(p.cpu);
    }
    groups.into_values().collect()
}

fn explicit_groups(lists: &[String]) -> Result<Vec<Vec<usize>>> {
    lists
        .iter()
        .map(|list| {
            let mask = Cpumask::from_cpulist(list)
                .with_context(|| format!("bad CPU list {list:?} in --domains: expected a form such as 0-3,8"))?;
            ensure!(!mask.is_empty(), "an empty CPU list in --domains");
            Ok(mask.iter().collect())
        })
        .collect()
}

/// The nearest level that the two share.
fn distance(a: &[CpuPlace], b: &[CpuPlace]) -> u8 {
    let shares = |key: fn(&CpuPlace) -> usize| a.iter().any(|x| b.iter().any(|y| key(x) == key(y)));
    let class = if shares(|p| p.core) {
        RL_DIST_SMT
    } else if shares(|p| p.llc) {
        RL_DIST_LLC
    } else if shares(|p| p.node) {
        RL_DIST_NODE
    } else {
        RL_DIST_NUMA
    };
    class as u8
}

/// `0-3,8` for `[0, 1, 2, 3, 8]`.
pub fn cpulist(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &c in cpus {
        match parts.last_mut() {
            Some(last) if last.1 + 1 == c => last.1 = c,
            _ => parts.push((c, c)),
        }
    }
    let text: Vec<String> =
        parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    text.join(",")
}

fn describe(spec: &DomainSpec, places: &[CpuPlace], groups: &[Vec<usize>]) -> String {
    let count = |key: fn(&CpuPlace) -> usize| places.iter().map(key).collect::<BTreeSet<_>>().len();
    let lists: Vec<String> = groups.iter().map(|g| cpulist(g)).collect();
    let mut text = format!(
        "{} domain(s) by {spec}: {}; the machine has {} CPUs, {} cores, {} LLCs, {} NUMA node(s)",
        groups.len(),
        lists.join(" | "),
        places.len(),
        count(|p| p.core),
        count(|p| p.llc),
        count(|p| p.node),
    );
    if groups.len() == 1 {
        text.push_str(
            "; with a single domain there is nothing to balance: try --domains l2, virt:MIN-MAX or cpus:LIST/LIST",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 nodes x 2 LLCs x 2 cores x 2 threads
    fn machine() -> Vec<CpuPlace> {
        (0..16).map(|c| CpuPlace { cpu: c, core: c / 2, l2: c / 2, llc: c / 4, node: c / 8 }).collect()
    }

    #[test]
    fn specs_parse_and_print() {
        for s in ["llc", "l2", "numa", "virt:2-4", "cpus:0-3/4-7"] {
            assert_eq!(s.parse::<DomainSpec>().unwrap().to_string(), s);
        }
        for s in ["", "l3", "virt", "virt:0-2", "virt:4-2", "virt:x", "cpus:", "cpus"] {
            assert!(s.parse::<DomainSpec>().is_err(), "{s:?} must be refused");
        }
    }

    #[test]
    fn distances_and_neighbours_follow_the_machine() {
        let groups = group_by(&machine(), |p| (p.node, p.llc));
        let d = Domains::from_groups(&DomainSpec::Llc, &machine(), groups).unwrap();
        assert_eq!(d.cpus.len(), 4);
        assert_eq!(d.distance[0], [0, 2, 3, 3].map(|x| x as u8));
        assert_eq!(d.neighbours[1], [0, 2, 3], "the one on its node first");
        assert_eq!(d.neighbours[3], [2, 0, 1]);
        assert!(d.smt);
        let l2 = Domains::from_groups(&DomainSpec::L2, &machine(), group_by(&machine(), |p| (p.llc, p.l2))).unwrap();
        assert_eq!(u32::from(l2.distance[0][1]), RL_DIST_LLC);
    }

    #[test]
    fn explicit_masks_must_partition_the_online_cpus() {
        let spec = DomainSpec::Cpus(vec![]);
        let small = &machine()[..4];
        let err = |groups: Vec<Vec<usize>>| Domains::from_groups(&spec, small, groups).unwrap_err().to_string();
        assert!(err(vec![vec![0, 1, 2]]).contains("leaves out CPU 3"));
        assert!(err(vec![vec![0, 1, 2], vec![2, 3]]).contains("CPU 2 twice"));
        assert!(err(vec![vec![0, 1], vec![2, 3, 9]]).contains("CPU 9, which is not online"));
        assert!(Domains::from_groups(&spec, small, vec![vec![1, 0], vec![3, 2]]).is_ok());
    }

    #[test]
    fn cpulists_are_compact() {
        assert_eq!(cpulist(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(cpulist(&[]), "");
    }
}
