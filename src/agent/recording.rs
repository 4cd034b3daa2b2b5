// SPDX-License-Identifier: GPL-2.0-only
//! The stream that made an agent, in a file: replaying it gives the same weights to the bit (on the same machine and
//! build).
//!
//! ```text
//! magic "scx_rl-r"  8     version  u32    event version  u32    seed  u64    updates at the start  u64    start  u32
//! feature schema hash  64 (hex)           length of the hyper-parameters  u32, then their JSON
//! records of 97 bytes: tag u8, then the 96 bytes of struct rl_event, or zeros
//! ```
//!
//! All integers are little-endian. A run that resumed from a checkpoint is replayed onto that checkpoint.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use thiserror::Error;

use crate::policy::{RL_EVENT_VERSION, host::feature_schema_hash, rl_event};

use super::{Agent, Hyper, Start};

const _: () = assert!(cfg!(target_endian = "little"), "events are recorded as they are in memory: little-endian only");

/// Size of `struct rl_event`.
pub const EVENT_BYTES: usize = size_of::<rl_event>();
/// Size of a record.
pub const RECORD_BYTES: usize = 1 + EVENT_BYTES;

const MAGIC: &[u8; 8] = b"scx_rl-r";
const VERSION: u32 = 4;
const HYPER_MAX_BYTES: u32 = 64 << 10;
const SCHEMA_BYTES: usize = 64;

const TAG_EVENT: u8 = 1;
const TAG_RESTART: u8 = 2;
const TAG_STOPPED: u8 = 3;

/// The bytes of an event, as in the ring buffer.
pub fn event_to_bytes(event: &rl_event) -> [u8; EVENT_BYTES] {
    // SAFETY: rl_event is repr(C), made of integers without padding (intf.h asserts 96 bytes, its fields sum up to 96), so
    // all its bytes are initialised and every byte array of that size is a copy of one.
    unsafe { std::mem::transmute_copy(event) }
}

/// An event from its bytes, of any alignment. Any bytes are an event; whether it is sensible, `reward::judge` says.
pub fn event_from_bytes(bytes: &[u8; EVENT_BYTES]) -> rl_event {
    // SAFETY: rl_event consists of integers without padding, for which any bit pattern is valid; the sizes are equal, and
    // transmute_copy reads unaligned.
    unsafe { std::mem::transmute_copy(bytes) }
}

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The system refused.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("not a recording of scx_rl: use a file that --record wrote")]
    NotOurs,
    /// Cut off within the header.
    #[error("the recording is cut off within its header: nothing can be replayed")]
    NoHeader,
    /// Another format, event layout or feature table.
    #[error("{what} of the recording is {found}, of this build {expected}: replay it with the build that wrote it")]
    OtherBuild {
        /// Which part.
        what: &'static str,
        /// In the file.
        found: String,
        /// In this build.
        expected: String,
    },
    /// A beginning that this build does not know.
    #[error("the recorded run began in a way that this build does not know ({0}): the recording is damaged")]
    Start(u32),
    /// Hyper-parameters that this build refuses.
    #[error("the hyper-parameters of the recording are not valid: {0}")]
    Hyper(String),
    /// The last record is not whole.
    #[error("the recording ends within a record, after {whole} whole ones: its writer was killed or the disk was full")]
    Torn {
        /// Whole records before it.
        whole: u64,
    },
    /// Damaged.
    #[error("record {index} has the unknown tag {tag}: the recording is damaged from there on")]
    Tag {
        /// Number of the record, from 0.
        index: u64,
        /// Its tag.
        tag: u8,
    },
}

/// Whether a file begins as a recording does.
///
/// # Errors
/// It cannot be read.
pub fn is_recording(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    std::fs::File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC)
}

/// The events of a recording. One that ends within a record, because its writer was killed, is used as far as it goes.
///
/// # Errors
/// The file cannot be read, or is damaged. They name it.
pub fn events(path: &Path) -> Result<impl Iterator<Item = Result<rl_event>>> {
    let context = format!("cannot read the recording {}", path.display());
    let file = std::fs::File::open(path).with_context(|| context.clone())?;
    let records = Reader::new(file).with_context(|| context.clone())?;
    Ok(records.filter_map(move |record| match record {
        Ok(Record::Event(event)) => Some(Ok(event)),
        Ok(_) | Err(RecordingError::Torn { .. }) => None,
        Err(other) => Some(Err(other).with_context(|| context.clone())),
    }))
}

/// How the recorded run began.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Seed of the run.
    pub seed: u64,
    /// Updates that the agent had done: 0 for a fresh one.
    pub updates: u64,
    /// What it began with.
    pub start: Start,
    /// Its hyper-parameters.
    pub hyper: Hyper,
}

impl Header {
    /// Of an agent that has not observed anything yet.
    pub fn of(agent: &Agent) -> Self {
        Self {
            seed: agent.seed(),
            updates: agent.metrics().updates,
            start: agent.start(),
            hyper: agent.hyper().clone(),
        }
    }
}

/// One step of the recorded run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(clippy::large_enum_variant)] // read one at a time, never kept
pub enum Record {
    /// An event was observed.
    Event(rl_event),
    /// The agent restarted (at a checkpoint).
    Restart,
    /// The writer reached its size limit: the run went on, the recording did not.
    Stopped,
}

/// Writes a recording through a buffer.
pub struct Recorder<W: Write> {
    out: io::BufWriter<W>,
    bytes: u64,
    limit_bytes: Option<u64>,
    stopped: bool,
    lost: u64,
}

impl<W: Write> Recorder<W> {
    /// Begin a recording that grows to at most `limit_bytes`.
    pub fn new(out: W, header: &Header, limit_bytes: Option<u64>) -> Result<Self> {
        let hyper = header.hyper.to_json()?;
        let mut head = Vec::with_capacity(256 + hyper.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&RL_EVENT_VERSION.to_le_bytes());
        head.extend_from_slice(&header.seed.to_le_bytes());
        head.extend_from_slice(&header.updates.to_le_bytes());
        head.extend_from_slice(&(header.start as u32).to_le_bytes());
        head.extend_from_slice(feature_schema_hash().as_bytes());
        head.extend_from_slice(&(hyper.len() as u32).to_le_bytes());
        head.extend_from_slice(hyper.as_bytes());
        let least = (head.len() + RECORD_BYTES) as u64;
        ensure!(
            limit_bytes.is_none_or(|limit| limit >= least),
            "a recording needs at least {least} bytes: raise its limit"
        );
        let mut out = io::BufWriter::new(out);
        out.write_all(&head).context("cannot write the recording's header")?;
        Ok(Self { out, bytes: head.len() as u64, limit_bytes, stopped: false, lost: 0 })
    }

    /// Record events, in the order in which the agent observes them.
    pub fn events(&mut self, events: &[rl_event]) -> Result<()> {
        events.iter().try_for_each(|event| self.record(TAG_EVENT, &event_to_bytes(event)))
    }

    /// Record that the agent restarted.
    pub fn restart(&mut self) -> Result<()> {
        self.record(TAG_RESTART, &[0; EVENT_BYTES])
    }

    /// Events and restarts that came after the limit was reached.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Hand everything to the system, and give the output back.
    pub fn finish(self) -> Result<W> {
        self.out.into_inner().map_err(|e| e.into_error()).context("cannot write the recording's end")
    }

    fn record(&mut self, tag: u8, payload: &[u8; EVENT_BYTES]) -> Result<()> {
        if self.stopped {
            self.lost += 1;
            return Ok(());
        }
        // There is always room left for the record that says that it stopped.
        let after = self.bytes + 2 * RECORD_BYTES as u64;
        if self.limit_bytes.is_some_and(|limit| after > limit) {
            self.stopped = true;
            self.lost += 1;
            log::warn!("the recording has reached its size limit at {} bytes and stops; the run goes on", self.bytes);
            return self.write(TAG_STOPPED, &[0; EVENT_BYTES]);
        }
        self.write(tag, payload)
    }

    fn write(&mut self, tag: u8, payload: &[u8; EVENT_BYTES]) -> Result<()> {
        self.bytes += RECORD_BYTES as u64;
        self.out.write_all(&[tag]).and_then(|()| self.out.write_all(payload)).context("cannot write the recording")
    }
}

/// Reads a recording: the header at once, then one record per `next`. After an error it ends.
pub struct Reader<R: Read> {
    input: io::BufReader<R>,
    header: Header,
    records: u64,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Read and check the header.
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let mut input = io::BufReader::new(input);
        if &take::<8>(&mut input)? != MAGIC {
            return Err(RecordingError::NotOurs);
        }
        same_build("the format", u32::from_le_bytes(take(&mut input)?), VERSION)?;
        same_build("the event version", u32::from_le_bytes(take(&mut input)?), RL_EVENT_VERSION)?;
        let seed = u64::from_le_bytes(take(&mut input)?);
        let updates = u64::from_le_bytes(take(&mut input)?);
        let start = match u32::from_le_bytes(take(&mut input)?) {
            0 => Start::Random,
            1 => Start::Rule,
            2 => Start::Checkpoint,
            other => return Err(RecordingError::Start(other)),
        };
        let schema = String::from_utf8_lossy(&take::<SCHEMA_BYTES>(&mut input)?).into_owned();
        same_build("the feature schema", schema, feature_schema_hash())?;
        let length = u32::from_le_bytes(take(&mut input)?);
        if length > HYPER_MAX_BYTES {
            return Err(RecordingError::Hyper(format!("{length} bytes")));
        }
        let mut json = vec![0; length as usize];
        input.read_exact(&mut json).map_err(cut_off)?;
        let hyper = std::str::from_utf8(&json).map_err(|e| RecordingError::Hyper(e.to_string()))?;
        let hyper = Hyper::from_json(hyper).map_err(|e| RecordingError::Hyper(format!("{e:#}")))?;
        Ok(Self { input, header: Header { seed, updates, start, hyper }, records: 0, done: false })
    }

    /// How the run began.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Record>, RecordingError> {
        let mut bytes = [0; RECORD_BYTES];
        let mut filled = 0;
        while filled < RECORD_BYTES {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(RecordingError::Torn { whole: self.records }),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        let [tag, payload @ ..] = bytes;
        let record = match tag {
            TAG_EVENT => Record::Event(event_from_bytes(&payload)),
            TAG_RESTART => Record::Restart,
            TAG_STOPPED => Record::Stopped,
            tag => return Err(RecordingError::Tag { index: self.records, tag }),
        };
        self.records += 1;
        Ok(Some(record))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

fn take<const N: usize>(input: &mut impl Read) -> Result<[u8; N], RecordingError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(cut_off)?;
    Ok(bytes)
}

fn cut_off(error: io::Error) -> RecordingError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RecordingError::NoHeader,
        _ => error.into(),
    }
}

fn same_build<T: PartialEq + ToString>(what: &'static str, found: T, expected: T) -> Result<(), RecordingError> {
    if found == expected {
        return Ok(());
    }
    Err(RecordingError::OtherBuild { what, found: found.to_string(), expected: expected.to_string() })
}

/// What came of a replay.
pub struct Replay {
    /// The agent at the end of the recording.
    pub agent: Agent,
    /// Events replayed.
    pub events: u64,
    /// Restarts replayed.
    pub restarts: u64,
    /// Whether the recording covers the run to its end; false if it stopped at its size limit.
    pub complete: bool,
}

/// Replay a run that began with a fresh agent.
pub fn replay<R: Read>(reader: Reader<R>) -> Result<Replay> {
    let Header { seed, start, hyper, .. } = reader.header().clone();
    let agent = match start {
        Start::Rule => Agent::imitating(hyper, seed)?,
        // That it does not fit a run that began with a checkpoint, replay_onto() says.
        Start::Random | Start::Checkpoint => Agent::new(hyper, seed)?,
    };
    replay_onto(reader, agent)
}

/// Replay a run that resumed, onto the agent resumed from the same checkpoint.
pub fn replay_onto<R: Read>(reader: Reader<R>, agent: Agent) -> Result<Replay> {
    let (recorded, given) = (reader.header().clone(), Header::of(&agent));
    ensure!(
        recorded == given,
        "the recorded run began with seed {} after {} updates, this agent has seed {} and {} updates (or other \
         hyper-parameters): replay onto the checkpoint that the run resumed from",
        recorded.seed,
        recorded.updates,
        given.seed,
        given.updates
    );
    let mut replay = Replay { agent, events: 0, restarts: 0, complete: true };
    for record in reader {
        match record? {
            Record::Event(event) => {
                // As in the live run: an update that failed left the parameters as they were.
                if let Err(e) = replay.agent.observe(&[event]) {
                    log::warn!("{e:#}");
                }
                replay.events += 1;
            }
            Record::Restart => {
                replay.agent.restart_optimiser()?;
                replay.restarts += 1;
            }
            Record::Stopped => replay.complete = false,
        }
    }
    Ok(replay)
}
