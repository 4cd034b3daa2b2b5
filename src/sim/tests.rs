// SPDX-License-Identifier: GPL-2.0-only
//! The simulator as a whole: is it deterministic, and does the scheduler do on it what it promises?

use super::faults::Faults;
use super::machine::Shape;
use super::report::decisions;
use super::workload::{Change, Role, TaskSpec, Workload};
use super::{Balancer, Rival, Sim, SimConfig, SimError};
use crate::agent::Environment;
use crate::policy::rule::Rule;
use crate::policy::{RL_CNT_events_dropped, RL_CNT_throttled, RL_EVENT_VERSION, RL_MODE_DRAW, rl_rule, rl_weights};

const MS: u64 = 1_000_000;

fn shape(cpus: usize, llcs: usize) -> Shape {
    Shape { cpus, llcs, nodes: 1, threads: 1 }
}

fn sim(config: &SimConfig, workload: Workload, balancer: Balancer) -> Sim {
    Sim::new(config, workload, &balancer.publication()).unwrap()
}

/// Hash and events of 200 ms of a mixture.
fn outcome(shape: Shape, seed: u64, balancer: Balancer) -> (u64, u64) {
    let mut sim = sim(&SimConfig::new(shape, seed), Workload::mixed(shape.cpus, 0.9), balancer);
    sim.run_for(200 * MS).unwrap();
    (sim.totals().hash(), sim.totals().events)
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for (shape, balancer) in [
        (shape(4, 2), Balancer::Heuristic),
        (shape(16, 4), Balancer::Random),
        (Shape { cpus: 32, llcs: 4, nodes: 2, threads: 2 }, Balancer::Heuristic),
    ] {
        let first = outcome(shape, 1, balancer);
        assert!(first.1 > 1000, "{} events are too few to tell", first.1);
        assert_eq!(first, outcome(shape, 1, balancer), "{shape:?} {balancer:?}");
        assert_ne!(first.0, outcome(shape, 2, balancer).0, "the seed must matter");
    }
    assert_ne!(outcome(shape(16, 4), 1, Balancer::Stay).0, outcome(shape(16, 4), 1, Balancer::Greedy).0);
}

#[test]
fn time_in_parts_is_time() {
    // With SMT the speed of CPUs changes all the time: nothing may depend on when one looks.
    let config = SimConfig::new(Shape { cpus: 8, llcs: 2, nodes: 1, threads: 2 }, 5);
    let mut whole = sim(&config, Workload::mixed(8, 0.9), Balancer::Heuristic);
    whole.run_for(100 * MS).unwrap();
    let hash = whole.totals().hash();
    drop(whole);
    let mut parts = sim(&config, Workload::mixed(8, 0.9), Balancer::Heuristic);
    for _ in 0..10 {
        parts.run_for(10 * MS).unwrap();
    }
    assert_eq!(parts.totals().hash(), hash);
}

#[test]
fn weights_give_proportional_shares() {
    let mut workload = Workload::default();
    let light = workload.hogs(4, 100, 0);
    let heavy = workload.hogs(4, 300, 0);
    let mut sim = sim(&SimConfig::new(shape(2, 1), 1), workload, Balancer::Heuristic);
    sim.run_for(8_000 * MS).unwrap();
    let service = |tasks: std::ops::Range<usize>| -> u64 { tasks.map(|t| sim.task_stats(t).unwrap().service_ns).sum() };
    let (light, heavy) = (service(light), service(heavy));
    assert!(light + heavy > 15_900 * MS, "two CPUs are always busy: {} ms", (light + heavy) / MS);
    let ratio = heavy as f64 / light as f64;
    assert!((2.7..3.3).contains(&ratio), "300 against 100 gave {ratio}");
}

#[test]
fn a_changed_weight_changes_the_share() {
    let mut workload = Workload::default();
    let tasks = workload.hogs(4, 100, 0);
    workload.changes.push((4_000 * MS, 0, Change::Weight(400)));
    let mut sim = sim(&SimConfig::new(shape(1, 1), 1), workload, Balancer::Heuristic);
    let service = |sim: &Sim| -> Vec<u64> { tasks.clone().map(|t| sim.task_stats(t).unwrap().service_ns).collect() };
    sim.run_for(4_000 * MS).unwrap();
    let before = service(&sim);
    sim.run_for(7_000 * MS).unwrap();
    let after: Vec<f64> = service(&sim).iter().zip(&before).map(|(a, b)| (a - b) as f64 / 7e9).collect();
    assert!(before.iter().all(|ns| (900 * MS..1_100 * MS).contains(ns)), "equal shares of 4 s: {before:?}");
    // 400 of 700
    assert!((0.5..0.63).contains(&after[0]), "{after:?}");
}

#[test]
fn nobody_runs_where_it_may_not() {
    let mut workload = Workload::mixed(8, 0.7);
    let hog = TaskSpec { name: "odd".into(), ..TaskSpec::default() };
    let odd = workload.add(3, &TaskSpec { allowed: Some(vec![1, 3, 5, 7]), ..hog.clone() });
    let far = workload.add(2, &TaskSpec { name: "far".into(), allowed: Some(vec![6, 7]), ..hog });
    // While they wait and while they run; a task starts on a random CPU of its own.
    for (i, task) in odd.chain(far.clone()).enumerate() {
        for step in 0..40u64 {
            let cpu = (i as u64 + step) as usize % 8;
            workload.changes.push(((10 + 7 * step + i as u64) * MS, task, Change::Affinity(vec![cpu, (cpu + 3) % 8])));
        }
    }
    // The engine checks each time that a task is put on a CPU.
    let mut sim = sim(&SimConfig::new(shape(8, 4), 3), workload, Balancer::Greedy);
    sim.run_for(500 * MS).unwrap();
    assert!(sim.task_stats(far.start).unwrap().moves > 5, "the changes must matter");
}

#[test]
fn a_pinned_task_stays() {
    let mut workload = Workload::mixed(8, 0.9);
    let role = Role::Batch { run_ns: 2 * MS, sleep_ns: 3 * MS };
    let allowed = Some(vec![5]);
    let spec = TaskSpec { name: "pinned".into(), allowed, working_set_kib: 64, role, ..TaskSpec::default() };
    let pinned = workload.add(1, &spec).start;
    let mut sim = sim(&SimConfig::new(shape(8, 4), 1), workload, Balancer::Greedy);
    sim.run_for(1_000 * MS).unwrap();
    let stats = sim.task_stats(pinned).unwrap();
    assert!(stats.runs > 100 && stats.moves == 0, "{stats:?}");
    assert_eq!(sim.kernel().tasks[pinned].shared.cpu(), 5);
}

#[test]
fn starvation_is_noticed_and_names_the_seed() {
    let mut workload = Workload::default();
    workload.hogs(6, 100, 0);
    let config = SimConfig { starve_ns: 1_000 * MS, ..SimConfig::new(shape(4, 2), 77) };
    let mut sim = sim(&config, workload, Balancer::Stay);
    // Nobody gets a task out of the second domain's queue.
    sim.kernel().broken_dsq = Some(1);
    let error = sim.run_for(10_000 * MS).unwrap_err();
    assert!(matches!(&error, SimError::Starved { waited_ns, seed: 77, .. } if *waited_ns > 1_000 * MS), "{error}");
    assert!(error.to_string().contains("starves") && error.to_string().contains("seed 77"), "{error}");
}

#[test]
fn a_migrating_balancer_moves_more_than_one_that_stays() {
    let moved = |balancer| {
        let mut sim = sim(&SimConfig::new(shape(16, 4), 9), Workload::mixed(16, 0.9), balancer);
        sim.run_for(500 * MS).unwrap();
        let (asked, migrated) = decisions(&sim.scheduler_mut().counters());
        assert!(asked > 100, "{balancer:?} was asked {asked} times");
        (migrated as f64 / asked as f64, sim.totals().moves)
    };
    let (stay, greedy, random) = (moved(Balancer::Stay), moved(Balancer::Greedy), moved(Balancer::Random));
    assert_eq!((stay.0, greedy.0), (0.0, 1.0));
    assert!((0.4..0.6).contains(&random.0), "a fair coin: {}", random.0);
    assert!(stay.1 < greedy.1, "{stay:?} {greedy:?}");
}

#[test]
fn the_agent_sees_events_and_publishes() {
    let mut sim = sim(&SimConfig::new(shape(8, 4), 4), Workload::mixed(8, 0.95), Balancer::Random);
    sim.run_for(300 * MS).unwrap();
    let mut events = Vec::new();
    sim.poll(&mut events).unwrap();
    assert!(events.len() > 100, "{} events", events.len());
    for event in &events {
        assert_eq!(u32::from(event.version), RL_EVENT_VERSION);
        assert_eq!((event.p_migrate_q16, event.home_dom < 4, event.other_dom < 4), (1 << 15, true, true));
        assert_ne!(event.home_dom, event.other_dom);
    }
    assert_eq!(sim.publish(&rl_weights::default(), RL_MODE_DRAW, 655).unwrap(), 2, "the second generation");
    sim.run_for(50 * MS).unwrap();
    events.clear();
    sim.poll(&mut events).unwrap();
    let newest = events.iter().filter(|e| e.generation == 2).count();
    assert!(newest > 0 && events.iter().all(|e| e.generation <= 2), "{newest}");
}

#[test]
fn events_that_nobody_takes_are_counted_as_lost() {
    let config = SimConfig { events_max: 10, ..SimConfig::new(shape(8, 4), 4) };
    let mut sim = sim(&config, Workload::mixed(8, 0.95), Balancer::Random);
    sim.run_for(300 * MS).unwrap();
    assert!(sim.scheduler_mut().counters().get(RL_CNT_events_dropped) > 10);
    let mut events = Vec::new();
    sim.poll(&mut events).unwrap();
    assert_eq!(events.len(), 10);
}

#[test]
fn large_machines_run() {
    let shape = Shape { cpus: 1024, llcs: 64, nodes: 8, threads: 2 };
    let mut sim = sim(&SimConfig::new(shape, 1), Workload::mixed(1024, 0.5), Balancer::Heuristic);
    sim.run_for(5 * MS).unwrap();
    assert!(sim.totals().runs > 1000);
}

#[test]
fn nonsense_is_refused() {
    let mut workload = Workload::default();
    workload.tasks.push(TaskSpec { name: "nowhere".into(), allowed: Some(vec![9]), ..TaskSpec::default() });
    let publication = Balancer::Heuristic.publication();
    let error = Sim::new(&SimConfig::new(shape(4, 2), 1), workload, &publication).err().unwrap();
    assert!(error.to_string().contains("CPUs that do not exist"), "{error}");
    let _first = sim(&SimConfig::new(shape(4, 2), 1), Workload::mixed(4, 0.5), Balancer::Heuristic);
    let second = Sim::new(&SimConfig::new(shape(4, 2), 1), Workload::default(), &publication);
    assert!(second.err().unwrap().to_string().contains("has a simulation already"));
}

#[test]
fn yields_give_way() {
    let mut workload = Workload::default();
    let role = Role::Spin { run_ns: 900_000 };
    let spec = TaskSpec { name: "spin".into(), role, ..TaskSpec::default() };
    let spinner = workload.add(1, &spec).start;
    let hog = workload.hogs(1, 100, 0).start;
    let mut sim = sim(&SimConfig::new(shape(1, 1), 1), workload, Balancer::Heuristic);
    sim.run_for(2_000 * MS).unwrap();
    let got = |task| sim.task_stats(task).unwrap();
    assert!(got(spinner).service_ns < got(hog).service_ns, "{:?} {:?}", got(spinner), got(hog));
    assert!(got(spinner).runs > 20, "it is not forgotten: {:?}", got(spinner));
}

#[test]
fn costs_and_shared_cores_are_paid_for() {
    let alone = |threads, cpus| {
        let mut workload = Workload::default();
        let hogs = workload.hogs(2, 100, 0);
        let mut sim =
            sim(&SimConfig::new(Shape { cpus, llcs: 1, nodes: 1, threads }, 1), workload, Balancer::Heuristic);
        sim.run_for(1_000 * MS).unwrap();
        hogs.map(|t| sim.task_stats(t).unwrap().work_ns).sum::<u64>()
    };
    let (cores, shared) = (alone(1, 2), alone(2, 2));
    assert!((1_990 * MS..=2_000 * MS).contains(&cores), "two cores: {cores}");
    // 160 / 256 each
    assert!((1_230 * MS..=1_260 * MS).contains(&shared), "one core with two threads: {shared}");
    let spread = alone(2, 4);
    assert!(spread > 1_980 * MS, "a whole core before a sibling: {spread}");

    // Tasks with much data lose more to moves.
    let refilled = |working_set_kib| {
        let mut workload = Workload::default();
        workload.batch(24, MS, MS, working_set_kib);
        let mut sim = sim(&SimConfig::new(shape(8, 4), 1), workload, Balancer::Greedy);
        sim.run_for(500 * MS).unwrap();
        sim.totals().refill_ns
    };
    let (small, large) = (refilled(16), refilled(512));
    assert!(small > 0 && large > 10 * small, "{small} {large}");
}

#[test]
fn a_cpu_that_is_lost_keeps_nobody_waiting() {
    let faults = Faults { lose_cpu_every_ns: 5 * MS, lose_cpu_for_ns: 20 * MS, ..Faults::default() };
    let config = SimConfig { faults, starve_ns: 500 * MS, ..SimConfig::new(shape(8, 2), 5) };
    let run = || {
        let mut sim = sim(&config, Workload::mixed(8, 0.4), Balancer::Heuristic);
        sim.run_for(2000 * MS).unwrap();
        (sim.totals().hash(), sim.totals().wait.percentile_us(0.99), sim.totals().response.samples())
    };
    let (hash, p99_us, served) = run();
    // Half of the machine is lost on the mean: what ran there must go elsewhere within a moment, not after 20 ms.
    assert!(p99_us < 15_000.0, "{p99_us}");
    assert!(served > 5_000, "{served}");
    assert_eq!(run().0, hash, "faults are a function of the seed");
}

#[test]
fn events_get_lost_and_publications_late_as_told() {
    let faults = Faults { lose_events: 0.5, publish_delay_ns: 50 * MS, ..Faults::default() };
    let config = SimConfig { faults, ..SimConfig::new(shape(8, 4), 4) };
    let mut sim = sim(&config, Workload::mixed(8, 0.95), Balancer::Random);
    sim.run_for(300 * MS).unwrap();
    let mut events = Vec::new();
    sim.poll(&mut events).unwrap();
    let lost = sim.scheduler_mut().counters().get(RL_CNT_events_dropped) as f64;
    let share = lost / (lost + events.len() as f64);
    assert!((share - 0.5).abs() < 0.1, "{share}");
    assert_eq!(sim.publish(&rl_weights::default(), RL_MODE_DRAW, 655).unwrap(), 2);
    let mut newest = |ns| {
        sim.run_for(ns).unwrap();
        events.clear();
        sim.poll(&mut events).unwrap();
        events.iter().map(|e| e.generation).max()
    };
    assert_eq!(newest(45 * MS), Some(1));
    assert_eq!(newest(100 * MS), Some(2));
}

#[test]
fn rivals_choose_in_place_of_the_policy() {
    let mixed = |rival, balancer| {
        let config = SimConfig { rival, ..SimConfig::new(shape(16, 4), 6) };
        let mut sim = sim(&config, Workload::mixed(16, 0.9), balancer);
        sim.run_for(500 * MS).unwrap();
        (sim.totals().hash(), sim.totals().wait.mean_us(), sim.totals().moves)
    };
    // Who knows which tasks are dear, and does the same with them.
    let rule = Rule::default().numbers();
    let never = rl_rule { margin: 255, numa_margin: 255, ..rl_rule::default() };
    let fixed = mixed(Rival::None, Balancer::Heuristic);
    assert_eq!(mixed(Rival::Split(rule), Balancer::Heuristic), fixed);
    let split = mixed(Rival::Split(never), Balancer::Heuristic);
    assert!(split.2 < fixed.2 / 2, "all tasks of the mixture have a working set: {split:?} {fixed:?}");
    // Whatever is published.
    let stay = mixed(Rival::None, Balancer::Stay);
    for rival in [Rival::TwoChoices, Rival::Rusty] {
        let with = mixed(rival, Balancer::Stay);
        assert_eq!(with, mixed(rival, Balancer::Greedy), "{rival:?}");
        assert!(with.1 < stay.1, "{rival:?}: {with:?} {stay:?}");
    }
}

#[test]
fn a_rusty_task_belongs_to_a_domain_and_loads_become_equal() {
    let mut workload = Workload::default();
    // All in the first domain, while they are being created.
    let hogs = workload.hogs(12, 100, 0);
    for task in hogs.clone() {
        workload.tasks[task].allowed = Some(vec![0, 1]);
        workload.changes.push((100 * MS, task, Change::Affinity((0..4).collect())));
    }
    let ran = |rival| {
        let config = SimConfig { rival, ..SimConfig::new(shape(4, 2), 2) };
        let mut with_pinned = workload.clone();
        // So that nobody idles, and helps out.
        for cpu in [2, 3] {
            let allowed = Some(vec![cpu]);
            with_pinned.add(1, &TaskSpec { name: "pinned".into(), allowed, ..TaskSpec::default() });
        }
        let mut sim = sim(&config, with_pinned, Balancer::Stay);
        sim.run_for(12_000 * MS).unwrap();
        hogs.clone().map(|task| sim.task_stats(task).unwrap().moves).sum::<u64>()
    };
    assert_eq!(ran(Rival::None), 0, "who stays, stays");
    let moves = ran(Rival::Rusty);
    assert!((3..=12).contains(&moves), "moved once each, and then let be: {moves}");
}

#[test]
fn decided_moves_can_be_limited_by_distance() {
    let decided = |limits: &str| {
        let mut config = SimConfig::new(Shape { cpus: 16, llcs: 4, nodes: 2, threads: 1 }, 8);
        if !limits.is_empty() {
            config.scheduler.migration_limits = limits.parse().unwrap();
        }
        let mut sim = sim(&config, Workload::mixed(16, 0.9), Balancer::Greedy);
        sim.run_for(2_000 * MS).unwrap();
        let counters = sim.scheduler_mut().counters();
        (decisions(&counters).1, counters.get(RL_CNT_throttled))
    };
    let (free, throttled) = decided("");
    assert!(free > 2_000 && throttled == 0, "{free}");
    // Two seconds and what a bucket holds, of four domains and both distances.
    let (few, throttled) = decided("node=50,numa=20");
    assert!((100..=4 * (2 * 70 + 5 + 2)).contains(&few) && throttled > 0, "{few} moved, {throttled} throttled");
    let (numa, _) = decided("node=50");
    assert!(numa > few, "another class is not limited: {numa}");
}
