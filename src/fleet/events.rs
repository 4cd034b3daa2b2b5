// SPDX-License-Identifier: GPL-2.0-only
//! Decision events as rows of a table, and back to the bit. Every field of `struct rl_event` is a column of its name, every
//! feature one of its name after `f_`; `row` counts from 0, `schema` tells what the features mean, and `reward_ms` is what
//! [`reward`](crate::agent::reward) makes of it (missing where there is none), for those who query. Rows are complete in
//! themselves: an engine may filter, mix and split them.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::agent::reward::{REWARDS, Verdict, judge, raw_reward_ms};
use crate::policy::host::{feature_names, feature_schema_hash};
use crate::policy::rl_event;
use crate::table::{Column, Table, to_parquet};

/// A field of an event.
struct Field {
    name: &'static str,
    get: fn(&rl_event) -> i128,
    /// False if it does not hold this number.
    set: fn(&mut rl_event, i64) -> bool,
}

macro_rules! fields {
    ($($field:ident: $kind:ty),* $(,)?) => {
        [$(Field {
            name: stringify!($field),
            get: |event| i128::from(event.$field),
            set: |event, value| <$kind>::try_from(value).map(|value| event.$field = value).is_ok(),
        }),*]
    };
}

/// All but features and what is reserved.
const FIELDS: [Field; 19] = fields![
    decided_at_ns: u64,
    generation: u64,
    wait_ns: u64,
    service_ns: u64,
    usual_service_ns: u64,
    waited_before_ns: u64,
    logit_q8: i32,
    p_migrate_q16: u32,
    tid: u32,
    home_dom: u16,
    other_dom: u16,
    ran_dom: u16,
    version: u8,
    point: u8,
    action: u8,
    distance: u8,
    mode: u8,
    sample_shift: u8,
    flags: u32,
];

/// What features and rewards mean in this build.
fn schema() -> String {
    format!("rewards {REWARDS}, features {}", feature_schema_hash())
}

/// Names of the features' columns.
fn feature_columns() -> Vec<String> {
    feature_names().iter().map(|name| format!("f_{name}")).collect()
}

/// A Parquet file of these events, the first of which is that `first` of its run.
///
/// # Errors
/// A number is beyond 2^63, as no time or count is.
pub fn write(events: &[rl_event], first: u64) -> Result<Vec<u8>> {
    let rows = (0..events.len()).map(|i| i64::try_from(first + i as u64)).collect::<Result<_, _>>()?;
    let mut columns = vec![
        ("row", Column::Whole(rows)),
        ("schema", Column::Text(vec![schema(); events.len()])),
        (
            "reward_ms",
            Column::Real(events.iter().map(|e| (judge(e) == Verdict::Learn).then(|| raw_reward_ms(e))).collect()),
        ),
    ];
    for field in &FIELDS {
        let values = events.iter().map(|event| i64::try_from((field.get)(event)));
        let values = values.collect::<Result<_, _>>().with_context(|| format!("{} of an event", field.name))?;
        columns.push((field.name, Column::Whole(values)));
    }
    let names = feature_columns();
    for (i, name) in names.iter().enumerate() {
        columns.push((name, Column::Whole(events.iter().map(|event| i64::from(event.features[i])).collect())));
    }
    to_parquet(&columns)
}

/// Hand over the events of a Parquet file, in its order. Columns may be in any order, and there may be others. Returns their
/// number.
///
/// # Errors
/// A column is not there or damaged, a number does not fit, or the events are of a build with other features or rewards; and
/// those of `each`.
pub fn read(bytes: Bytes, mut each: impl FnMut(&rl_event) -> Result<()>) -> Result<u64> {
    let (table, schema, features) = (Table::open(bytes)?, schema(), feature_columns());
    let mut count = 0;
    for group in 0..table.groups() {
        let schemas = table.text(group, "schema")?;
        if let Some(other) = schemas.iter().find(|other| other.as_ref() != schema.as_bytes()) {
            anyhow::bail!(
                "events of another version of scx_rl ({:?}, this one has {schema:?}): use that one",
                String::from_utf8_lossy(other)
            );
        }
        let mut events = vec![rl_event::default(); schemas.len()];
        for field in &FIELDS {
            fill(&mut events, table.whole(group, field.name)?, field.name, field.set)?;
        }
        for (i, name) in features.iter().enumerate() {
            fill(&mut events, table.whole(group, name)?, name, |event, value| {
                u8::try_from(value).map(|value| event.features[i] = value).is_ok()
            })?;
        }
        count += events.len() as u64;
        events.iter().try_for_each(&mut each)?;
    }
    Ok(count)
}

fn fill(events: &mut [rl_event], values: Vec<i64>, name: &str, set: impl Fn(&mut rl_event, i64) -> bool) -> Result<()> {
    ensure!(events.len() == values.len(), "the column {name} has another length than others");
    for (event, value) in events.iter_mut().zip(values) {
        ensure!(set(event, value), "the column {name} holds {value}, which no event does");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::recording::{EVENT_BYTES, event_from_bytes, event_to_bytes};

    /// Events of any bytes, but for what is reserved and the sign of times.
    fn some_events(count: usize) -> Vec<rl_event> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut any = || {
            let mut bytes = [0; EVENT_BYTES];
            rng.fill(&mut bytes[..]);
            let mut event = event_from_bytes(&bytes);
            event.reserved = [0; 2];
            for ns in [
                &mut event.decided_at_ns,
                &mut event.generation,
                &mut event.wait_ns,
                &mut event.service_ns,
                &mut event.usual_service_ns,
                &mut event.waited_before_ns,
            ] {
                *ns >>= 1;
            }
            event
        };
        (0..count).map(|_| any()).collect()
    }

    fn read_all(bytes: Vec<u8>) -> Result<Vec<rl_event>> {
        let mut events = Vec::new();
        read(bytes.into(), |event| {
            events.push(*event);
            Ok(())
        })?;
        Ok(events)
    }

    #[test]
    fn events_come_back_to_the_bit() {
        let events = some_events(1000);
        let back = read_all(write(&events, 7).unwrap()).unwrap();
        assert_eq!(events.len(), back.len());
        for (event, back) in events.iter().zip(&back) {
            assert_eq!(event_to_bytes(event), event_to_bytes(back));
        }
        assert!(read_all(write(&[], 0).unwrap()).unwrap().is_empty());
        let beyond = rl_event { wait_ns: u64::MAX, ..Default::default() };
        assert!(format!("{:#}", write(&[beyond], 0).unwrap_err()).contains("wait_ns of an event"));
    }

    #[test]
    fn what_no_event_holds_is_refused() {
        let row = |schema: &str, tid: i64| {
            let mut columns = vec![("schema", Column::Text(vec![schema.to_string()]))];
            for field in &FIELDS {
                columns.push((field.name, Column::Whole(vec![if field.name == "tid" { tid } else { 0 }])));
            }
            let names = feature_columns();
            columns.extend(names.iter().map(|name| (name.as_str(), Column::Whole(vec![0]))));
            read_all(to_parquet(&columns).unwrap()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(row(&schema(), 5).unwrap()[0].tid, 5);
        assert!(row(&schema(), -1).unwrap_err().contains("the column tid holds -1, which no event does"));
        assert!(row(&schema(), 1 << 32).unwrap_err().contains("the column tid holds 4294967296"));
        assert!(row("rewards 1, features x", 0).unwrap_err().contains("another version of scx_rl"));
        let less = to_parquet(&[("schema", Column::Text(vec![schema()]))]).unwrap();
        assert!(format!("{:#}", read_all(less).unwrap_err()).contains("cannot read the column decided_at_ns"));
    }
}
