// SPDX-License-Identifier: GPL-2.0-only
//! A recorded run replays to the same bits, and a damaged recording says so.

use super::super::recording::{
    EVENT_BYTES, Header, RECORD_BYTES, Reader, Record, Recorder, RecordingError, event_from_bytes, event_to_bytes,
    replay, replay_onto,
};
use super::*;

/// A live run of 5 parts with a checkpoint after each, recorded.
fn live_run(agent: &mut Agent, seed: u64, limit: Option<u64>) -> (Vec<u8>, u64) {
    let mut world = World::new(seed, RL_MODE_DRAW);
    let mut recorder = Recorder::new(Vec::new(), &Header::of(agent), limit).unwrap();
    for part in 0..5 {
        world.slot.weights = agent.weights().unwrap();
        let mut events = world.events(500 + part);
        events[3].flags = RL_EV_CENSOR_EXIT;
        events[4].version = 9;
        recorder.events(&events).unwrap();
        agent.observe(&events).unwrap();
        recorder.restart().unwrap();
        agent.checkpoint(Origin::default()).unwrap();
    }
    let events = world.events(333);
    recorder.events(&events).unwrap();
    agent.observe(&events).unwrap();
    let lost = recorder.lost();
    (recorder.finish().unwrap(), lost)
}

#[test]
fn replay_is_the_live_run_to_the_bit() {
    let mut agent = Agent::new(small(), 3).unwrap();
    let (file, lost) = live_run(&mut agent, 3, None);
    assert_eq!(lost, 0);
    let again = replay(Reader::new(file.as_slice()).unwrap()).unwrap();
    assert_eq!((again.events, again.restarts, again.complete), (5 * 500 + 10 + 333, 5, true));
    assert_eq!(bits(&again.agent), bits(&agent));
    assert_eq!(again.agent.weights().unwrap(), agent.weights().unwrap());
    assert_eq!(again.agent.metrics(), agent.metrics());
    assert_eq!(again.agent.history(), agent.history());
}

#[test]
fn a_missing_restart_makes_a_difference() {
    let mut agent = Agent::new(small(), 3).unwrap();
    let (mut file, _) = live_run(&mut agent, 3, None);
    // The first restart is record 500. The test above would pass with restarts that do nothing; this one would not.
    let header = file.len() - (5 * 500 + 10 + 5 + 333) * RECORD_BYTES;
    let at = header + 500 * RECORD_BYTES;
    assert_eq!(file[at], 2);
    file.drain(at..at + RECORD_BYTES);
    assert_ne!(bits(&replay(Reader::new(file.as_slice()).unwrap()).unwrap().agent), bits(&agent));
}

#[test]
fn a_resumed_run_replays_onto_its_checkpoint() {
    let mut first = Agent::new(small(), 4).unwrap();
    live_run(&mut first, 4, None);
    let checkpoint = first.checkpoint(Origin::default()).unwrap();
    let mut agent = Agent::resume(&checkpoint).unwrap();
    let (file, _) = live_run(&mut agent, 5, None);
    let reader = || Reader::new(file.as_slice()).unwrap();
    let again = replay_onto(reader(), Agent::resume(&checkpoint).unwrap()).unwrap();
    assert_eq!(bits(&again.agent), bits(&agent));
    let error = replay(reader()).err().unwrap().to_string();
    assert!(error.contains("replay onto the checkpoint"), "{error}");
}

#[test]
fn recording_stops_at_its_limit_and_says_so() {
    let mut agent = Agent::new(small(), 3).unwrap();
    let (whole, _) = live_run(&mut agent, 3, None);
    let mut agent = Agent::new(small(), 3).unwrap();
    let (file, lost) = live_run(&mut agent, 3, Some(100_000));
    assert!(file.len() <= 100_000 && file.len() > 100_000 - 2 * RECORD_BYTES, "{}", file.len());
    assert_eq!(lost as usize, (whole.len() - file.len()) / RECORD_BYTES + 1);
    assert_eq!(Reader::new(file.as_slice()).unwrap().last().unwrap().unwrap(), Record::Stopped);
    assert!(!replay(Reader::new(file.as_slice()).unwrap()).unwrap().complete);
    assert!(Recorder::new(Vec::new(), &Header::of(&agent), Some(200)).is_err(), "no room for anything");
}

#[test]
fn a_torn_record_is_an_error_that_counts_the_whole_ones() {
    let header = Header::of(&Agent::new(small(), 3).unwrap());
    let mut recorder = Recorder::new(Vec::new(), &header, None).unwrap();
    recorder.events(&World::new(1, RL_MODE_RANDOM).events(10)).unwrap();
    let file = recorder.finish().unwrap();
    let start = file.len() - 10 * RECORD_BYTES;
    for length in 0..file.len() {
        match Reader::new(&file[..length]) {
            Err(e) => assert!(length < start && matches!(e, RecordingError::NoHeader), "{length}: {e}"),
            Ok(reader) => {
                let (whole, torn) = ((length - start) / RECORD_BYTES, !(length - start).is_multiple_of(RECORD_BYTES));
                let (good, bad): (Vec<_>, Vec<_>) = reader.partition(|r| r.is_ok());
                assert_eq!((good.len(), bad.len()), (whole, usize::from(torn)));
                if let Some(Err(e)) = bad.first() {
                    assert!(e.to_string().contains(&format!("after {whole} whole ones")), "{e}");
                }
            }
        }
    }
}

#[test]
fn damaged_and_foreign_recordings_are_refused() {
    let header = Header::of(&Agent::new(small(), 3).unwrap());
    let mut recorder = Recorder::new(Vec::new(), &header, None).unwrap();
    recorder.events(&World::new(1, RL_MODE_RANDOM).events(10)).unwrap();
    let file = recorder.finish().unwrap();
    let start = file.len() - 10 * RECORD_BYTES;
    let with = |at: usize, byte: u8| {
        let mut changed = file.clone();
        changed[at] = byte;
        changed
    };
    let header_error = |bytes: &[u8]| Reader::new(bytes).err().unwrap();
    assert!(matches!(header_error(&with(0, b'X')), RecordingError::NotOurs));
    assert!(matches!(header_error(&with(8, 9)), RecordingError::OtherBuild { what: "the format", .. }));
    assert!(matches!(header_error(&with(12, 9)), RecordingError::OtherBuild { what: "the event version", .. }));
    assert!(matches!(header_error(&with(32, 9)), RecordingError::Start(9)));
    assert!(matches!(header_error(&with(40, b'x')), RecordingError::OtherBuild { what: "the feature schema", .. }));
    assert!(matches!(header_error(&with(103, 0xff)), RecordingError::Hyper(_)));
    assert!(matches!(header_error(&with(102, 0xff)), RecordingError::Hyper(_)));
    let damaged = with(start + 4 * RECORD_BYTES, 77);
    let error = Reader::new(damaged.as_slice()).unwrap().find_map(|r| r.err()).unwrap();
    assert!(matches!(error, RecordingError::Tag { index: 4, tag: 77 }), "{error}");
    // Whatever the bytes, never a panic, and never an endless stream.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..2000 {
        let mut bytes = file.clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        if let Ok(reader) = Reader::new(bytes.as_slice()) {
            assert!(reader.count() <= 11);
        }
    }
}

#[test]
fn events_survive_their_bytes() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..100 {
        let bytes: [u8; EVENT_BYTES] = std::array::from_fn(|_| rng.random());
        assert_eq!(event_to_bytes(&event_from_bytes(&bytes)), bytes);
    }
    let event = rl_event { decided_at_ns: 0x0102_0304_0506_0708, tid: 0xa1b2_c3d4, reserved: [9; 2], ..valid_event() };
    let bytes = event_to_bytes(&event);
    assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[56..60], [0xd4, 0xc3, 0xb2, 0xa1]);
    assert_eq!(event_from_bytes(&bytes), event);
}
