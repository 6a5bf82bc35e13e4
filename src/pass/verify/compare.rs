//! Comparing a pair of entries that stand under one name on both sides.

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::copy::blocks::BlockIo;
use crate::copy::drive::{Machine, Step, drive};
use crate::copy::range::MoveError;
use crate::error::{Class, Side};
use crate::fidelity::{self, EntryOpError, LossClass, Losses, Metadata};
use crate::hash::Digest;
use crate::limits;
use crate::pass::row;
use crate::sys::{self, EntryRef, Kind, ReadMode, Stat};

use super::content::{self, Progressed, Read, Reading};
use super::judge::Aspects;
use super::links::{Verdict, inode, shares};
use super::trees::{Directory, Task, Trees, lane};
use crate::pass::records::{Batch, Record};

/// Two files of one name.
#[derive(Debug)]
pub struct Pair {
    pub name: CString,
    pub source: Stat,
    pub there: Stat,
    /// It shares its inode on one side only.
    pub broken: bool,
    /// Other names wait for its verdict.
    pub leads: bool,
    /// It was begun before, and the source changed meanwhile.
    pub again: bool,
}

/// Pairs of one directory, for one worker.
#[derive(Debug)]
pub struct Files {
    pub node: Arc<Directory>,
    pub pairs: Vec<Pair>,
}

/// A name that waits for another of the same inodes.
#[derive(Debug)]
pub struct Waiting {
    pub node: Arc<Directory>,
    pub pair: Pair,
}

/// What a comparison of a pair has found.
#[derive(Debug)]
pub struct Compared {
    pub aspects: Aspects,
    /// Of equal files.
    pub digest: Option<Digest>,
    /// The target of an equal symlink.
    pub target: Option<Vec<u8>>,
    pub wanted: Metadata,
    /// Classes of the differences in metadata, where the user has accepted some.
    pub losses: Losses,
}

/// Counts and records of one task, brought to all at its end: counters that every thread adds to
/// for every file cost as much as the files.
#[derive(Debug, Default)]
pub struct Settled {
    entries: u64,
    files: u64,
    /// Of the files that were equal in all.
    proved: u64,
    bytes: u64,
    records: Batch,
}

impl Settled {
    /// The bytes were told already, chunk by chunk.
    pub const fn told(&mut self) {
        self.bytes = 0;
    }
}

impl Trees<'_> {
    /// Brings a task's counts to all.
    pub fn bring(&self, mut settled: Settled) {
        let progress = self.judge.progress;
        progress.entries_done.add(settled.entries);
        progress.files_unchanged.add(settled.files);
        progress.bytes_done.add(settled.bytes);
        progress.bytes_verified.add(settled.bytes);
        self.judge.proved.add(settled.proved);
        if self.judge.all_equal()
            && let Err(e) = self.records.add(&mut settled.records)
        {
            self.judge.end(e);
        }
    }

    /// Compares metadata of both sides of an entry.
    pub fn metadata(&self, wanted: &Metadata, have: &Metadata, aspects: &mut Aspects) -> Losses {
        let rules = self.rules();
        aspects.metadata = fidelity::difference(wanted, have, &rules);
        let mut losses = Losses::default();
        if !self.options.accept_loss.is_empty() && !aspects.metadata.none() {
            fidelity::lose_differences(wanted, have, &rules, &mut losses);
        }
        losses
    }

    /// The metadata of one side, whose losses of reading are those of no destination.
    ///
    /// # Errors
    /// As [`fidelity::capture`].
    pub fn capture(&self, side: Side, entry: EntryRef<'_>, stat: &Stat) -> Result<Metadata, MoveError> {
        let traits = if side == Side::Source { &self.source_traits } else { &self.destination_traits };
        fidelity::capture(entry, stat, traits, &mut Losses::default())
            .map_err(|EntryOpError { operation, source }| MoveError::io(side, operation, source))
    }

    /// Compares what is neither file nor directory, which is one look at both.
    ///
    /// # Errors
    /// A side that can't be read.
    pub fn compare_special(&self, sides: (&OwnedFd, &OwnedFd), pair: &Pair) -> Result<Compared, MoveError> {
        let mut aspects = Aspects { links: pair.broken, ..Aspects::default() };
        let at = |fd| EntryRef::At(AsFd::as_fd(fd), &pair.name);
        let mut target = None;
        if pair.source.kind == Kind::Symlink {
            let read = |fd: &OwnedFd, side| {
                rustix::fs::readlinkat(fd, &*pair.name, Vec::new())
                    .map_err(|e| MoveError::io(side, "read the link", e.into()))
            };
            let wanted = read(sides.0, Side::Source)?;
            aspects.target = read(sides.1, Side::Destination)? != wanted;
            target = Some(wanted.into_bytes());
        }
        aspects.device = pair.source.rdev != pair.there.rdev;
        let wanted = self.capture(Side::Source, at(sides.0), &pair.source)?;
        let have = self.capture(Side::Destination, at(sides.1), &pair.there)?;
        let losses = self.metadata(&wanted, &have, &mut aspects);
        Ok(Compared { aspects, digest: None, target, wanted, losses })
    }

    /// Compares the files of a task.
    ///
    /// # Errors
    /// A failure of the backend itself.
    pub fn compare_files(&self, files: Files, io: &mut dyn BlockIo) -> io::Result<()> {
        let node = files.node;
        let open = |side| node.open(side).map_err(|e| MoveError::io(side, "open the directory", e));
        let (source, destination) = match (open(Side::Source), open(Side::Destination)) {
            (Ok(source), Ok(destination)) => (source, destination),
            (Err(e), _) | (_, Err(e)) => {
                files.pairs.into_iter().for_each(|pair| self.give_up(&node, &pair, same_error(&e)));
                return Ok(());
            }
        };
        let directory = node.path();
        let (settled, spare) = (RefCell::new(Settled::default()), RefCell::new(Vec::new()));
        let mut waiting = files.pairs.into_iter();
        let supply = || {
            loop {
                let pair = waiting.next().filter(|_| !self.judge.halted())?;
                if pair.source.size > limits::CHUNK_BYTES && pair.source.size == pair.there.size {
                    self.begin_big(&node, pair, (&source, &destination));
                    continue;
                }
                let kept = spare.borrow_mut().pop().unwrap_or_default();
                return Some(PairMove::new(self, &source, &destination, pair, kept));
            }
        };
        drive(io, supply, |machine: PairMove<'_, '_>, outcome| {
            spare.borrow_mut().push(machine.kept);
            match outcome {
                Ok(compared) => self.settle(&node, &directory, &machine.pair, compared, &mut settled.borrow_mut()),
                Err(e) => self.failed(&node, machine.pair, e),
            }
        })?;
        self.bring(settled.into_inner());
        Ok(())
    }

    /// A pair was compared: counted, said, recorded, and the names that waited for it as well.
    pub fn settle(
        &self,
        node: &Arc<Directory>,
        directory: &[u8],
        pair: &Pair,
        mut compared: Compared,
        settled: &mut Settled,
    ) {
        let forgiven = self.forgive(&mut compared, || node.path_of(&pair.name));
        if pair.source.kind == Kind::File && pair.source.size == pair.there.size {
            settled.bytes += pair.source.size;
        }
        let xattrs = row::xattr_digest(&compared.wanted.xattrs);
        if compared.aspects.none() {
            settled.proved += u64::from(!forgiven);
            self.equal(node, directory, pair, (compared.digest, xattrs, compared.target.as_deref()), settled);
        } else {
            self.judge.differs(&node.path_of(&pair.name), &compared.aspects);
        }
        if pair.leads {
            let verdict = if compared.aspects.none() {
                Verdict::Equal { digest: compared.digest, xattrs }
            } else {
                Verdict::Differs(Aspects { links: false, ..compared.aspects })
            };
            for name in self.links.settle(inode(&pair.source), Some(verdict)) {
                self.follow(&name.node, &name.pair, &verdict, settled);
            }
        }
    }

    /// A name whose two inodes were compared under another one.
    pub fn follow(&self, node: &Arc<Directory>, pair: &Pair, verdict: &Verdict, settled: &mut Settled) {
        match verdict {
            Verdict::Differs(aspects) => self.judge.differs(&node.path_of(&pair.name), aspects),
            Verdict::Equal { digest, xattrs } => {
                settled.proved += 1;
                self.equal(node, &node.path(), pair, (*digest, *xattrs, None), settled);
            }
        }
    }

    fn equal(
        &self,
        node: &Directory,
        directory: &[u8],
        pair: &Pair,
        (digest, xattrs, target): (Option<Digest>, Option<[u8; 32]>, Option<&[u8]>),
        settled: &mut Settled,
    ) {
        let stat = &pair.source;
        settled.entries += 1;
        settled.files += u64::from(stat.kind == Kind::File);
        self.judge.show_equal(|| node.path_of(&pair.name));
        if self.judge.all_equal() {
            settled.records.push(directory, pair.name.to_bytes(), &record(stat, digest, xattrs, target));
        }
    }

    /// A directory that was compared: its own metadata.
    pub fn settle_directory(&self, path: &[u8], mut compared: Compared) {
        let forgiven = self.forgive(&mut compared, || path.to_vec());
        if !compared.aspects.none() {
            return self.judge.differs(path, &compared.aspects);
        }
        self.judge.show_equal(|| path.to_vec());
        let mut settled = Settled { entries: 1, proved: u64::from(!forgiven), ..Settled::default() };
        let xattrs = row::xattr_digest(&compared.wanted.xattrs);
        settled.records.push(path, b"", &record(&compared.wanted.stat, None, xattrs, None));
        self.bring(settled);
    }

    /// Takes out what the user has accepted, which is reported as lost instead. Whether anything was.
    fn forgive(&self, compared: &mut Compared, path: impl FnOnce() -> Vec<u8>) -> bool {
        let accepted = &self.options.accept_loss;
        if accepted.is_empty() || compared.aspects.none() {
            return false;
        }
        let before = compared.aspects;
        if before.links {
            compared.losses.add(LossClass::Link, || "its inode has other names than at the source".to_owned());
        }
        let found: Vec<LossClass> = compared.losses.iter().map(|(class, _)| class).collect();
        compared.aspects.forgive(&found, accepted);
        if compared.aspects == before {
            return false;
        }
        let path = path();
        for (class, detail) in compared.losses.iter().filter(|(class, _)| accepted.contains(class)) {
            self.judge.losses.add(class, &path, detail);
        }
        true
    }

    /// A pair could not be compared: once more where the source moved under it.
    pub fn failed(&self, node: &Arc<Directory>, pair: Pair, error: MoveError) {
        let moved = error.class == Class::Hot || error.class == Class::Vanished;
        if moved && !pair.again && !self.judge.halted() {
            self.look_again(node, pair);
        } else {
            self.give_up(node, &pair, error);
        }
    }

    fn give_up(&self, node: &Arc<Directory>, pair: &Pair, error: MoveError) {
        if pair.leads {
            self.release(pair);
        }
        if pair.source.size == pair.there.size {
            self.judge.progress.bytes_done.add(pair.source.size);
        }
        self.judge.fail_move(node.path_of(&pair.name), error);
    }

    /// The names that waited for a pair are compared for themselves.
    fn release(&self, pair: &Pair) {
        for name in self.links.settle(inode(&pair.source), None) {
            self.queue.push(lane::FILES, Task::Files(Files { node: name.node, pairs: vec![name.pair] }));
        }
    }

    /// Begins a pair again, from a new look at both sides.
    fn look_again(&self, node: &Arc<Directory>, mut pair: Pair) {
        let look = |side| match node.open(side).and_then(|fd| sys::stat_at(fd.as_fd(), &pair.name)) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(MoveError::io(side, "stat", e)),
        };
        let (source, there) = match (look(Side::Source), look(Side::Destination)) {
            (Ok(source), Ok(there)) => (source, there),
            (Err(e), _) | (_, Err(e)) => return self.give_up(node, &pair, e),
        };
        match (source, there) {
            (Some(source), Some(there)) if source.kind == there.kind && source.kind == pair.source.kind => {
                if inode(&source) != inode(&pair.source) && pair.leads {
                    self.release(&pair);
                    pair.leads = false;
                }
                pair = Pair { source, there, again: true, ..pair };
                self.queue.push(lane::FILES, Task::Files(Files { node: Arc::clone(node), pairs: vec![pair] }));
            }
            (Some(_), Some(_)) => self.give_up(node, &pair, MoveError::hot("find it as it was listed")),
            (one, _) => {
                if pair.leads {
                    self.release(&pair);
                }
                let path = node.path_of(&pair.name);
                match (one, there) {
                    (Some(_), _) => self.judge.only(Side::Source, &path, ""),
                    (None, Some(_)) => {
                        self.judge.only(Side::Destination, &path, "");
                        self.judge.progress.entries_done.add(1);
                    }
                    (None, None) => self.judge.vanished(),
                }
            }
        }
    }
}

/// The same error once more, for another entry that it concerns.
fn same_error(error: &MoveError) -> MoveError {
    let source =
        error.source.as_ref().map(|e| e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error));
    MoveError { class: error.class, side: error.side, operation: error.operation, source }
}

fn record<'a>(stat: &Stat, digest: Option<Digest>, xattrs: Option<[u8; 32]>, target: Option<&'a [u8]>) -> Record<'a> {
    Record {
        kind: stat.kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        size: stat.size,
        rdev: stat.rdev,
        inode: shares(stat).then(|| inode(stat)),
        digest,
        xattrs,
        target,
    }
}

/// Where the comparison of a pair stands.
enum At {
    Begin,
    Source(Reading),
    Destination(Reading),
    Over,
}

/// Compares one pair of files up to a chunk: the source first, then the destination with it.
struct PairMove<'r, 'o> {
    trees: &'r Trees<'o>,
    source: &'r OwnedFd,
    destination: &'r OwnedFd,
    pair: Pair,
    /// The source's bytes, of a file that is one block.
    kept: Vec<u8>,
    /// The source's digest, of a file that is more.
    hashed: Option<Digest>,
    /// The source's metadata, and with [`At::Destination`] what differs in it.
    wanted: Option<Metadata>,
    aspects: Aspects,
    losses: Losses,
    at: At,
}

type Outcome = Result<Compared, MoveError>;

impl Machine for PairMove<'_, '_> {
    type Outcome = Outcome;

    fn step(&mut self, mut last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Outcome> {
        loop {
            match self.advance(last.take(), buffer) {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(e) => return Step::Done(Err(e)),
            }
        }
    }
}

impl<'r, 'o> PairMove<'r, 'o> {
    fn new(trees: &'r Trees<'o>, source: &'r OwnedFd, destination: &'r OwnedFd, pair: Pair, kept: Vec<u8>) -> Self {
        let size = pair.source.size != pair.there.size;
        let aspects = Aspects { size, content: size, links: pair.broken, ..Aspects::default() };
        let (hashed, wanted, losses) = (None, None, Losses::default());
        Self { trees, source, destination, pair, kept, hashed, wanted, aspects, losses, at: At::Begin }
    }

    /// One step; `None` where the next can follow at once.
    fn advance(
        &mut self,
        last: Option<io::Result<usize>>,
        buffer: &mut [u8],
    ) -> Result<Option<Step<Outcome>>, MoveError> {
        let judge = &self.trees.judge;
        match &mut self.at {
            At::Begin => self.begin().map(|()| None),
            At::Source(reading) => {
                match reading.step(judge, last, buffer) {
                    Progressed::Submit(operation) => return Ok(Some(Step::Submit(operation))),
                    Progressed::Done(read) => match read? {
                        Read::Bytes(bytes) => {
                            self.kept.clear();
                            self.kept.extend_from_slice(bytes);
                        }
                        Read::Hashed(digest) => self.hashed = Some(digest),
                    },
                }
                let fd = Arc::clone(reading.fd());
                self.source_still(&fd)?;
                self.open_destination()
            }
            At::Destination(reading) => {
                let digest = match reading.step(judge, last, buffer) {
                    Progressed::Submit(operation) => return Ok(Some(Step::Submit(operation))),
                    Progressed::Done(Err(e)) if content::is_difference(&e) => None,
                    Progressed::Done(read) => self.compare(&read?),
                };
                self.aspects.content = digest.is_none();
                self.compared(digest).map(Some)
            }
            At::Over => Err(MoveError::hot("compare")),
        }
    }

    /// Opens the source. Files of different sizes need not be read.
    fn begin(&mut self) -> Result<(), MoveError> {
        let trees = self.trees;
        let fd = sys::open_read(self.source.as_fd(), &self.pair.name, ReadMode::Cached)
            .map_err(|e| MoveError::io(Side::Source, "open", e))?;
        self.wanted = Some(trees.capture(Side::Source, EntryRef::Fd(fd.as_fd()), &self.pair.source)?);
        let mut reading = Reading::new(fd, Side::Source, &self.pair.source, trees.hole_policy());
        if self.aspects.size {
            reading.leave_out();
        }
        self.at = At::Source(reading);
        Ok(())
    }

    fn source_still(&self, fd: &OwnedFd) -> Result<(), MoveError> {
        let after = sys::stat_fd(fd).map_err(|e| MoveError::io(Side::Source, "stat", e))?;
        if content::unchanged(&self.pair.source, &after) { Ok(()) } else { Err(MoveError::hot("read it unchanged")) }
    }

    /// Opens the destination; what differs in metadata is known then.
    fn open_destination(&mut self) -> Result<Option<Step<Outcome>>, MoveError> {
        let trees = self.trees;
        let fd = trees
            .past_cache
            .open(self.destination, &self.pair.name)
            .map_err(|e| MoveError::io(Side::Destination, "open", e))?;
        let have = trees.capture(Side::Destination, EntryRef::Fd(fd.as_fd()), &self.pair.there)?;
        if let Some(wanted) = &self.wanted {
            self.losses = trees.metadata(wanted, &have, &mut self.aspects);
        }
        if self.aspects.size {
            return self.compared(None).map(Some);
        }
        self.at = At::Destination(Reading::new(fd, Side::Destination, &self.pair.there, trees.hole_policy()));
        Ok(None)
    }

    /// The digest where the content is equal.
    fn compare(&self, read: &Read<'_>) -> Option<Digest> {
        match (read, self.hashed) {
            (Read::Bytes(bytes), None) => (**bytes == *self.kept).then(|| Digest::of(bytes)),
            (Read::Hashed(found), Some(wanted)) => (*found == wanted).then_some(wanted),
            // One side's only read came short and it was hashed, the other's did not.
            (Read::Bytes(bytes), Some(wanted)) => Some(Digest::of(bytes)).filter(|found| *found == wanted),
            (Read::Hashed(found), None) => Some(Digest::of(&self.kept)).filter(|wanted| wanted == found),
        }
    }

    fn compared(&mut self, digest: Option<Digest>) -> Result<Step<Outcome>, MoveError> {
        self.at = At::Over;
        let wanted = self.wanted.take().ok_or_else(|| MoveError::hot("compare"))?;
        let losses = std::mem::take(&mut self.losses);
        Ok(Step::Done(Ok(Compared { aspects: self.aspects, digest, target: None, wanted, losses })))
    }
}
