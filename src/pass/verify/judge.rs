//! What a comparison has found: counted, and said as it is found.
//!
//! Everything that is compared ends in one call of [`Judge`]: equal, different, on one side only,
//! or not comparable. Nothing in here reads a tree.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::copy::probe::{self, Backend};
use crate::copy::range::{MoveError, Pace};
use crate::error::{Class, EntryError, Error, ExitCode, Side};
use crate::fidelity::{LossClass, LossLog, MetadataDifferences, Severity};
use crate::pass::BackendChoice;
use crate::pass::batch::Durability;
use crate::pass::confine::{Confinement, confine};
use crate::pass::report::{Counter, Event, Observer, Progress, Stop, Summary};
use crate::pass::state::{Hashers, Watcher};
use crate::sys::Kind;
use crate::throttle::Throttle;
use crate::tree::node::lock;

/// In what an entry differs from its counterpart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aspects {
    pub kind: bool,
    pub content: bool,
    pub size: bool,
    pub target: bool,
    pub device: bool,
    pub metadata: MetadataDifferences,
    /// It shares its inode with other names than its counterpart does.
    pub links: bool,
}

impl Aspects {
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }

    /// The aspects as `-i` names them.
    #[must_use]
    pub fn words(&self) -> String {
        let metadata = &self.metadata;
        let all = [
            (self.kind, "type"),
            (self.content, "content"),
            (self.size, "size"),
            (self.target, "target"),
            (self.device, "device"),
            (metadata.mode, "mode"),
            (metadata.owner, "owner"),
            (metadata.group, "group"),
            (metadata.mtime, "mtime"),
            (metadata.acl, "acl"),
            (metadata.xattrs, "xattrs"),
            (metadata.flags, "flags"),
            (self.links, "links"),
        ];
        let words: Vec<&str> = all.into_iter().filter_map(|(differs, word)| differs.then_some(word)).collect();
        words.join(", ")
    }

    /// Takes out what the user has accepted as lost, given the classes that the differences have.
    pub fn forgive(&mut self, found: &[LossClass], accepted: &[LossClass]) {
        use LossClass::{
            Acl, Capability, Flags, Group, InodeFlags, Link, Mode, Owner, Project, TimeGrain, Times, Xattr,
        };
        let refused = |classes: &[LossClass]| {
            let mut of_it = found.iter().filter(|class| classes.contains(class)).peekable();
            of_it.peek().is_none() || of_it.any(|class| !accepted.contains(class))
        };
        let metadata = &mut self.metadata;
        // A mode without a class of its own is the one that a lost ACL leaves.
        metadata.mode &= refused(if found.contains(&Mode) { &[Mode] } else { &[Acl] });
        metadata.owner &= refused(&[Owner]);
        metadata.group &= refused(&[Group]);
        metadata.mtime &= refused(&[Times, TimeGrain]);
        metadata.acl &= refused(&[Acl]);
        metadata.xattrs &= refused(&[Xattr, Capability, InodeFlags]);
        metadata.flags &= refused(&[Flags, Project, InodeFlags]);
        self.links &= refused(&[Link]);
    }
}

/// Which side has an entry that the other has not.
pub type Only = Side;

/// With what a comparison is made.
#[derive(Debug)]
pub struct Means<'m> {
    pub backend: Backend,
    /// What this process still needs, if it is to give up all else.
    pub confinement: Option<Confinement<'m>>,
    pub readback: &'static str,
    pub workers: usize,
    pub reason: &'m str,
}

/// What a comparison has found so far. Shared by its workers.
#[derive(Debug)]
pub struct Judge<'a> {
    pub progress: &'a Progress,
    stop: &'a Stop,
    observer: Watcher<'a>,
    /// Equal entries are said too.
    pub items: bool,
    pub hashers: Hashers,
    /// For the bytes of one side; the other keeps step by itself.
    pub pace: Arc<Pace>,
    pub unlimited: Arc<Pace>,
    /// Differences that the user has accepted.
    pub losses: LossLog<'a>,
    /// Entries at the source in scope.
    pub entries: Counter,
    pub proved: Counter,
    pub differing: Counter,
    pub missing: Counter,
    pub extra: Counter,
    hot: Counter,
    vanished: Counter,
    ignored: Counter,
    /// Something was found that is not equal, or could not be compared.
    unequal: AtomicBool,
    fatal: Mutex<Option<Error>>,
    ended: AtomicBool,
}

impl<'a> Judge<'a> {
    #[must_use]
    pub fn new(
        observer: &'a dyn Observer,
        progress: &'a Progress,
        stop: &'a Arc<Stop>,
        items: bool,
        throttle: &Throttle,
    ) -> Self {
        let stopped = Arc::clone(stop);
        Self {
            progress,
            stop,
            observer: Watcher(observer),
            items,
            hashers: Hashers::default(),
            pace: Arc::new(Pace::new(throttle, move || stopped.requested()).counting(&progress.beat)),
            unlimited: Arc::new(Pace::unlimited().counting(&progress.beat)),
            losses: LossLog::new(move |class, path, detail| observer.event(&Event::Loss { class, path, detail })),
            entries: Counter::default(),
            proved: Counter::default(),
            differing: Counter::default(),
            missing: Counter::default(),
            extra: Counter::default(),
            hot: Counter::default(),
            vanished: Counter::default(),
            ignored: Counter::default(),
            unequal: AtomicBool::new(false),
            fatal: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Sends an event.
    pub fn event(&self, event: &Event<'_>) {
        self.observer.0.event(event);
    }

    fn say(&self, sign: char, path: &[u8], what: &str) {
        self.event(&Event::Compared { sign, path, what });
    }

    /// Nothing is begun any more.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.stop.requested() || self.ended.load(Ordering::Relaxed)
    }

    /// Ends the run with this error, unless it has one already.
    pub fn end(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The error that ended the run, if one did.
    pub fn take_fatal(&self) -> Option<Error> {
        lock(&self.fatal).take()
    }

    /// Whether everything was equal so far.
    #[must_use]
    pub fn all_equal(&self) -> bool {
        !self.unequal.load(Ordering::Relaxed)
    }

    fn found_unequal(&self) {
        self.unequal.store(true, Ordering::Relaxed);
    }

    /// Says that an entry is equal, to whoever wants to know. The caller counts.
    pub fn show_equal(&self, path: impl FnOnce() -> Vec<u8>) {
        if self.items {
            self.say('=', &path(), "");
        }
    }

    /// An entry differs from its counterpart.
    pub fn differs(&self, path: &[u8], aspects: &Aspects) {
        self.found_unequal();
        self.differing.add(1);
        self.progress.entries_done.add(1);
        self.say('*', path, &aspects.words());
    }

    /// An entry that one side has and the other has not, said by name.
    pub fn only(&self, on: Only, path: &[u8], what: &str) {
        self.count_only(on, 1);
        self.say(if on == Side::Source { '+' } else { '-' }, path, what);
    }

    /// Entries below a directory that only one side has: counted, not said.
    pub fn count_only(&self, on: Only, count: u64) {
        self.found_unequal();
        match on {
            Side::Source => {
                self.missing.add(count);
                self.progress.entries_done.add(count);
            }
            Side::Destination => self.extra.add(count),
        }
    }

    /// An entry could not be compared.
    pub fn fail(&self, error: &EntryError) {
        self.found_unequal();
        let count = if error.class == Class::Hot { &self.hot } else { &self.progress.failed };
        count.add(1);
        self.progress.entries_done.add(1);
        self.event(&Event::EntryFailed(error));
        self.say('!', &error.path, &format!("{}: {}", error.class.word(), error.operation));
    }

    /// As [`Self::fail`], of an entry that the source's scan did not count.
    pub fn fail_extra(&self, error: &EntryError) {
        self.progress.entries_scanned.add(1);
        self.fail(error);
    }

    /// The share has no digests: the destination is not whole, if only as the user accepts.
    pub fn no_digests(&self) {
        self.found_unequal();
    }

    /// As [`Self::fail`], from an error of reading.
    pub fn fail_move(&self, path: Vec<u8>, error: MoveError) {
        let MoveError { class, side, operation, source } = error;
        self.fail(&EntryError { class, side, operation, path, source });
    }

    /// An entry was listed and is gone on both sides.
    pub fn vanished(&self) {
        // The digests of a share that changes under the comparison would be those of no moment.
        self.found_unequal();
        self.vanished.add(1);
        self.progress.entries_done.add(1);
    }

    /// An entry that is left out on purpose; said at the roots only.
    pub fn ignored(&self, path: Option<&[u8]>, why: &'static str) {
        self.ignored.add(1);
        if let Some(path) = path {
            self.event(&Event::Ignored { path, why });
        }
    }

    /// Says what is compared and how, has it done, and counts together what was found.
    ///
    /// # Errors
    /// What ended the comparison before its time.
    pub fn conduct(
        &self,
        (source, destination): (&Path, &Path),
        means: Means<'_>,
        compare: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let Means { backend, confinement, readback, workers: jobs, reason } = means;
        let job = uuid::Uuid::nil();
        self.event(&Event::Started { job, epoch: 0, kind: "verify", resumed: false, source, destination });
        if let Some(confinement) = &confinement {
            self.event(&Event::Confined(&confine(confinement)));
        }
        self.event(&Event::Backend { backend: backend.word(), readback, jobs, reason });
        self.progress.pass.add(1);
        compare()?;
        Ok(self.summary(backend, readback))
    }

    /// How the comparison ended, in the words of the contract.
    #[must_use]
    fn summary(&self, backend: Backend, readback: &'static str) -> Summary {
        let progress = self.progress;
        let mut holding = vec![ExitCode::Complete];
        let mut hold = |holds: bool, code| holding.extend(holds.then_some(code));
        hold(self.stop.requested(), ExitCode::Stopped);
        hold(self.differing.get() + self.missing.get() + self.extra.get() > 0, ExitCode::Mismatch);
        hold(progress.failed.get() + self.hot.get() > 0, ExitCode::SomeFailed);
        Summary {
            exit: ExitCode::first(&holding),
            verify: "full",
            passes: 1,
            entries: self.entries.get(),
            files_unchanged: progress.files_unchanged.get(),
            bytes_verified: progress.bytes_verified.get(),
            proved: self.proved.get(),
            hot: self.hot.get(),
            failed: progress.failed.get(),
            vanished: self.vanished.get(),
            ignored: self.ignored.get(),
            lost: self.losses.counts(Severity::Lost),
            degraded: self.losses.counts(Severity::Degraded),
            differing: self.differing.get(),
            missing: self.missing.get(),
            extra: self.extra.get(),
            backend: backend.word(),
            readback,
            ..Summary::of("verify")
        }
    }
}

/// The slower of two kinds of file systems.
#[must_use]
pub const fn slower(one: Durability, other: Durability) -> Durability {
    match (one, other) {
        (Durability::EachFile, _) | (_, Durability::EachFile) => Durability::EachFile,
        (Durability::FileSystem, _) | (_, Durability::FileSystem) => Durability::FileSystem,
        (Durability::Memory, Durability::Memory) => Durability::Memory,
    }
}

/// The class of loss when an entry of this type can't be made.
#[must_use]
pub const fn class_of_kind(kind: Kind) -> Option<LossClass> {
    match kind {
        Kind::File | Kind::Directory => None,
        Kind::Symlink => Some(LossClass::Symlink),
        Kind::Fifo | Kind::Socket => Some(LossClass::Special),
        Kind::CharDevice | Kind::BlockDevice => Some(LossClass::Device),
    }
}

/// Who reads the blocks, and why. A comparison writes nothing, so it can't probe as a copy does.
#[must_use]
pub fn backend(choice: BackendChoice) -> (Backend, String) {
    match choice {
        BackendChoice::Uring => match probe::refused() {
            None => (Backend::Uring, "as asked".into()),
            Some(reason) => (Backend::Threads, reason),
        },
        BackendChoice::Threads => (Backend::Threads, "as asked".into()),
        BackendChoice::Auto => (Backend::Threads, "a comparison writes no probe: plain threads read".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_whose_every_class_was_accepted_are_forgiven() {
        use LossClass::{Capability, Owner, Xattr};
        let metadata = MetadataDifferences { owner: true, xattrs: true, mode: true, ..MetadataDifferences::default() };
        let all = Aspects { metadata, content: true, ..Aspects::default() };
        let left = |accepted: &[LossClass]| {
            let mut aspects = all;
            aspects.forgive(&[Owner, Xattr, Capability], accepted);
            aspects.words()
        };
        assert_eq!(left(&[]), "content, mode, owner, xattrs");
        assert_eq!(left(&[Owner]), "content, mode, xattrs");
        assert_eq!(left(&[Owner, Xattr]), "content, mode, xattrs", "a capability is lost too");
        assert_eq!(left(&[Xattr, Capability]), "content, mode, owner");
    }
}
