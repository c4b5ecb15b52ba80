//! Training curves as TensorBoard reads them, while they grow: `tensorboard --logdir artifacts/<pipeline>/runs`.
//!
//! One event file per stage and run, beside the events: `runs/<utc>/<stage>/events.out.tfevents.<seconds>.kinset`. The form is
//! TensorFlow's record file (length, masked CRC-32C of it, bytes, masked CRC-32C of those) of `Event` messages of protobuf, of
//! which a scalar needs few fields. The finished curve is also an artifact of the stage, in Parquet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use prost::Message;

use super::event::{Event, Listener};
use super::journal::Journal;
use kinset_base::{clock, fs};

/// What TensorBoard looks for in the first record.
const VERSION: &str = "brain.Event:2";

/// Writes the numbers of training curves into the folder of a journal's run.
#[derive(Debug)]
pub struct Scalars<'a> {
    journal: &'a Journal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    broken: bool,
}

impl<'a> Scalars<'a> {
    /// Beside this journal, which must hear each event first.
    pub fn new(journal: &'a Journal) -> Self {
        Self { journal, state: Mutex::default() }
    }

    fn write(&self, state: &mut State, stage: &str, step: u64, name: &str, value: f64) -> fs::Result<()> {
        let Some(folder) = self.journal.folder() else { return Ok(()) };
        let now = clock::unix_seconds();
        if !state.files.contains_key(stage) {
            let folder = folder.join(stage);
            fs::create_folders(&folder)?;
            let path = folder.join(format!("events.out.tfevents.{:010}.kinset", now as u64));
            let mut file = fs::create_new(&path)?;
            append(&mut file, &record(&first(now)), &path)?;
            state.files.insert(stage.to_owned(), file);
        }
        match state.files.get_mut(stage) {
            Some(file) => append(file, &record(&scalar(now, step, name, value as f32)), &folder),
            None => Ok(()),
        }
    }
}

fn append(file: &mut File, bytes: &[u8], path: &Path) -> fs::Result<()> {
    file.write_all(bytes).map_err(|error| fs::FileError::new("write", path, error))
}

impl Listener for Scalars<'_> {
    fn hear(&self, event: &Event) {
        let Event::Metric { stage, step, name, value } = event else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return;
        }
        if let Err(error) = self.write(&mut state, stage, *step, name, *value) {
            // A convenience, like the journal: without it the run goes on.
            tracing::warn!("no more scalars for TensorBoard: {error}: {}", error.source);
            state.broken = true;
        }
    }
}

/// A record: length, its checksum, the bytes, their checksum, all little-endian.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(&length).to_le_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(&masked(message).to_le_bytes());
    out
}

/// CRC-32C, turned and moved so that a checksum of data that hold checksums stays one (TensorFlow's `crc32c.h`).
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a record has some forty bytes, and an epoch has a few records.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// `tensorflow.Event` (`event.proto`), the fields in use. It says its version or has a summary.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, optional, tag = "2")]
    step: Option<i64>,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary` (`summary.proto`).
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorflow.Summary.Value` of one number.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// What a file begins with.
fn first(time: f64) -> Vec<u8> {
    Entry { wall_time: time, file_version: Some(VERSION.to_owned()), ..Entry::default() }.encode_to_vec()
}

/// A number of a curve.
fn scalar(time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let value = Scalar { tag: tag.to_owned(), simple_value: Some(value) };
    let summary = Summary { value: vec![value] };
    Entry { wall_time: time, step: Some(step as i64), summary: Some(summary), file_version: None }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, section B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn numbers_take_the_bytes_that_tensorboard_gives_them() {
        // tensorboard.compat.proto.event_pb2.Event(wall_time=1.5, step=300, summary=…(tag="loss", simple_value=0.25))
        let golden = "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000803e";
        let hex = kinset_base::unit::hex(&scalar(1.5, 300, "loss", 0.25));
        assert_eq!(hex, golden);
        // Event(wall_time=1.5, file_version="brain.Event:2")
        let golden = "09000000000000f83f1a0d627261696e2e4576656e743a32";
        assert_eq!(kinset_base::unit::hex(&first(1.5)), golden);
        // Zeros are said too: a curve has a first step, and may reach 0.
        let zeros = Entry::decode(scalar(1.5, 0, "loss", 0.0).as_slice()).unwrap();
        assert_eq!((zeros.step, zeros.summary.unwrap().value[0].simple_value), (Some(0), Some(0.0)));
    }

    #[test]
    fn each_stage_has_a_file_of_whole_records_and_a_run_without_numbers_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("runs"));
        let scalars = Scalars::new(&journal);
        let started = |stage: &str| Event::StageStarted {
            stage: stage.into(),
            kind: "scan".into(),
            key: "k".into(),
            why: "never ran".into(),
        };
        let metric = |stage: &str, step, value| Event::Metric { stage: stage.into(), step, name: "loss".into(), value };
        for event in [started("a"), metric("a", 0, 2.0), started("b"), metric("a", 1, 1.5), metric("b", 0, 9.0)] {
            journal.hear(&event);
            scalars.hear(&event);
        }
        let folder = journal.folder().unwrap();
        for (stage, records) in [("a", 3), ("b", 2)] {
            let files = fs::list(&folder.join(stage)).unwrap();
            assert_eq!(files.len(), 1, "{stage}");
            let bytes = fs::read(&files[0]).unwrap();
            let (mut at, mut found) = (0, 0);
            while at < bytes.len() {
                let length = &bytes[at..at + 8];
                let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                let sum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                assert_eq!(sum(at + 8), masked(length));
                assert_eq!(sum(at + 12 + size), masked(&bytes[at + 12..at + 12 + size]));
                at += 16 + size;
                found += 1;
            }
            assert_eq!((at, found), (bytes.len(), records), "{stage}");
        }
        assert!(!fs::exists(&folder.join("c")));
    }
}
