//! The record of a generation: a JSON object a line, in the order of events.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::sys::{self, Kind, ReadMode, Time};

/// Name of the record in its generation.
pub const RECORD: &std::ffi::CStr = c"record.jsonl";

/// Why an entry is in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The source no longer has it.
    Deleted,
    /// Another entry took its name.
    Replaced,
}

impl Why {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

/// A path from the destination root, as base64 where it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
}

impl Name {
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        match std::str::from_utf8(path) {
            Ok(text) => Self { name: Some(text.to_owned()), name_b64: None },
            Err(_) => Self { name: None, name_b64: Some(STANDARD.encode(path)) },
        }
    }

    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.name, &self.name_b64) {
            (Some(text), _) => Some(text.as_bytes().to_vec()),
            (None, Some(text)) => STANDARD.decode(text).ok(),
            (None, None) => None,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first: for how long the generation is to be kept.
    Header { schema: u32, keep_s: u64 },
    /// An entry is about to be moved in, with everything below it.
    Entry {
        #[serde(flatten)]
        name: Name,
        kind: String,
        why: Why,
    },
    /// A directory from which entries are moved, and its modification time before.
    Directory {
        #[serde(flatten)]
        name: Name,
        seconds: i64,
        nanoseconds: u32,
    },
}

impl Line {
    #[must_use]
    pub fn entry(path: &[u8], kind: Kind, why: Why) -> Self {
        Self::Entry { name: Name::of(path), kind: kind.word().to_owned(), why }
    }

    #[must_use]
    pub fn directory(path: &[u8], mtime: Time) -> Self {
        Self::Directory { name: Name::of(path), seconds: mtime.seconds, nanoseconds: mtime.nanoseconds }
    }
}

/// A record that is being written.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// Begins the record of a new generation.
    ///
    /// # Errors
    /// Whatever creating or writing says.
    pub fn create(generation: &OwnedFd, keep_s: u64) -> io::Result<Self> {
        let file = sys::create(generation.as_fd(), RECORD, Mode::RUSR | Mode::WUSR)?;
        let mut record = Self(File::from(file));
        record.write(&Line::Header { schema: 1, keep_s })?;
        Ok(record)
    }

    /// Adds a line, with one write.
    ///
    /// # Errors
    /// Whatever writing says.
    pub fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0.write_all(text.as_bytes())
    }
}

/// The lines of a generation's record, as far as they can be read: a last line that was cut off, or a
/// record that is missing, is no error.
pub fn lines(generation: &OwnedFd) -> impl Iterator<Item = Line> {
    let file = sys::open_read(generation.as_fd(), RECORD, ReadMode::Cached).ok();
    let lines = file.into_iter().flat_map(|fd| BufReader::new(File::from(fd)).lines().map_while(Result::ok));
    lines.filter_map(|line| serde_json::from_str(&line).ok())
}

/// Modification times of directories before the generation took from them.
#[must_use]
pub fn times(generation: &OwnedFd) -> HashMap<Vec<u8>, Time> {
    let mut times = HashMap::new();
    for line in lines(generation) {
        let Line::Directory { name, seconds, nanoseconds } = line else { continue };
        if let Some(path) = name.bytes() {
            times.entry(path).or_insert(Time { seconds, nanoseconds });
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back_and_a_torn_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let fd = sys::open_root(dir.path()).unwrap();
        let time = Time { seconds: -5, nanoseconds: 7 };
        let written = [
            Line::entry(b"a/\xff\n", Kind::Fifo, Why::Replaced),
            Line::directory(b"", time),
            Line::directory(b"a", time),
        ];
        let mut record = Record::create(&fd, 60).unwrap();
        for line in &written {
            record.write(line).unwrap();
        }
        record.0.write_all(b"{\"entry\":{\"na").unwrap();
        let read: Vec<_> = lines(&fd).collect();
        assert_eq!(read[0], Line::Header { schema: 1, keep_s: 60 });
        assert_eq!(read[1..], written);
        let Line::Entry { name, .. } = &read[1] else { panic!("an entry") };
        assert_eq!(name.bytes().unwrap(), b"a/\xff\n");
        assert_eq!(times(&fd)[&b""[..]], time);
    }
}
