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
    [-5.839947464308518, 0.532926655309065, -6.955375773105732, -4.724519155511304, -6.761448430137761],
    [-6.517829191452636, 0.409338869709825, -7.37458529215959, -5.661073090745682, -7.225630462098964],
    [-6.388493121810903, 0.3941895498652079, -7.213541331675149, -5.563444911946657, -7.070099206441672],
];
/// Share that migrates, effective events, largest weight, mean weight.
const HEURISTIC_FACTS: [f64; 4] = [0.4038359083644113, 173.34726701750134, 11.83815028901734, 0.8959957821488971];

const COIN: [[f64; 5]; 3] = [
    [-5.944685697929137, 0.20890280589783017, -6.381924295706677, -5.507447100151598, -6.305906394025955],
    [-6.235116675473912, 0.1872805235247957, -6.627099316133482, -5.843134034814342, -6.558949573659536],
    [-6.107931043057628, 0.2029599166672473, -6.532731030722873, -5.6831310553923835, -6.458875694390608],
];
const COIN_FACTS: [f64; 4] = [0.5, 330.1490522362785, 5.91907514450867, 0.9534201214409994];

const CLIPPED: [[f64; 5]; 3] = [
    [-5.159665589542695, 0.4445264602788394, -6.090070163727265, -4.229261015358125, -5.9283108776002855],
    [-6.657964909565212, 0.4595856695071959, -7.619888770905099, -5.696041048225325, -7.45264957041512],
    [-6.457346755674072, 0.36967308464307347, -7.231081414099327, -5.683612097248817, -7.096560615866726],
];
const CLIPPED_FACTS: [f64; 4] = [0.4038359083644113, 272.92358452425043, 3.0, 0.7749613672685515];

const DIFFERENCE: [[f64; 5]; 3] = [
    [0.10473823362061907, 0.4477103496192306, -0.8323302975399641, 1.0418067647812022, -0.6694124219636954],
    [-0.2827125159787238, 0.3200143368218919, -0.9525102207024516, 0.38708518874500397, -0.8360598059347075],
    [-0.28056207875327477, 0.32230886104194745, -0.9551622778630012, 0.3940381203564517, -0.837876905824987],
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
