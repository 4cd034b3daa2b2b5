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
        let mut features: Features = std::array::from_fn(|_| (random.next() % 128) as u8);
        features[RL_F_turn as usize] = 0;
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
    [-6.556239993301661, 0.5123668470148247, -7.628636128785008, -5.483843857818314, -7.442190320010743],
    [-6.179176721125971, 0.33183006927601183, -6.873705038096625, -5.484648404155318, -6.752954981760531],
    [-6.004335392498023, 0.37640205757002587, -6.792153953120851, -5.216516831875195, -6.655184540566509],
];
/// Share that migrates, effective events, largest weight, mean weight.
const HEURISTIC_FACTS: [f64; 4] = [0.3672043010752688, 151.1737351622716, 11.83815028901734, 1.061021603555462];

const COIN: [[f64; 5]; 3] = [
    [-6.591359927088261, 0.4941943522105072, -7.6257205938175625, -5.5569992603589595, -7.445887596763996],
    [-6.744479842449215, 0.4649568680955107, -7.717645751635449, -5.771313933262982, -7.548452019015375],
    [-6.735177849944883, 0.49816288466505665, -7.777844750562256, -5.6925109493275095, -7.596567639301367],
];
const COIN_FACTS: [f64; 4] = [0.5, 330.60638440321685, 5.91907514450867, 0.9772970015571505];

const CLIPPED: [[f64; 5]; 3] = [
    [-5.384913503688337, 0.41660328101067395, -6.256874191989083, -4.5129528153875915, -6.10527590627135],
    [-6.381385434090093, 0.3867664730747979, -7.19089696567429, -5.571873902505895, -7.050156033080121],
    [-6.420083048295489, 0.3214062318720727, -7.092794022840457, -5.747372073750522, -6.975837109652935],
];
const CLIPPED_FACTS: [f64; 4] = [0.3672043010752688, 276.66680919547946, 3.0, 0.8438470860765613];

const DIFFERENCE: [[f64; 5]; 3] = [
    [0.035119933786599944, 0.7084323699087507, -1.447646057353868, 1.517885924927068, -1.1898537217664633],
    [0.565303121323244, 0.5416504459393564, -0.5683842911087917, 1.6989905337552798, -0.37128243712567754],
    [0.7308424574468599, 0.5896605009426104, -0.50333115496045, 1.9650160698541699, -0.2887588623911337],
];
const DIFFERENCE_EFFECTIVE: f64 = 330.60638440321685;

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
