//! A reader of a file of events that another process is writing.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::event::Event;
use kinset_base::fs;

/// A file that grows, and how far it was read.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    read: u64,
    /// The beginning of a line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Tail {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: 0, rest: Vec::new() }
    }

    /// What was written since the last look. A file that is not there yet says nothing.
    pub(super) fn more(&mut self) -> Vec<Event> {
        let mut bytes = std::mem::take(&mut self.rest);
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = fs::open(&self.path).map_err(|error| error.source)?;
            file.seek(SeekFrom::Start(self.read))?;
            let mut more = Vec::new();
            file.read_to_end(&mut more)?;
            Ok(more)
        };
        // What cannot be read now is read later: results do not hang on it.
        let more = read().unwrap_or_default();
        self.read += more.len() as u64;
        bytes.extend(more);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.rest = bytes.split_off(whole);
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn half_a_line_is_read_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.more(), []);
        let mut file = fs::append(&path).unwrap();
        let line = serde_json::to_string(&Event::StageStopped { stage: "s".into() }).unwrap() + "\n";
        file.write_all(format!("{line}{}", &line[..9]).as_bytes()).unwrap();
        assert_eq!(tail.more().len(), 1);
        assert_eq!(tail.more(), []);
        file.write_all(&line.as_bytes()[9..]).unwrap();
        assert_eq!(tail.more(), [Event::StageStopped { stage: "s".into() }]);
    }
}
