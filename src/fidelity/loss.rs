//! What a destination can't hold, by enumerated class (promise P8): nothing is lost in silence.
//!
//! Functions that set metadata collect the [`Losses`] of one entry; the pass hands them, with the
//! entry's path, to the run's [`LossLog`], which counts and gives a bounded number of examples.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LOSS_EXAMPLES;

/// How much a class of loss matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No interface of any Linux file system sets it: said once, and no fault of the destination.
    Unsettable,
    /// A reader of the content, and who may read it, notices no difference: reported, exit 0.
    Degraded,
    /// Something that the source has and the destination has not: exit 41 unless accepted.
    Lost,
}

/// Every way in which a destination can fall short of its source.
///
/// What decides between degraded and lost is the reader: whatever changes which bytes are read,
/// under which name, or by whom, is lost; what only tunes the file system, or was asked for by the
/// user (a mapped owner), is degraded.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LossClass {
    /// The time an inode was made (`statx` btime): the destination's own.
    BirthTime,
    /// The time an inode last changed (ctime): the destination's own.
    ChangeTime,
    /// Inode numbers and generations: the destination's own.
    InodeNumber,
    /// `security.ima` and `security.evm`: signatures over this very inode, worthless on another.
    Integrity,
    /// A time kept in coarser units than at the source.
    TimeGrain,
    /// Owner or group changed as `--usermap`, `--groupmap` or `--chown` asks.
    OwnerMapped,
    /// Flags and hints that tune the file system: nodump, noatime, sync, compression, copy on
    /// write, allocation.
    InodeFlags,
    /// The owning user.
    Owner,
    /// The owning group.
    Group,
    /// Permission, set-id or sticky bits.
    Mode,
    /// A POSIX or `NFSv4` access control list.
    Acl,
    /// An extended attribute.
    Xattr,
    /// File capabilities (`security.capability`).
    Capability,
    /// Holes: the file takes more room than at the source.
    Hole,
    /// A hard link: two names of one inode became two inodes.
    Link,
    /// A character or block device.
    Device,
    /// A FIFO or socket.
    Special,
    /// A symbolic link.
    Symlink,
    /// A time that the destination's range can't hold, or that it does not let be set.
    Times,
    /// A name that the destination can't hold.
    Name,
    /// Flags with meaning for a reader or writer: immutable, append-only, casefold, encrypted,
    /// verity.
    Flags,
    /// A project id, by which quotas of directory trees count.
    Project,
}

impl LossClass {
    /// All classes, in the order of the enumeration.
    pub const ALL: [Self; 22] = [
        Self::BirthTime,
        Self::ChangeTime,
        Self::InodeNumber,
        Self::Integrity,
        Self::TimeGrain,
        Self::OwnerMapped,
        Self::InodeFlags,
        Self::Owner,
        Self::Group,
        Self::Mode,
        Self::Acl,
        Self::Xattr,
        Self::Capability,
        Self::Hole,
        Self::Link,
        Self::Device,
        Self::Special,
        Self::Symlink,
        Self::Times,
        Self::Name,
        Self::Flags,
        Self::Project,
    ];

    /// What no run can carry, whatever the two sides are.
    pub const ALWAYS: [Self; 3] = [Self::BirthTime, Self::ChangeTime, Self::InodeNumber];

    /// The word that events, reports and `--accept-loss` use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.texts().0
    }

    /// One sentence on what is missing.
    #[must_use]
    pub const fn description(self) -> &'static str {
        self.texts().1
    }

    /// What the person in front of it can do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.texts().2
    }

    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::BirthTime | Self::ChangeTime | Self::InodeNumber | Self::Integrity => Severity::Unsettable,
            Self::TimeGrain | Self::OwnerMapped | Self::InodeFlags => Severity::Degraded,
            Self::Owner
            | Self::Group
            | Self::Mode
            | Self::Acl
            | Self::Xattr
            | Self::Capability
            | Self::Hole
            | Self::Link
            | Self::Device
            | Self::Special
            | Self::Symlink
            | Self::Times
            | Self::Name
            | Self::Flags
            | Self::Project => Severity::Lost,
        }
    }

    /// Word, description, remedy.
    const fn texts(self) -> (&'static str, &'static str, &'static str) {
        const NOTHING: &str = "nothing to do: no file system lets it be set";
        const AS_ROOT: &str =
            "run as root; on an export use no_root_squash for the copy; else accept it with --accept-loss";
        const OTHER: &str = "choose a destination file system that holds it, or accept it with --accept-loss";
        match self {
            Self::BirthTime => ("birth_time", "The destination's entries are born when they are copied.", NOTHING),
            Self::ChangeTime => ("change_time", "The destination keeps change times of its own.", NOTHING),
            Self::InodeNumber => ("inode_number", "The destination numbers its inodes itself.", NOTHING),
            Self::Integrity => (
                "integrity",
                "IMA and EVM signatures belong to the source's inodes.",
                "sign the files again at the destination",
            ),
            Self::TimeGrain => (
                "time_grain",
                "The destination keeps times in coarser units.",
                "nothing to do: the run compares times in the destination's units",
            ),
            Self::OwnerMapped => ("owner_mapped", "Owners were mapped as the options ask.", "nothing to do: as asked"),
            Self::InodeFlags => (
                "inode_flags",
                "Flags that tune the file system do not exist at the destination.",
                "tune the destination with its own means where it matters",
            ),
            Self::Owner => ("owner", "Some entries belong to another user than at the source.", AS_ROOT),
            Self::Group => ("group", "Some entries belong to another group than at the source.", AS_ROOT),
            Self::Mode => ("mode", "Some permission or set-id bits are not as at the source.", AS_ROOT),
            Self::Acl => (
                "acl",
                "Access control lists could not be kept; the group's permissions were narrowed to what they gave it.",
                "mount the destination with ACLs of the same kind, or accept it with --accept-loss",
            ),
            Self::Xattr => ("xattr", "Some extended attributes could not be kept.", OTHER),
            Self::Capability => ("capability", "Some files lost their capabilities.", AS_ROOT),
            Self::Hole => ("hole", "Some files have fewer holes and take more room.", OTHER),
            Self::Link => ("link", "Some hard links became files of their own.", OTHER),
            Self::Device => ("device", "Some device nodes could not be made.", AS_ROOT),
            Self::Special => ("special", "Some FIFOs or sockets could not be made.", OTHER),
            Self::Symlink => ("symlink", "Some symbolic links could not be made.", OTHER),
            Self::Times => ("times", "Some times are outside of what the destination can hold.", OTHER),
            Self::Name => (
                "name",
                "Some names can't exist at the destination.",
                "rename them at the source, or choose another file system",
            ),
            Self::Flags => ("flags", "Some entries lost flags that guard or change access to them.", OTHER),
            Self::Project => (
                "project",
                "Some project ids could not be kept.",
                "use a file system with project quotas (xfs, ext4 with -O project), or accept it with --accept-loss",
            ),
        }
    }
}

/// A word that names no class of loss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no class of loss {word:?}; the classes are {}", LossClass::ALL.map(LossClass::word).join(", "))]
pub struct UnknownLossClass {
    pub word: String,
}

impl FromStr for LossClass {
    type Err = UnknownLossClass;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|class| class.word() == word);
        found.ok_or_else(|| UnknownLossClass { word: word.to_owned() })
    }
}

impl std::fmt::Display for LossClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// The losses of one entry, each class once. Empty, the usual case, it owns no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(Vec<(LossClass, String)>);

impl Losses {
    /// Notes a class with its detail; a class that the entry has already keeps its first detail.
    pub fn add(&mut self, class: LossClass, detail: impl FnOnce() -> String) {
        if !self.contains(class) {
            self.0.push((class, detail()));
        }
    }

    #[must_use]
    pub fn contains(&self, class: LossClass) -> bool {
        self.0.iter().any(|(known, _)| *known == class)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the source has something that the destination has not.
    #[must_use]
    pub fn any_lost(&self) -> bool {
        self.0.iter().any(|(class, _)| class.severity() == Severity::Lost)
    }

    /// Class and detail, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = (LossClass, &str)> {
        self.0.iter().map(|(class, detail)| (*class, detail.as_str()))
    }

    /// Makes room for the next entry.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Receives class, path and detail of an example.
type Report<'a> = Box<dyn Fn(LossClass, &[u8], &str) + Send + Sync + 'a>;

/// All losses of a run, counted by many threads.
pub struct LossLog<'a> {
    counts: [AtomicU64; LossClass::ALL.len()],
    report: Report<'a>,
}

impl std::fmt::Debug for LossLog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LossLog").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<'a> LossLog<'a> {
    /// `report` is called for the first [`LOSS_EXAMPLES`] of each class, by the thread that found
    /// the loss.
    pub fn new(report: impl Fn(LossClass, &[u8], &str) + Send + Sync + 'a) -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), report: Box::new(report) }
    }

    /// Counts one loss of one entry; `path` as the file system gave it, from the root.
    pub fn add(&self, class: LossClass, path: &[u8], detail: &str) {
        let before = self.counts[class as usize].fetch_add(1, Ordering::Relaxed);
        if before < LOSS_EXAMPLES {
            (self.report)(class, path, detail);
        }
    }

    /// Counts everything that one entry lost.
    pub fn record(&self, path: &[u8], losses: &Losses) {
        for (class, detail) in losses.iter() {
            self.add(class, path, detail);
        }
    }

    #[must_use]
    pub fn count(&self, class: LossClass) -> u64 {
        self.counts[class as usize].load(Ordering::Relaxed)
    }

    /// The classes of one severity that have happened, with the number of entries.
    #[must_use]
    pub fn counts(&self, severity: Severity) -> BTreeMap<LossClass, u64> {
        let classes = LossClass::ALL.into_iter().filter(|class| class.severity() == severity);
        classes.map(|class| (class, self.count(class))).filter(|(_, count)| *count > 0).collect()
    }

    /// What could not be set on any file system: the three that hold for every run, and
    /// integrity signatures where the source had some.
    #[must_use]
    pub fn unsettable(&self) -> Vec<LossClass> {
        let mut classes = LossClass::ALWAYS.to_vec();
        if self.count(LossClass::Integrity) > 0 {
            classes.push(LossClass::Integrity);
        }
        classes
    }

    /// Whether something was lost that the user has not accepted: exit 41.
    #[must_use]
    pub fn refused(&self, accepted: &[LossClass]) -> bool {
        self.counts(Severity::Lost).keys().any(|class| !accepted.contains(class))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_class_stands_at_its_own_place_has_its_own_word_and_parses_back() {
        for (place, class) in LossClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
            assert_eq!(class.word().parse(), Ok(class));
            assert_eq!(serde_json::to_string(&class).expect("JSON"), format!("\"{}\"", class.word()));
            assert!(class.description().ends_with('.'));
            assert!(!class.remedy().is_empty());
        }
        let error = "acls".parse::<LossClass>().expect_err("no such class");
        assert!(error.to_string().contains("\"acls\"") && error.to_string().contains(" acl,"), "{error}");
    }

    #[test]
    fn an_entry_counts_once_for_each_class_however_many_details_it_has() {
        let mut losses = Losses::default();
        losses.add(LossClass::Xattr, || "first".into());
        losses.add(LossClass::Xattr, || unreachable!("the detail of a known class is not even made"));
        let log = LossLog::new(|_, _, _| ());
        log.record(b"a", &losses);
        log.record(b"b", &losses);
        assert_eq!(log.counts(Severity::Lost), BTreeMap::from([(LossClass::Xattr, 2)]));
    }

    #[test]
    fn examples_end_at_their_limit_and_counting_does_not() {
        let seen = Mutex::new(Vec::new());
        let log = LossLog::new(|class, path, detail| {
            seen.lock().expect("no panic").push((class, path.to_vec(), detail.to_owned()));
        });
        for _ in 0..LOSS_EXAMPLES + 5 {
            log.add(LossClass::Acl, b"p\xff", "why");
        }
        log.add(LossClass::Hole, b"q", "");
        assert_eq!(log.count(LossClass::Acl), LOSS_EXAMPLES + 5);
        let seen = seen.lock().expect("no panic");
        assert_eq!(seen.len() as u64, LOSS_EXAMPLES + 1);
        assert_eq!(seen[0], (LossClass::Acl, b"p\xff".to_vec(), "why".to_owned()));
    }

    #[test]
    fn only_what_is_lost_and_not_accepted_refuses() {
        let log = LossLog::new(|_, _, _| ());
        assert!(!log.refused(&[]));
        log.add(LossClass::TimeGrain, b"", "");
        log.add(LossClass::Integrity, b"", "");
        assert!(!log.refused(&[]), "degraded and unsettable never refuse");
        log.add(LossClass::Acl, b"", "");
        log.add(LossClass::Owner, b"", "");
        assert!(log.refused(&[LossClass::Acl]));
        assert!(!log.refused(&[LossClass::Owner, LossClass::Acl]));
        assert_eq!(log.unsettable().len(), 4);
        assert_eq!(log.counts(Severity::Degraded), BTreeMap::from([(LossClass::TimeGrain, 1)]));
    }
}
