//! Inode flags, project ids and allocation hints: which are carried, and when they are set.
//!
//! Every flag has one row in [`ROWS`] (or, where only xfs knows it, in [`EXTENDED_ROWS`]) that
//! says so. An entry without any, the usual case, costs no call at the destination at all.

use super::loss::{LossClass, Losses};
use super::traits::SideTraits;
use super::{EntryOpError, Rules, is_refusal};
use crate::sys::{self, Answer, EntryRef, ExtendedFlags, Kind};

/// When a flag is set on a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On an empty file: afterwards it has no effect, or is refused. On directories, which have no
    /// data, together with the other metadata.
    BeforeData,
    /// With owner, mode and times, before the entry is published.
    WithMetadata,
    /// After the rename, and for directories after their children: it forbids both.
    AfterPublish,
}

/// One flag: bit, word, when it is set, the class of loss where it can't be. A flag without a
/// stage is never set: the destination has it or has not.
struct Row(u32, &'static str, Option<Stage>, LossClass);

use LossClass::{Flags, InodeFlags as Tuning, Project};
use Stage::{AfterPublish, BeforeData, WithMetadata};

/// `FS_*_FL` of `<linux/fs.h>`. What stands in no row is the file system's own bookkeeping (extents,
/// index, inline data, compressed blocks, …) and means nothing elsewhere.
const ROWS: [Row; 19] = [
    Row(0x0000_0001, "secrm", Some(WithMetadata), Tuning),
    Row(0x0000_0002, "unrm", Some(WithMetadata), Tuning),
    Row(COMPRESS, "compr", Some(BeforeData), Tuning),
    Row(0x0000_0008, "sync", Some(WithMetadata), Tuning),
    Row(IMMUTABLE, "immutable", Some(AfterPublish), Flags),
    Row(APPEND, "append", Some(AfterPublish), Flags),
    Row(0x0000_0040, "nodump", Some(WithMetadata), Tuning),
    Row(0x0000_0080, "noatime", Some(WithMetadata), Tuning),
    Row(NO_COMPRESS, "nocomp", Some(BeforeData), Tuning),
    Row(0x0000_0800, "encrypt", None, Flags),
    Row(0x0000_4000, "journal_data", Some(BeforeData), Tuning),
    Row(0x0000_8000, "notail", Some(WithMetadata), Tuning),
    Row(0x0001_0000, "dirsync", Some(WithMetadata), Tuning),
    Row(0x0002_0000, "topdir", Some(WithMetadata), Tuning),
    Row(0x0010_0000, "verity", None, Flags),
    Row(NO_COW, "nocow", Some(BeforeData), Tuning),
    Row(0x0200_0000, "dax", Some(BeforeData), Tuning),
    Row(PROJECT_INHERIT, "projinherit", Some(WithMetadata), Project),
    Row(0x4000_0000, "casefold", None, Flags),
];

/// `FS_XFLAG_*` without a counterpart above. Realtime and preallocated extents are where the data
/// lies, not what the tenant asked for, and stand in no row.
const EXTENDED_ROWS: [Row; 7] = [
    Row(0x0000_0100, "rtinherit", Some(WithMetadata), Tuning),
    Row(0x0000_0400, "nosymlinks", Some(AfterPublish), Tuning),
    Row(0x0000_0800, "extsize", Some(BeforeData), Tuning),
    Row(0x0000_1000, "extszinherit", Some(WithMetadata), Tuning),
    Row(0x0000_2000, "nodefrag", Some(WithMetadata), Tuning),
    Row(0x0000_4000, "filestream", Some(WithMetadata), Tuning),
    Row(0x0001_0000, "cowextsize", Some(BeforeData), Tuning),
];

pub(super) const IMMUTABLE: u32 = 0x10;
pub(super) const APPEND: u32 = 0x20;
pub(super) const PROJECT_INHERIT: u32 = 0x2000_0000;
const COMPRESS: u32 = 0x4;
const NO_COMPRESS: u32 = 0x400;
const NO_COW: u32 = 0x0080_0000;

/// Flags of which btrfs takes only one at a time.
const EXCLUSIVE: u32 = COMPRESS | NO_COMPRESS | NO_COW;

/// The same flag in both families: (`FS_*_FL`, `FS_XFLAG_*`).
const SHARED: [(u32, u32); 8] = [
    (0x0000_0008, 0x0000_0020),
    (IMMUTABLE, 0x0000_0008),
    (APPEND, 0x0000_0010),
    (0x0000_0040, 0x0000_0080),
    (0x0000_0080, 0x0000_0040),
    (0x0010_0000, 0x0002_0000),
    (0x0200_0000, 0x0000_8000),
    (PROJECT_INHERIT, 0x0000_0200),
];

const SHARED_BITS: u32 = {
    let mut bits = 0;
    let mut i = 0;
    while i < SHARED.len() {
        bits |= SHARED[i].0;
        i += 1;
    }
    bits
};

const KNOWN: u32 = union(&ROWS);
const KNOWN_EXTENDED: u32 = union(&EXTENDED_ROWS);

const fn union(rows: &[Row]) -> u32 {
    let mut bits = 0;
    let mut i = 0;
    while i < rows.len() {
        bits |= rows[i].0;
        i += 1;
    }
    bits
}

/// The flags of one entry, as far as they could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags {
    /// `FS_*_FL`, those that have a row.
    pub bits: u32,
    /// `FS_XFLAG_*` without a counterpart in `bits`, those that have a row.
    pub extended: u32,
    /// Extent size hint, bytes.
    pub extent_size: u32,
    /// Extent size hint for copies on write, bytes.
    pub cow_extent_size: u32,
    /// Project id; 0 also where there are none.
    pub project: u32,
    /// Which of `bits` were told: the others are unknown, not absent.
    pub seen: u32,
    /// Whether project and hints were told.
    pub seen_extended: bool,
}

impl InodeFlags {
    /// Whether the entry can't be changed or removed while its flags stand.
    #[must_use]
    pub const fn locks(&self) -> bool {
        self.bits & (IMMUTABLE | APPEND) != 0
    }

    fn of(bits: Option<u32>, extended: Option<&ExtendedFlags>) -> Self {
        let told =
            extended.map(|e| SHARED.iter().fold(0, |bits, (fl, x)| if e.flags & x == 0 { bits } else { bits | fl }));
        let seen = if bits.is_some() { KNOWN } else { told.map_or(0, |_| SHARED_BITS) };
        Self {
            bits: bits.or(told).unwrap_or_default() & KNOWN,
            extended: extended.map_or(0, |e| e.flags & KNOWN_EXTENDED),
            extent_size: extended.map_or(0, |e| e.extent_size),
            cow_extent_size: extended.map_or(0, |e| e.cow_extent_size),
            project: extended.map_or(0, |e| e.project),
            seen,
            seen_extended: extended.is_some(),
        }
    }
}

/// The bits of a set that only tune the file system.
pub(super) fn tuning(bits: u32) -> u32 {
    bits & ROWS.iter().filter(|row| row.3 == Tuning).fold(0, |all, row| all | row.0)
}

/// The bits that are set at a stage. What has to come before a file's data has no such limit on
/// a directory.
fn at_stage(rows: &[Row], stage: Stage, kind: Kind) -> u32 {
    let early = kind == Kind::Directory && stage == WithMetadata;
    let wanted = |row: &&Row| row.2 == Some(stage) || (early && row.2 == Some(BeforeData));
    rows.iter().filter(wanted).fold(0, |bits, row| bits | row.0)
}

/// Reads the flags of an entry with the calls that its side answers.
///
/// # Errors
/// What says that the file system is in trouble; a refusal means "no flags".
pub(super) fn read(entry: EntryRef<'_>, kind: Kind, traits: &SideTraits) -> std::io::Result<InodeFlags> {
    let has_descriptor_calls = matches!(kind, Kind::File | Kind::Directory);
    match entry {
        // To a device, an ioctl may mean anything.
        EntryRef::Fd(_) if !has_descriptor_calls => Ok(InodeFlags::default()),
        EntryRef::Fd(fd) => {
            let bits = if traits.reads_flags { told(sys::get_flags(fd))? } else { None };
            let extended = if traits.reads_extended { told(sys::get_extended_flags(fd))? } else { None };
            Ok(InodeFlags::of(bits, extended.as_ref()))
        }
        // On symlinks and special files nothing but a project is of interest.
        EntryRef::At(directory, name) if traits.reads_by_name && (has_descriptor_calls || traits.projects) => {
            let extended = told(sys::get_extended_flags_at(directory, name))?;
            let flags = InodeFlags::of(None, extended.as_ref());
            Ok(InodeFlags { seen_extended: flags.seen_extended && traits.projects, ..flags })
        }
        EntryRef::At(..) => Ok(InodeFlags::default()),
    }
}

/// Turns "refused" into "not answered": flags that are not told must not fail an entry.
pub(super) fn told<T>(result: std::io::Result<Answer<T>>) -> std::io::Result<Option<T>> {
    match result {
        Ok(Answer::Done(value)) => Ok(Some(value)),
        Ok(Answer::Unsupported) => Ok(None),
        Err(e) if is_refusal(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the destination should show for the source's flags.
///
/// The project that a share's root hands on is the share's own quota, not the tenant's data: it
/// becomes the project that the destination's root hands on. Projects that differ from it inside
/// the tree are the tenant's and are kept.
fn translated(wanted: &InodeFlags, kind: Kind, rules: &Rules<'_>) -> InodeFlags {
    let mut flags = *wanted;
    let share = (rules.source.default_project, rules.destination.default_project);
    if wanted.project == share.0 && share != (0, 0) {
        flags.project = share.1;
        let hands_on = kind == Kind::Directory && rules.destination.hands_on_project;
        flags.bits = if hands_on { flags.bits | PROJECT_INHERIT } else { flags.bits & !PROJECT_INHERIT };
    }
    flags
}

/// Whether the destination's flags are other than the source asks, of those that both tell and
/// that can still be changed. The destination's own policy is no difference.
pub(super) fn differ(wanted: &InodeFlags, have: &InodeFlags, kind: Kind, rules: &Rules<'_>) -> bool {
    let target = translated(wanted, kind, rules);
    // A side that knows no flags has none: that is a difference, and reported by every run.
    let none = rules.destination.has_no_flags();
    let seen = wanted.seen & if none { KNOWN } else { have.seen };
    let changeable = at_stage(&ROWS, WithMetadata, kind) | at_stage(&ROWS, AfterPublish, kind);
    let policy = rules.destination.policy & !target.bits;
    let extended_changeable =
        at_stage(&EXTENDED_ROWS, WithMetadata, kind) | at_stage(&EXTENDED_ROWS, AfterPublish, kind);
    let seen_extended = wanted.seen_extended && (have.seen_extended || !rules.destination.projects);
    let project = target.project != have.project;
    let hints = (target.extended ^ have.extended) & extended_changeable != 0;
    (target.bits ^ have.bits) & seen & changeable & !policy != 0 || (seen_extended && (project || hints))
}

/// Names what [`differ`] found.
pub(super) fn lose_difference(
    wanted: &InodeFlags,
    have: &InodeFlags,
    kind: Kind,
    rules: &Rules<'_>,
    losses: &mut Losses,
) {
    let target = translated(wanted, kind, rules);
    lose_missing(&ROWS, (target.bits ^ have.bits) & wanted.seen, "not as it was set", losses);
    lose_missing(&EXTENDED_ROWS, target.extended ^ have.extended, "not as it was set", losses);
    lose_project(Some(target.project).filter(|id| wanted.seen_extended && *id != have.project), losses);
}

/// Sets on a new entry what belongs to a stage; without such flags this makes no call at all.
///
/// # Errors
/// What says that the file system is in trouble; what is refused is a loss.
pub(super) fn apply_new(
    entry: EntryRef<'_>,
    kind: Kind,
    wanted: &InodeFlags,
    stage: Stage,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    // The usual entry is out at once: what it has of the share's project is inherited.
    let own_project = wanted.seen_extended && wanted.project != rules.source.default_project;
    if wanted.bits == 0 && wanted.extended == 0 && !own_project {
        return Ok(());
    }
    let target = translated(wanted, kind, rules);
    let mut bits = target.bits & at_stage(&ROWS, stage, kind);
    let mut anything = target.extended & at_stage(&EXTENDED_ROWS, stage, kind) != 0;
    if stage == WithMetadata {
        bits |= target.bits & never_set();
        anything |= wanted.seen_extended && target.project != rules.destination.default_project;
    }
    if bits == 0 && !anything {
        return Ok(());
    }
    apply(entry, kind, wanted, stage, rules, losses)
}

/// The bits that only the file system itself gives and that mean something to readers.
fn never_set() -> u32 {
    ROWS.iter().filter(|row| row.2.is_none()).fold(0, |bits, row| bits | row.0)
}

/// Makes the flags of a stage as the source asks, whatever they are now.
///
/// # Errors
/// As [`apply_new`].
pub(super) fn apply(
    entry: EntryRef<'_>,
    kind: Kind,
    wanted: &InodeFlags,
    stage: Stage,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    let target = translated(wanted, kind, rules);
    if wanted.seen_extended || target.extended != 0 {
        apply_extended(entry, kind, &target, stage, rules, losses)?;
    }
    let mask = at_stage(&ROWS, stage, kind) & wanted.seen;
    let told_only = if stage == WithMetadata { never_set() } else { 0 };
    let Some(current) = current_bits(entry, kind).map_err(|e| EntryOpError::new("read flags", e))? else {
        lose_missing(&ROWS, target.bits & (mask | told_only), "no such flags here", losses);
        return Ok(());
    };
    let mut policy = rules.destination.policy;
    if target.bits & mask & EXCLUSIVE != 0 {
        policy &= !EXCLUSIVE;
    }
    let goal = (current & !mask) | (target.bits & mask) | (current & mask & policy);
    lose_missing(&ROWS, target.bits & told_only & !current, "only the file system itself gives it", losses);
    set_each(entry, kind, current, goal, losses)
}

/// Sets all flags at once; where that is refused, one by one, to lose no more than has to be. File
/// systems mask in silence what they don't know (ext4), so the result is read again.
fn set_each(entry: EntryRef<'_>, kind: Kind, current: u32, goal: u32, losses: &mut Losses) -> Result<(), EntryOpError> {
    let failed = |e| EntryOpError::new("set flags", e);
    if goal == current {
        return Ok(());
    }
    if !set_bits(entry, kind, goal).map_err(failed)? {
        let mut reached = current;
        for bit in (0..u32::BITS).map(|shift| 1 << shift).filter(|bit| (current ^ goal) & bit != 0) {
            if set_bits(entry, kind, reached ^ bit).map_err(failed)? {
                reached ^= bit;
            }
        }
    }
    let reached = current_bits(entry, kind).map_err(|e| EntryOpError::new("read flags", e))?.unwrap_or_default();
    lose_missing(&ROWS, (reached ^ goal) & KNOWN, "refused", losses);
    Ok(())
}

fn lose_missing(rows: &[Row], missing: u32, why: &str, losses: &mut Losses) {
    for Row(bit, word, _, class) in rows {
        if missing & bit != 0 {
            losses.add(*class, || format!("{word}: {why}"));
        }
    }
}

/// The bits now, whole, so that what copyd does not know is given back as it was.
fn current_bits(entry: EntryRef<'_>, kind: Kind) -> std::io::Result<Option<u32>> {
    match entry {
        EntryRef::Fd(fd) if matches!(kind, Kind::File | Kind::Directory) => told(sys::get_flags(fd)),
        EntryRef::Fd(_) => Ok(None),
        EntryRef::At(directory, name) => {
            let extended = told(sys::get_extended_flags_at(directory, name))?;
            Ok(extended.map(|extended| InodeFlags::of(None, Some(&extended)).bits))
        }
    }
}

/// Sets all bits; false when refused.
fn set_bits(entry: EntryRef<'_>, kind: Kind, bits: u32) -> std::io::Result<bool> {
    let result = match entry {
        EntryRef::Fd(fd) if matches!(kind, Kind::File | Kind::Directory) => sys::set_flags(fd, bits),
        EntryRef::Fd(_) => Ok(Answer::Unsupported),
        EntryRef::At(directory, name) => match sys::get_extended_flags_at(directory, name)? {
            Answer::Unsupported => Ok(Answer::Unsupported),
            Answer::Done(mut extended) => {
                for (fl, x) in SHARED {
                    extended.flags = if bits & fl == 0 { extended.flags & !x } else { extended.flags | x };
                }
                sys::set_extended_flags_at(directory, name, &extended)
            }
        },
    };
    Ok(told(result)?.is_some())
}

/// Project id and allocation hints, which only the extended family has.
fn apply_extended(
    entry: EntryRef<'_>,
    kind: Kind,
    target: &InodeFlags,
    stage: Stage,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    let failed = |e| EntryOpError::new("set project and hints", e);
    let mask = at_stage(&EXTENDED_ROWS, stage, kind);
    let project = if stage == WithMetadata { Some(target.project) } else { None };
    let current = match entry {
        EntryRef::Fd(fd) if matches!(kind, Kind::File | Kind::Directory) => told(sys::get_extended_flags(fd)),
        EntryRef::Fd(_) => Ok(None),
        EntryRef::At(directory, name) => told(sys::get_extended_flags_at(directory, name)),
    };
    let Some(current) = current.map_err(|e| EntryOpError::new("read project and hints", e))? else {
        lose_missing(&EXTENDED_ROWS, target.extended & mask, "no such flags here", losses);
        lose_project(project.filter(|id| *id != rules.destination.default_project), losses);
        return Ok(());
    };
    let mut with_project = current;
    with_project.project = project.unwrap_or(current.project);
    let hints = |base: ExtendedFlags| {
        let mut goal = base;
        goal.flags = (base.flags & !mask) | (target.extended & mask);
        if mask & target.extended != 0 {
            (goal.extent_size, goal.cow_extent_size) = (target.extent_size, target.cow_extent_size);
        }
        goal
    };
    let set = |goal: &ExtendedFlags| match entry {
        EntryRef::Fd(fd) => told(sys::set_extended_flags(fd, goal)),
        EntryRef::At(directory, name) => told(sys::set_extended_flags_at(directory, name, goal)),
    };
    let goal = hints(with_project);
    if goal == current || set(&goal).map_err(failed)?.is_some() {
        return Ok(());
    }
    // Together they are refused: each on its own, to lose no more than has to be.
    let mut reached = current;
    if with_project != current {
        match set(&with_project).map_err(failed)? {
            Some(()) => reached = with_project,
            None => lose_project(project, losses),
        }
    }
    let goal = hints(reached);
    if goal != reached && set(&goal).map_err(failed)?.is_none() {
        lose_missing(&EXTENDED_ROWS, (goal.flags ^ reached.flags) & mask, "refused", losses);
    }
    Ok(())
}

fn lose_project(project: Option<u32>, losses: &mut Losses) {
    if let Some(id) = project {
        losses.add(Project, || format!("project {id} can't be set"));
    }
}

/// Takes immutable and append-only away, so that the entry can be changed. Without such flags this
/// makes no call.
///
/// # Errors
/// As [`unlock`].
pub(super) fn lift(entry: EntryRef<'_>, kind: Kind, have: &InodeFlags) -> Result<(), EntryOpError> {
    if have.locks() { unlock(entry, kind).map(|_| ()) } else { Ok(()) }
}

/// Immutable and append-only, as one entry has them: what keeps even root from replacing, linking
/// or removing it, and from changing what a directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locks(u32);

impl Locks {
    #[must_use]
    pub const fn none(self) -> bool {
        self.0 == 0
    }

    /// Those of either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that a capture could not tell, so that nothing but their own standing says what they
    /// shall be.
    #[must_use]
    pub const fn unknown_to(self, flags: &InodeFlags) -> Self {
        Self(self.0 & !flags.seen)
    }
}

/// Looks at an entry of the destination, and takes immutable and append-only away where it has
/// them. Answers with what it took.
///
/// # Errors
/// `EPERM` without `CAP_LINUX_IMMUTABLE`, and what says that the file system is in trouble.
pub fn unlock(entry: EntryRef<'_>, kind: Kind) -> Result<Locks, EntryOpError> {
    let failed = |e| EntryOpError::new("lift immutable and append-only", e);
    let current = current_bits(entry, kind).map_err(failed)?.unwrap_or_default();
    let locks = Locks(current & (IMMUTABLE | APPEND));
    if locks.none() || set_bits(entry, kind, current & !locks.0).map_err(failed)? {
        return Ok(locks);
    }
    Err(failed(std::io::Error::from_raw_os_error(libc::EPERM)))
}

/// Gives an entry back what [`unlock`] took; without any this makes no call.
///
/// # Errors
/// As [`unlock`].
pub fn lock_again(entry: EntryRef<'_>, kind: Kind, locks: Locks) -> Result<(), EntryOpError> {
    if locks.none() {
        return Ok(());
    }
    let failed = |e| EntryOpError::new("set immutable and append-only again", e);
    let current = current_bits(entry, kind).map_err(failed)?.unwrap_or_default();
    if current | locks.0 == current || set_bits(entry, kind, current | locks.0).map_err(failed)? {
        return Ok(());
    }
    Err(failed(std::io::Error::from_raw_os_error(libc::EPERM)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::idmap::IdMap;

    #[test]
    fn no_bit_stands_in_two_rows_and_every_shared_bit_has_one() {
        for rows in [&ROWS[..], &EXTENDED_ROWS[..]] {
            let sum: u64 = rows.iter().map(|row| u64::from(row.0)).sum();
            assert_eq!(sum, u64::from(union(rows)));
            assert!(rows.iter().all(|row| row.0.is_power_of_two()));
        }
        assert_eq!(SHARED_BITS & !KNOWN, 0);
        assert_eq!(SHARED.iter().fold(0, |bits, (_, x)| bits | x) & KNOWN_EXTENDED, 0);
    }

    #[test]
    fn what_precedes_a_file_s_data_comes_with_a_directory_s_metadata() {
        assert_ne!(at_stage(&ROWS, BeforeData, Kind::File) & NO_COW, 0);
        assert_eq!(at_stage(&ROWS, WithMetadata, Kind::File) & NO_COW, 0);
        assert_ne!(at_stage(&ROWS, WithMetadata, Kind::Directory) & NO_COW, 0);
        assert_eq!(at_stage(&ROWS, AfterPublish, Kind::File), IMMUTABLE | APPEND);
    }

    fn side(default_project: u32) -> SideTraits {
        let reads = default_project != u32::MAX;
        SideTraits {
            reads_flags: reads,
            reads_extended: reads,
            projects: reads,
            hands_on_project: default_project != 0,
            default_project,
            ..SideTraits::default()
        }
    }

    fn flags(bits: u32, project: u32) -> InodeFlags {
        InodeFlags { bits, project, seen: KNOWN, seen_extended: true, ..InodeFlags::default() }
    }

    #[test]
    fn the_share_s_own_project_becomes_the_destination_s_and_the_tenant_s_projects_stay() {
        let (source, destination, id_map) = (side(7), side(42), IdMap::default());
        let rules = Rules { source: &source, destination: &destination, id_map: &id_map };
        let share = translated(&flags(PROJECT_INHERIT, 7), Kind::Directory, &rules);
        assert_eq!((share.project, share.bits), (42, PROJECT_INHERIT));
        let tenant = translated(&flags(PROJECT_INHERIT, 9), Kind::Directory, &rules);
        assert_eq!((tenant.project, tenant.bits), (9, PROJECT_INHERIT));
        let (plain, lost) = (side(0), Rules { source: &side(0), ..rules });
        assert_eq!(translated(&flags(0, 0), Kind::Directory, &lost).bits, PROJECT_INHERIT, "the quota holds on");
        assert_eq!(translated(&flags(0, 0), Kind::File, &lost), flags(0, 42));
        let rules_to_plain = Rules { destination: &plain, ..rules };
        assert_eq!(translated(&flags(PROJECT_INHERIT, 7), Kind::Directory, &rules_to_plain), flags(0, 0));
        assert!(!differ(&flags(0, 7), &flags(0, 42), Kind::File, &rules));
        assert!(differ(&flags(0, 9), &flags(0, 42), Kind::File, &rules));
    }

    #[test]
    fn a_side_without_flags_differs_by_what_the_source_has_and_only_by_that() {
        let (source, id_map) = (side(0), IdMap::default());
        let destination = SideTraits::default();
        let rules = Rules { source: &source, destination: &destination, id_map: &id_map };
        let nothing = InodeFlags::default();
        assert!(!differ(&flags(0, 0), &nothing, Kind::File, &rules));
        assert!(differ(&flags(IMMUTABLE, 0), &nothing, Kind::File, &rules));
        assert!(differ(&flags(0, 5), &nothing, Kind::File, &rules));
    }

    #[test]
    fn the_destination_s_policy_and_what_is_too_late_are_no_difference() {
        const NOATIME: u32 = 0x80;
        let (source, id_map) = (side(0), IdMap::default());
        let destination = SideTraits { policy: NOATIME, ..side(0) };
        let rules = Rules { source: &source, destination: &destination, id_map: &id_map };
        assert!(!differ(&flags(0, 0), &flags(NOATIME, 0), Kind::File, &rules));
        assert!(differ(&flags(NOATIME, 0), &flags(0, 0), Kind::File, &rules));
        assert!(differ(&flags(0, 0), &flags(0x40, 0), Kind::File, &rules));
        assert!(!differ(&flags(NO_COW, 0), &flags(0, 0), Kind::File, &rules));
        assert!(differ(&flags(NO_COW, 0), &flags(0, 0), Kind::Directory, &rules));
        let unseen = InodeFlags { seen: SHARED_BITS, ..flags(0, 0) };
        assert!(!differ(&flags(NO_COW, 0), &unseen, Kind::Directory, &rules));
    }
}
