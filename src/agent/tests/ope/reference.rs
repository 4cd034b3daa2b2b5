// SPDX-License-Identifier: GPL-2.0-only
//! The estimates against an independent script: `python3 src/agent/tests/ope/reference.py` prints the numbers below.

use super::*;

/// The upper 16 bits of a linear congruential generator.
struct Generator(u32);

impl Generator {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 16
    }
}

/// As `generate()` in reference.py.
fn events() -> Vec<rl_event> {
    let mut random = Generator(1);
    let event = |number: u32| {
        let features: Features = std::array::from_fn(|_| (random.next() % 128) as u8);
        let x = features.map(u64::from);
        let p_migrate_q16 = [6554, 16384, 32768, 49152, 60000][random.next() as usize % 5];
        let migrate = random.next() < p_migrate_q16;
        let sample_shift = (random.next() % 3) as u8;
        let queue_ns = 20_000 * x[2] + if migrate { 15_000 * x[3] } else { 30_000 * x[4] };
        let starved_ns = if number.is_multiple_of(37) { 80 * MS } else { 0 };
        let wait_ns = MS + queue_ns + 30 * u64::from(random.next()) + starved_ns;
        let service_ns = 45 * u64::from(random.next());
        let action = u8::from(migrate);
        rl_event { features, p_migrate_q16, action, sample_shift, wait_ns, service_ns, ..valid_event() }
    };
    (0..800).map(event).collect()
}

/// For IPS, SNIPS and DR: value, standard error, lower and upper end, one-sided bound.
const HEURISTIC: [[f64; 5]; 3] = [
    [-6.013252895710005, 0.5379434002559619, -7.139181372355906, -4.887324419064105, -6.943428479833961],
    [-6.711251342375983, 0.40703651529853396, -7.563188559918332, -5.8593141248336345, -7.415071536465997],
    [-6.577889678636598, 0.3923716486596495, -7.399132977549073, -5.756646379724124, -7.256352370644732],
];
/// Share that migrates, effective events, largest weight, mean weight.
const HEURISTIC_FACTS: [f64; 4] = [0.4038359083644113, 173.34726701750134, 11.83815028901734, 0.8959957821488971];

const COIN: [[f64; 5]; 3] = [
    [-6.1441158645495415, 0.21210433448516933, -6.588055338671257, -5.700176390427826, -6.510872428773751],
    [-6.444290115529892, 0.18234715559133063, -6.825947098435473, -6.062633132624311, -6.759592565350454],
    [-6.31379472147997, 0.19768090819728484, -6.727545617434158, -5.900043825525781, -6.655611266055238],
];
const COIN_FACTS: [f64; 4] = [0.5, 330.1490522362785, 5.91907514450867, 0.9534201214409994];

const CLIPPED: [[f64; 5]; 3] = [
    [-5.313331714063059, 0.4473066499073865, -6.2495552920159945, -4.377108136110124, -6.086784319229622],
    [-6.856253664347892, 0.4590026088233006, -7.816957165651207, -5.895550163044577, -7.649930135838168],
    [-6.654100274330521, 0.36916011271347726, -7.426761270167894, -5.881439278493147, -7.29242713792832],
];
const CLIPPED_FACTS: [f64; 4] = [0.4038359083644113, 272.92358452425043, 3.0, 0.7749613672685515];

const DIFFERENCE: [[f64; 5]; 3] = [
    [0.1308629688395362, 0.4575573143075238, -0.8268154962765534, 1.0885414339556259, -0.6603143964811983],
    [-0.26696122684609147, 0.31778483728082796, -0.9320925354010803, 0.39817008170889734, -0.8164534159923497],
    [-0.2640949571566287, 0.31847443423963384, -0.930669608734245, 0.40247969442098763, -0.8147795510310835],
];
const DIFFERENCE_EFFECTIVE: f64 = 330.1490522362785;

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} {expected}");
}

#[track_caller]
fn agree(found: &Estimates, expected: &[[f64; 5]; 3]) {
    for (e, expected) in [found.ips, found.snips, found.dr].iter().zip(expected) {
        let found = [e.value_ms, e.error_ms, e.low_ms, e.high_ms, e.at_least_ms];
        found.iter().zip(expected).for_each(|(&found, &expected)| close(found, expected));
    }
}

#[test]
fn estimates_agree_with_a_plain_reference() {
    let plain = Evaluator::new(Log::of(&events()), Settings::default()).unwrap();
    let clipping = Evaluator::new(Log::of(&events()), Settings { clip: Some(3.0), ..Settings::default() }).unwrap();
    let (heuristic, coin) = (plain.evaluate(&Policy::heuristic()), plain.evaluate(&Policy::random()));
    let clipped = clipping.evaluate(&Policy::heuristic());
    for (evaluated, estimates, facts) in
        [(&heuristic, HEURISTIC, HEURISTIC_FACTS), (&coin, COIN, COIN_FACTS), (&clipped, CLIPPED, CLIPPED_FACTS)]
    {
        agree(&unguarded(evaluated), &estimates);
        let Value { migrated_share, effective_events, largest_weight, mean_weight, .. } = evaluated.value();
        let found = [migrated_share, effective_events, largest_weight, mean_weight];
        found.iter().zip(facts).for_each(|(&found, expected)| close(found, expected));
    }
    agree(&heuristic.estimates(Ratio::minus, &coin), &DIFFERENCE);
    close(heuristic.minus(&coin).effective_events, DIFFERENCE_EFFECTIVE);
}
