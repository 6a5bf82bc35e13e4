//! What the share's digests and its manifest need of every entry, in the order of paths.
//!
//! Entries are compared in the order of the walk, which is not the digests' order. So each equal
//! entry leaves a record of some hundred bytes; they are sorted in memory, and from
//! [`limits::COMPARE_RECORDS_BYTES`] on in runs that go to an unnamed file and are merged at the
//! end. Memory stays bounded, and a tree of usual size never sees the file.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex};

use crate::error::Error;
use crate::hash::{Digest, DigestKind};
use crate::limits;
use crate::sys::{Kind, Time};
use crate::tree::links::Inode;
use crate::tree::node::lock;

/// One equal entry, as the source has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub size: u64,
    pub rdev: u64,
    /// Of an inode with several names.
    pub inode: Option<Inode>,
    pub digest: Option<Digest>,
    pub xattrs: Option<[u8; 32]>,
    pub target: Option<&'a [u8]>,
}

/// Called with each path and its record.
pub type Visit<'v> = dyn FnMut(&[u8], &Record<'_>) -> Result<(), Error> + 'v;

/// Records of one task, not yet among all.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

/// Lengths of the record (this field left out) and of its path, before the path.
const HEAD_BYTES: usize = 8;

impl Batch {
    /// How many records it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Adds the record of the entry at `directory` / `name`. `name` is empty for the root.
    pub fn push(&mut self, directory: &[u8], name: &[u8], record: &Record<'_>) {
        let Ok(start) = u32::try_from(self.bytes.len()) else { return };
        self.starts.push(start);
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&[0; HEAD_BYTES]);
        bytes.extend_from_slice(directory);
        if !directory.is_empty() && !name.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        let path_bytes = bytes.len() - start as usize - HEAD_BYTES;
        record.encode(bytes);
        let length = bytes.len() - start as usize - 4;
        put_length(&mut bytes[start as usize..], length);
        put_length(&mut bytes[start as usize + 4..], path_bytes);
    }
}

/// A record is a path and some hundred bytes, and no path nears 4 GiB.
fn put_length(at: &mut [u8], length: usize) {
    at[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn length_at(bytes: &[u8]) -> usize {
    let (head, _) = bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    u32::from_le_bytes(*head) as usize
}

/// The path of a whole record.
fn path_of(record: &[u8]) -> &[u8] {
    &record[HEAD_BYTES..HEAD_BYTES + length_at(&record[4..])]
}

const KINDS: [Kind; 7] =
    [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];

const HAS_INODE: u8 = 0x10;
const HAS_DIGEST: u8 = 0x20;
const IS_NONZERO: u8 = 0x40;
const HAS_XATTRS: u8 = 0x80;

impl<'a> Record<'a> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or_default();
        let mut shape = u8::try_from(kind).unwrap_or_default();
        for (bit, has) in [
            (HAS_INODE, self.inode.is_some()),
            (HAS_DIGEST, self.digest.is_some()),
            (IS_NONZERO, self.digest.is_some_and(|digest| digest.kind == DigestKind::Blake3Nonzero)),
            (HAS_XATTRS, self.xattrs.is_some()),
        ] {
            shape |= if has { bit } else { 0 };
        }
        bytes.push(shape);
        for word in [self.mode, self.uid, self.gid, self.mtime.nanoseconds] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        for word in [self.size, self.rdev] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        if let Some((dev, ino)) = self.inode {
            bytes.extend_from_slice(&dev.to_le_bytes());
            bytes.extend_from_slice(&ino.to_le_bytes());
        }
        bytes.extend_from_slice(self.digest.as_ref().map_or(&[], |digest| &digest.bytes));
        bytes.extend_from_slice(self.xattrs.as_ref().map_or(&[], |digest| digest));
        bytes.extend_from_slice(self.target.unwrap_or_default());
    }

    /// Path and record of what [`Batch::push`] made; `None` where it is not that.
    fn decode(record: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let (path, mut rest) = record.get(HEAD_BYTES..)?.split_at_checked(length_at(record.get(4..)?))?;
        let [shape] = take::<1>(&mut rest)?;
        let kind = *KINDS.get(usize::from(shape & 0xf))?;
        let mut word = || take::<4>(&mut rest).map(u32::from_le_bytes);
        let (mode, uid, gid, nanoseconds) = (word()?, word()?, word()?, word()?);
        let seconds = i64::from_le_bytes(take(&mut rest)?);
        let mut long = |wanted: bool| if wanted { take::<8>(&mut rest).map(u64::from_le_bytes) } else { Some(0) };
        let (size, rdev) = (long(true)?, long(true)?);
        let has_inode = shape & HAS_INODE != 0;
        let inode = (long(has_inode)?, long(has_inode)?);
        let bytes = if shape & HAS_DIGEST != 0 { Some(take::<32>(&mut rest)?) } else { None };
        let digest_kind = if shape & IS_NONZERO == 0 { DigestKind::Blake3 } else { DigestKind::Blake3Nonzero };
        let xattrs = if shape & HAS_XATTRS != 0 { Some(take::<32>(&mut rest)?) } else { None };
        let record = Self {
            kind,
            mode,
            uid,
            gid,
            mtime: Time { seconds, nanoseconds },
            size,
            rdev,
            inode: has_inode.then_some(inode),
            digest: bytes.map(|bytes| Digest { kind: digest_kind, bytes }),
            xattrs,
            target: (kind == Kind::Symlink).then_some(rest),
        };
        Some((path, record))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[derive(Debug, Default)]
struct State {
    open: Batch,
    spilled: Option<Spill>,
    /// The file for the first run that spills.
    prepared: Option<io::Result<File>>,
    /// How many names each inode with several has brought.
    names: HashMap<Inode, u64>,
    /// Records that came.
    entries: u64,
    /// There were too many to keep, and nothing is kept any more.
    given_up: bool,
}

/// All records of a comparison.
#[derive(Debug)]
pub struct Records {
    state: Mutex<State>,
    /// Bytes that are kept in memory.
    room: usize,
    /// They only spare a look at the catalog, which has them all, so it is not worth a file to keep
    /// more than fit into memory.
    spare: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self::with_room(limits::COMPARE_RECORDS_BYTES)
    }
}

impl Records {
    fn with_room(room: usize) -> Self {
        Self { state: Mutex::default(), room, spare: false }
    }

    /// Records whose file is open already, for a run that will not be able to open one. Whether that
    /// worked is seen when the file is needed.
    #[must_use]
    pub fn prepared() -> Self {
        let records = Self::default();
        lock(&records.state).prepared = Some(unnamed());
        records
    }

    /// Records of a job whose catalog knows its entries from earlier runs.
    #[must_use]
    pub fn beside_catalog() -> Self {
        Self { spare: true, ..Self::default() }
    }

    /// Whether the catalog has to be asked how much of it these records are.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.spare
    }

    /// How many entries were recorded; `None` where they were too many to be kept.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.given_up).then_some(state.entries)
    }

    /// Takes the records of a batch, and leaves it empty.
    ///
    /// # Errors
    /// [`Error::Output`] when there is no room for what does not fit into memory.
    pub fn add(&self, batch: &mut Batch) -> Result<(), Error> {
        if batch.starts.is_empty() {
            return Ok(());
        }
        // Many threads bring batches, one puts them in order at the end: sorted ones are merged.
        sort(batch);
        let mut state = lock(&self.state);
        state.entries += batch.starts.len() as u64;
        let full = !state.open.starts.is_empty() && state.open.bytes.len() + batch.bytes.len() > self.room;
        if self.spare && (full || state.given_up) {
            *state = State { given_up: true, ..State::default() };
            *batch = Batch::default();
            return Ok(());
        }
        if full {
            let State { open, spilled, prepared, .. } = &mut *state;
            spill(open, spilled, prepared.take()).map_err(unspillable)?;
        }
        let open = &mut state.open;
        // The room and one batch stay far below 4 GiB; what would not is in a run of its own.
        let base = u32::try_from(open.bytes.len()).unwrap_or(u32::MAX);
        open.starts.extend(batch.starts.drain(..).map(|start| base.saturating_add(start)));
        open.bytes.append(&mut batch.bytes);
        Ok(())
    }

    /// Counts one more name of an inode with several.
    pub fn name(&self, inode: Inode) {
        *lock(&self.state).names.entry(inode).or_default() += 1;
    }

    /// The inodes of which two or more names were counted.
    pub fn shared_inodes(&self) -> HashSet<Inode> {
        lock(&self.state).names.iter().filter(|(_, names)| **names > 1).map(|(inode, _)| *inode).collect()
    }

    /// Visits every record in ascending order of raw path bytes.
    ///
    /// # Errors
    /// The first error of `visit`, or of reading back what did not fit into memory.
    pub fn for_each(self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let State { mut open, mut spilled, .. } =
            self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut visit = |record: &[u8]| {
            let (path, record) =
                Record::decode(record).ok_or_else(|| unspillable(io::ErrorKind::InvalidData.into()))?;
            visit(path, &record)
        };
        if spilled.is_none() {
            sort(&mut open);
            return open.starts.iter().try_for_each(|start| visit(record_at(&open.bytes, *start)));
        }
        spill(&mut open, &mut spilled, None).map_err(unspillable)?;
        drop(open);
        spilled.map_or(Ok(()), |spilled| spilled.merge(&mut visit))
    }
}

fn record_at(bytes: &[u8], start: u32) -> &[u8] {
    let record = &bytes[start as usize..];
    &record[..4 + length_at(record)]
}

/// Sorts by path. A stable sort finds what is in order already, and merges that.
fn sort(batch: &mut Batch) {
    let bytes = &batch.bytes;
    let path = |start: &u32| path_of(&bytes[*start as usize..]);
    batch.starts.sort_by(|a, b| path(a).cmp(path(b)));
}

fn unspillable(source: io::Error) -> Error {
    Error::Output { path: std::env::temp_dir(), what: "no room for the digests' working file in", source }
}

/// Sorted runs in a file that has no name, and so is gone with the process.
#[derive(Debug)]
struct Spill {
    file: Arc<File>,
    /// Where each run ends, in bytes.
    ends: Vec<u64>,
}

fn spill(open: &mut Batch, spilled: &mut Option<Spill>, prepared: Option<io::Result<File>>) -> io::Result<()> {
    if spilled.is_none() {
        *spilled = Some(Spill { file: Arc::new(prepared.unwrap_or_else(unnamed)?), ends: Vec::new() });
    }
    let Some(to) = spilled else { return Ok(()) };
    sort(open);
    let mut out = BufWriter::with_capacity(limits::MANIFEST_BUFFER_BYTES, &*to.file);
    for start in &open.starts {
        out.write_all(record_at(&open.bytes, *start))?;
    }
    out.flush()?;
    let before = to.ends.last().copied().unwrap_or_default();
    to.ends.push(before + open.bytes.len() as u64);
    open.starts.clear();
    open.bytes.clear();
    Ok(())
}

/// A file without a name in the directory for temporary ones. That moves no directory's times,
/// should it lie inside a tree that is compared; where it is not known, the name is gone at once.
fn unnamed() -> io::Result<File> {
    let directory = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(&directory) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
            let path = directory.join(format!(".copyd-verify-{}", uuid::Uuid::now_v7()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

/// One run on its way through the merge, with its next record. Ordered so that the heap, which
/// gives its greatest, gives the smallest path.
struct Run {
    record: Vec<u8>,
    rest: BufReader<Piece>,
}

impl Run {
    /// Reads the next record; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if self.rest.get_ref().ended() && self.rest.buffer().is_empty() {
            return Ok(false);
        }
        self.record.resize(4, 0);
        self.rest.read_exact(&mut self.record)?;
        let length = length_at(&self.record);
        self.record.resize(4 + length, 0);
        self.rest.read_exact(&mut self.record[4..])?;
        Ok(true)
    }
}

impl Ord for Run {
    fn cmp(&self, other: &Self) -> Ordering {
        path_of(&other.record).cmp(path_of(&self.record))
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Run {}

/// A part of the file, read by position because the runs share it.
struct Piece {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Piece {
    const fn ended(&self) -> bool {
        self.at >= self.end
    }
}

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Spill {
    fn merge(self, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut runs = BinaryHeap::new();
        let mut at = 0;
        for end in self.ends {
            let piece = Piece { file: Arc::clone(&self.file), at, end };
            let rest = BufReader::with_capacity(limits::COMPARE_RUN_BYTES, piece);
            let mut run = Run { record: Vec::new(), rest };
            if run.advance().map_err(unspillable)? {
                runs.push(run);
            }
            at = end;
        }
        while let Some(mut run) = runs.pop() {
            visit(&run.record)?;
            if run.advance().map_err(unspillable)? {
                runs.push(run);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(number: u64, target: &[u8]) -> Record<'_> {
        let has = |bit: u64| number & bit != 0;
        Record {
            kind: KINDS[usize::try_from(number % 7).unwrap()],
            mode: 0o644,
            uid: 3,
            gid: u32::MAX,
            mtime: Time { seconds: -7, nanoseconds: 999_999_999 },
            size: number,
            rdev: 5,
            inode: has(1).then_some((1, number)),
            digest: has(2).then(|| Digest {
                kind: if has(16) { DigestKind::Blake3Nonzero } else { DigestKind::Blake3 },
                bytes: [7; 32],
            }),
            xattrs: has(4).then_some([9; 32]),
            target: (number % 7 == 2).then_some(target),
        }
    }

    proptest! {
        #[test]
        fn records_come_back_whole_and_in_the_order_of_paths(
            paths in prop::collection::btree_set(prop::collection::vec(1u8.., 0..6), 0..40),
            room in 1usize..2000,
            seed in any::<u64>(),
        ) {
            let paths: Vec<_> = paths.into_iter().collect();
            let records = Records::with_room(room);
            let mut order: Vec<usize> = (0..paths.len()).collect();
            order.sort_by_key(|i| (*i as u64).wrapping_mul(seed | 1).rotate_left(17));
            for chunk in order.chunks(3) {
                let mut batch = Batch::default();
                for i in chunk {
                    batch.push(b"", &paths[*i], &record(*i as u64, b"\xff/target"));
                }
                records.add(&mut batch).unwrap();
            }
            let mut next = 0;
            records.for_each(&mut |path, found| {
                assert_eq!(path, paths[next]);
                assert_eq!(*found, record(next as u64, b"\xff/target"));
                next += 1;
                Ok(())
            }).unwrap();
            prop_assert_eq!(next, paths.len());
        }
    }

    #[test]
    fn a_directory_and_a_name_make_a_path() {
        let records = Records::default();
        let mut batch = Batch::default();
        for (directory, name) in [("a", "b"), ("", "c"), ("", "")] {
            batch.push(directory.as_bytes(), name.as_bytes(), &record(3, b""));
        }
        records.add(&mut batch).unwrap();
        let mut paths = Vec::new();
        records
            .for_each(&mut |path, _| {
                paths.push(path.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(paths, [b"".to_vec(), b"a/b".to_vec(), b"c".to_vec()]);
    }
}
