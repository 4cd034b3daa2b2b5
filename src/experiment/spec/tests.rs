// SPDX-License-Identifier: GPL-2.0-only
//! Specifications that are valid, and what is said of those that are not.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::reader::Mistake;
use super::*;

const SIMULATED: &str = r#"
name = "tiny"
about = "What is said of it"
backend = "simulator"
baseline = "rule"
seeds = [1, 0x10]
seconds = 0.5
jobs = 2
workloads = ["none-short-80", "high-long-95"]

[[scheduler]]
name = "rule"
balancer = "rule:margin=1"

[[scheduler]]
name = "learning"
balancer = "learn:rule"

[[topology]]
cpus = 8
llcs = 2
smt = true
"#;

fn mistakes(text: &str) -> Vec<Mistake> {
    Spec::parse(text).unwrap_err().0
}

#[test]
fn a_specification_is_read() {
    let spec = Spec::parse(SIMULATED).unwrap();
    assert_eq!((spec.name.as_str(), spec.backend, spec.baseline.as_str()), ("tiny", Backend::Simulator, "rule"));
    assert_eq!((spec.seeds.as_slice(), spec.rounds, spec.jobs), (&[1, 16][..], 1, 2));
    assert_eq!((spec.seconds, spec.warm_up_s), (0.5, 2.0));
    assert_eq!(spec.schedulers[1], SchedulerSpec { name: "learning".into(), how: Some("learn:rule".into()) });
    assert_eq!(spec.topologies[0].name(), "8cpu-2llc-smt");
    assert_eq!(spec.sha256.len(), 64);
    assert_ne!(spec.sha256, Spec::parse(&(SIMULATED.to_string() + "# another\n")).unwrap().sha256);
}

#[test]
fn what_is_left_out_has_a_default() {
    let text = "name = 'a'\nbackend = 'host'\nworkloads = ['locality-free']\n[[scheduler]]\nname = 'eevdf'\n";
    let spec = Spec::parse(text).unwrap();
    assert_eq!((spec.baseline.as_str(), spec.rounds, spec.seeds.as_slice()), ("eevdf", 1, &[1][..]));
    assert_eq!(spec.topologies[0].name(), "host");
    let simulated = "name = 'a'\nbackend = 'simulator'\nworkloads = ['none-short-80']\n[[scheduler]]\nname = 'x'\nbalancer = 'rusty'\n";
    assert_eq!(Spec::parse(simulated).unwrap().topologies[0].name(), "16cpu-4llc");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = r#"name = "a b"
backend = "simulator"
rounds = 3
seeds = [1, -2, "x", 1]
sekunden = 3
workloads = ["none-short-80", "fast", 7, "none-short-80"]
seconds = "long"
baseline = "nobody"
[[scheduler]]
name = "rule"
balancer = "guess"
[[scheduler]]
balancer = "rusty"
[[scheduler]]
name = "y"
command = "scx_rl --heuristic"
[[topology]]
cpus = 7
llcs = 2
"#;
    let found: Vec<String> = mistakes(text).iter().map(|m| format!("{}:{} {}", m.line, m.column, m.what)).collect();
    for part in [
        "1:8 name = \"a b\": a name has letters",
        "3:1 there is no \"rounds\" at the top; there are name, about",
        "4:13 a seed is from 0 to 4294967295, not -2",
        "4:17 a seed is a whole number, not a string",
        "4:22 the seed 1 is there twice",
        "5:1 there is no \"sekunden\"",
        "6:31 there is no regime \"fast\"",
        "6:39 a workload is a string, not a integer",
        "6:42 the workload \"none-short-80\" is there twice",
        "7:11 seconds is a number of seconds",
        "8:12 baseline = \"nobody\" is not among",
        "11:12 rule: \"guess\" is not a way to decide",
        "12:1 [[scheduler]]: name is missing",
        "15:8 y: how does it decide?",
        "16:1 there is no \"command\" in [[scheduler]]; there are name, balancer",
        "17:1 7 CPUs cannot be shared evenly",
    ] {
        assert!(found.iter().any(|line| line.starts_with(part)), "no {part:?} in\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), 16, "{}", found.join("\n"));
    let text = Spec::parse(text).unwrap_err().to_string();
    assert!(text.starts_with("the specification has 16 mistakes:\n  line 1, column 8: name"), "{text}");
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let found = mistakes("name = \"x\nbackend == 3\n[[scheduler]\n");
    assert!(found.len() > 1 && found[0].line == 1, "{found:?}");
    assert!(mistakes("")[0].what.contains("is missing"));
    assert!(mistakes(&" ".repeat(SIZE_MAX_BYTES + 1))[0].what.contains("more than"));
}

#[test]
fn kernels_have_other_words_than_the_simulator() {
    let text = r#"name = "a"
backend = "vm"
workloads = ["compiles"]
memory = "lots"
timeout-s = 5
[[scheduler]]
name = "cfs"
[[scheduler]]
name = "x"
command = "/no/such/file"
[[topology]]
cpus = 5
llcs = 2
"#;
    let found: Vec<String> = mistakes(text).iter().map(|m| format!("{}: {}", m.line, m.what)).collect();
    for part in
        ["3: there is no workload", "4: memory", "5: timeout-s is from 60", "7: \"cfs\" is none", "10: ", "11: "]
    {
        assert!(found.iter().any(|line| line.starts_with(part)), "no {part:?} in\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), 6, "{}", found.join("\n"));
}

/// `MUTATIONS=100000` for a night of it.
#[test]
fn no_mutation_of_a_specification_makes_it_panic() {
    let count: u32 = std::env::var("MUTATIONS").map_or(3000, |text| text.parse().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let pieces = [
        "[",
        "]",
        "\"",
        "=",
        "\n",
        "[[scheduler]]",
        "-",
        "0x",
        "1e999",
        "nan",
        "\u{1F980}",
        "'''",
        "#",
        ".",
        ",",
        "{}",
    ];
    let (mut valid, mut refused) = (0, 0);
    for _ in 0..count {
        let mut bytes = SIMULATED.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..6) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = rng.random_range(1..128),
                2 => drop(bytes.splice(at..at, pieces[rng.random_range(0..pieces.len())].bytes())),
                _ => bytes.truncate(at.max(1)),
            }
        }
        match Spec::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(_) => valid += 1,
            Err(Mistakes(mistakes)) => {
                assert!(
                    !mistakes.is_empty() && mistakes.iter().all(|m| m.line > 0 && !m.what.is_empty()),
                    "{mistakes:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(valid > 0 && refused > valid, "{valid} valid, {refused} refused");
}
