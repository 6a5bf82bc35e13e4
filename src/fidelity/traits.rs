//! What one side of a copy can tell and hold, asked once at its root.
//!
//! Calls that never work on a file system are then not repeated for each of a hundred million
//! entries. Mounts are never crossed, so what holds for the root holds for the tree.

use std::io;
use std::os::fd::BorrowedFd;

use super::flags::{self, InodeFlags};
use super::loss::{LossClass, Losses};
use crate::sys::{self, EntryRef, Kind, Time};

/// Magic numbers (`statfs(2)`, `<linux/magic.h>`) of file systems that are known better than a
/// probe at the root could tell.
mod magic {
    pub const TMPFS: u32 = 0x0102_1994;
    pub const BTRFS: u32 = 0x9123_683e;
    pub const XFS: u32 = 0x5846_5342;
    pub const MSDOS: u32 = 0x4d44;
    pub const EXFAT: u32 = 0x2011_bab0;
    pub const HFSPLUS: u32 = 0x482b;
    pub const CIFS: u32 = 0xff53_4d42;
    pub const SMB2: u32 = 0xfe53_4d42;
    pub const NTFS3: u32 = 0x7366_746e;
}

const SECOND_NS: u32 = 1_000_000_000;

/// What one side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideTraits {
    /// Lists extended attributes.
    pub xattrs: bool,
    /// Answers `FS_IOC_GETFLAGS`, and that call tells more than the next.
    pub reads_flags: bool,
    /// Answers `FS_IOC_FSGETXATTR`, and that call tells more than the one before.
    pub reads_extended: bool,
    /// Tells extended flags by name, without opening (Linux 6.17).
    pub reads_by_name: bool,
    /// Has project ids.
    pub projects: bool,
    /// The project that every new entry belongs to unless told otherwise: the root's, where the
    /// root hands it on, else 0. It is the share's own, not data of the tenant.
    pub default_project: u32,
    /// Whether directories hand their project on unless told otherwise.
    pub hands_on_project: bool,
    /// Flags that only tune and that new entries get here anyway: this side's own policy.
    pub policy: u32,
    /// The unit in which times are kept, nanoseconds.
    pub time_grain_ns: u32,
    /// Whether this process sees and may set `trusted.*` attributes. Where it does not, the source
    /// may have some that nobody knows of.
    pub sees_trusted: bool,
}

impl Default for SideTraits {
    /// A side that has nothing but owner, mode and times.
    fn default() -> Self {
        Self {
            xattrs: false,
            reads_flags: false,
            reads_extended: false,
            reads_by_name: false,
            projects: false,
            default_project: 0,
            hands_on_project: false,
            policy: 0,
            time_grain_ns: 1,
            sees_trusted: false,
        }
    }
}

impl SideTraits {
    /// Asks a root, by reading only.
    ///
    /// # Errors
    /// What says that the root itself can't be read.
    pub fn probe(root: BorrowedFd<'_>) -> io::Result<Self> {
        let magic = sys::file_system_magic(root)?;
        let mut traits = Self {
            xattrs: sys::list_xattrs(EntryRef::Fd(root), &mut Vec::new())?.is_done(),
            reads_flags: flags::told(sys::get_flags(root))?.is_some(),
            reads_extended: flags::told(sys::get_extended_flags(root))?.is_some(),
            reads_by_name: flags::told(sys::get_extended_flags_at(root, c""))?.is_some(),
            time_grain_ns: known_grain_ns(magic),
            sees_trusted: sys::sees_trusted(),
            ..Self::default()
        };
        traits.projects = traits.reads_extended && !matches!(magic, magic::TMPFS | magic::BTRFS);
        // Both families answer there, but one of them tells all that there is.
        traits.reads_extended &= traits.projects;
        traits.reads_flags &= magic != magic::XFS || !traits.reads_extended;
        let root_flags = flags::read(EntryRef::Fd(root), Kind::Directory, &traits)?;
        traits.hands_on_project = root_flags.bits & flags::PROJECT_INHERIT != 0;
        traits.default_project = if traits.hands_on_project { root_flags.project } else { 0 };
        traits.policy = flags::tuning(root_flags.bits);
        Ok(traits)
    }

    /// Learns what a destination does to new files, from one that copyd has just made in its own
    /// staging directory: what it inherits, and the unit of its times. Changes the file's times.
    ///
    /// # Errors
    /// What says that the file can't be read or its times can't be set.
    pub fn learn_from_new_file(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let entry = EntryRef::Fd(file);
        let new: InodeFlags = flags::read(entry, Kind::File, self)?;
        self.policy |= flags::tuning(new.bits);
        self.default_project = new.project;
        // An odd second, because FAT keeps even ones.
        let time = Time { seconds: 1_000_000_001, nanoseconds: 123_456_789 };
        sys::set_times(entry, time, time)?;
        let got = entry.stat()?.mtime;
        let grains = [1, 100, 1_000, 1_000_000, 10_000_000, SECOND_NS];
        let fits = |grain: &u32| truncated(time, *grain) == got;
        self.time_grain_ns = grains.into_iter().find(fits).unwrap_or(2 * SECOND_NS);
        Ok(())
    }

    /// Whether this side knows no inode flags of any kind.
    #[must_use]
    pub const fn has_no_flags(&self) -> bool {
        !self.reads_flags && !self.reads_extended
    }

    /// What is known to be lost before the first byte when `self` is a destination for `source`.
    pub fn lost_against(&self, source: &Self, losses: &mut Losses) {
        if source.xattrs && !self.xattrs {
            let why = || "the destination has no extended attributes".to_owned();
            losses.add(LossClass::Xattr, why);
            losses.add(LossClass::Acl, why);
        }
        if source.has_flags() && self.has_no_flags() {
            losses.add(LossClass::Flags, || "the destination has no inode flags".to_owned());
        }
        if source.projects && !self.projects {
            losses.add(LossClass::Project, || "the destination has no project ids".to_owned());
        }
        if self.time_grain_ns > source.time_grain_ns {
            losses.add(LossClass::TimeGrain, || format!("times are kept in units of {} ns", self.time_grain_ns));
        }
    }

    const fn has_flags(&self) -> bool {
        !self.has_no_flags()
    }

    /// Whether two times are the same as far as this side can keep them.
    #[must_use]
    pub fn same_time(&self, a: Time, b: Time) -> bool {
        a == b || truncated(a, self.time_grain_ns) == truncated(b, self.time_grain_ns)
    }
}

const fn known_grain_ns(magic: u32) -> u32 {
    match magic {
        magic::MSDOS => 2 * SECOND_NS,
        magic::HFSPLUS => SECOND_NS,
        magic::EXFAT => 10_000_000,
        magic::CIFS | magic::SMB2 | magic::NTFS3 => 100,
        _ => 1,
    }
}

/// A time rounded down to a multiple of `grain_ns`, as the kernel does (`timestamp_truncate`).
fn truncated(time: Time, grain_ns: u32) -> Time {
    if grain_ns <= SECOND_NS {
        let nanoseconds = time.nanoseconds - time.nanoseconds % grain_ns.max(1);
        return Time { nanoseconds, ..time };
    }
    let grain_seconds = i64::from(grain_ns / SECOND_NS);
    Time { seconds: time.seconds - time.seconds.rem_euclid(grain_seconds), nanoseconds: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down_before_and_after_1970() {
        let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
        assert_eq!(truncated(time(-2, 987_654_321), 100), time(-2, 987_654_300));
        assert_eq!(truncated(time(-2, 987_654_321), SECOND_NS), time(-2, 0));
        assert_eq!(truncated(time(-3, 5), 2 * SECOND_NS), time(-4, 0));
        assert_eq!(truncated(time(3, 5), 2 * SECOND_NS), time(2, 0));
        assert_eq!(truncated(time(3, 5), 1), time(3, 5));
        let coarse = SideTraits { time_grain_ns: SECOND_NS, ..SideTraits::default() };
        assert!(coarse.same_time(time(3, 5), time(3, 0)));
        assert!(!coarse.same_time(time(3, 5), time(4, 0)));
    }

    #[test]
    fn what_a_poorer_destination_loses_is_known_before_the_first_byte() {
        use LossClass::{Acl, Flags, Project, TimeGrain, Xattr};
        let rich = SideTraits { xattrs: true, reads_flags: true, projects: true, ..SideTraits::default() };
        let poor = SideTraits { time_grain_ns: 100, ..SideTraits::default() };
        let mut losses = Losses::default();
        poor.lost_against(&rich, &mut losses);
        let classes: Vec<_> = losses.iter().map(|(class, _)| class).collect();
        assert_eq!(classes, [Xattr, Acl, Flags, Project, TimeGrain]);
        losses.clear();
        rich.lost_against(&poor, &mut losses);
        assert!(losses.is_empty());
    }
}
