//! Comparing: what an entry at the destination lacks, before and after it was set.
//!
//! Success of a call is not believed blindly: servers squash owners, clamp times and mask bits in
//! silence. [`check_stat`] finds that in the `statx` that the pass makes anyway, [`check`] reads
//! attributes and flags again.

use super::loss::{LossClass, Losses};
use super::xattrs::{self, Step};
use super::{EntryOpError, Metadata, Rules, acl, capture, flags};
use crate::sys::{EntryRef, Kind, Stat, Time};

/// Which metadata differs between an entry and its counterpart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataDifferences {
    pub mode: bool,
    pub owner: bool,
    pub group: bool,
    pub mtime: bool,
    pub acl: bool,
    /// Any other extended attribute, capabilities among them.
    pub xattrs: bool,
    /// Inode flags or project id. Flags that can only be set on an empty file do not count: on a
    /// file that stands they can't be made equal.
    pub flags: bool,
}

impl MetadataDifferences {
    /// Whether nothing differs.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares an entry with its counterpart of the same type, as the rules would have it: ids mapped,
/// times in the destination's units. Access times and sizes are not compared.
#[must_use]
pub fn difference(wanted: &Metadata, have: &Metadata, rules: &Rules<'_>) -> MetadataDifferences {
    let (source, destination) = (&wanted.stat, &have.stat);
    let mut differences = MetadataDifferences {
        mode: source.kind != Kind::Symlink && source.mode != destination.mode,
        owner: rules.id_map.uid(source.uid) != destination.uid,
        group: rules.id_map.gid(source.gid) != destination.gid,
        mtime: !rules.destination.same_time(source.mtime, destination.mtime),
        flags: flags::differ(&wanted.flags, &have.flags, source.kind, rules),
        ..MetadataDifferences::default()
    };
    if !(wanted.xattrs.is_empty() && have.xattrs.is_empty()) {
        for step in xattrs::steps(&wanted.xattrs, &have.xattrs, rules.id_map) {
            if step.is_acl() {
                differences.acl = true;
            } else {
                differences.xattrs = true;
            }
        }
    }
    differences
}

/// Finds in an entry's final `stat` what the destination has ignored or changed in silence.
/// Classes that `losses` names already are not judged again.
pub fn check_stat(wanted: &Metadata, got: &Stat, rules: &Rules<'_>, losses: &mut Losses) {
    let source = &wanted.stat;
    let (uid, gid) = (rules.id_map.uid(source.uid), rules.id_map.gid(source.gid));
    if uid != got.uid {
        losses.add(LossClass::Owner, || format!("uid {uid} became {}", got.uid));
    }
    if gid != got.gid {
        losses.add(LossClass::Group, || format!("gid {gid} became {}", got.gid));
    }
    // A lost ACL narrows the mode on purpose.
    let lost_acl = wanted.xattrs.get(acl::ACCESS).filter(|_| losses.contains(LossClass::Acl));
    let narrowed = lost_acl.is_some_and(|value| got.mode == acl::narrowed_mode(value, source.mode));
    if source.kind != Kind::Symlink && source.mode != got.mode && !narrowed {
        losses.add(LossClass::Mode, || format!("{:04o} became {:04o}", source.mode, got.mode));
    }
    if source.mtime != got.mtime {
        let class = if is_coarser(source.mtime, got.mtime) { LossClass::TimeGrain } else { LossClass::Times };
        losses.add(class, || format!("mtime {} became {}", decimal(source.mtime), decimal(got.mtime)));
    }
}

/// Reads attributes and flags of a finished entry again and names what is missing. For
/// destinations whose word is not enough: network and FUSE file systems.
///
/// # Errors
/// What says that the destination is in trouble.
pub fn check(
    entry: EntryRef<'_>,
    wanted: &Metadata,
    rules: &Rules<'_>,
    losses: &mut Losses,
) -> Result<(), EntryOpError> {
    let got = entry.stat().map_err(|e| EntryOpError::new("check metadata", e))?;
    let got = capture(entry, &got, rules.destination, &mut Losses::default())?;
    lose_differences(wanted, &got, rules, losses);
    Ok(())
}

/// Names by class what [`difference`] tells in a word, with its details.
pub fn lose_differences(wanted: &Metadata, got: &Metadata, rules: &Rules<'_>, losses: &mut Losses) {
    for step in xattrs::steps(&wanted.xattrs, &got.xattrs, rules.id_map) {
        match step {
            Step::Set(xattr) => xattrs::lose(losses, &xattr.name, "not as it was set"),
            Step::Remove(name) => xattrs::lose(losses, name, "not at the source"),
        }
    }
    // After the attributes, because a lost ACL explains a narrower mode.
    check_stat(wanted, &got.stat, rules, losses);
    if flags::differ(&wanted.flags, &got.flags, wanted.stat.kind, rules) {
        flags::lose_difference(&wanted.flags, &got.flags, wanted.stat.kind, rules, losses);
    }
}

/// Whether a time was only rounded: nobody rounds by two seconds or more (FAT's unit), so anything
/// farther off was out of range or not set.
fn is_coarser(wanted: Time, got: Time) -> bool {
    let nanoseconds = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    (nanoseconds(wanted) - nanoseconds(got)).unsigned_abs() < 2_000_000_000
}

fn decimal(time: Time) -> String {
    format!("{}+{:09}ns", time.seconds, time.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::{IdMap, InodeFlags, SideTraits, Xattrs, xattrs::tests::xattrs};

    fn metadata(kind: Kind, xattrs: Xattrs) -> Metadata {
        let time = Time { seconds: 100, nanoseconds: 200 };
        let stat = Stat {
            kind,
            mode: 0o640,
            uid: 5,
            gid: 6,
            nlink: 1,
            size: 0,
            blocks: 0,
            ino: 1,
            dev: 1,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            mount_id: 0,
            mount_root: false,
        };
        Metadata { stat, xattrs, flags: InodeFlags::default() }
    }

    fn with_rules(map: Option<&str>, grain_ns: u32, check: impl Fn(&Rules<'_>)) {
        let destination = SideTraits { time_grain_ns: grain_ns, ..SideTraits::default() };
        let id_map = IdMap::parse(map, None, None).expect("a map");
        check(&Rules { source: &SideTraits::default(), destination: &destination, id_map: &id_map });
    }

    #[test]
    fn each_difference_is_told_by_its_own_field() {
        with_rules(None, 1, |rules| {
            let wanted = metadata(Kind::File, xattrs(&[("user.a", b"1"), ("system.posix_acl_access", b"2")]));
            assert!(difference(&wanted, &wanted, rules).none());
            let changed = |change: fn(&mut Metadata)| {
                let mut have = wanted.clone();
                change(&mut have);
                difference(&wanted, &have, rules)
            };
            let only = MetadataDifferences::default();
            assert_eq!(changed(|m| m.stat.mode = 0o641), MetadataDifferences { mode: true, ..only });
            assert_eq!(changed(|m| m.stat.uid = 1), MetadataDifferences { owner: true, ..only });
            assert_eq!(changed(|m| m.stat.gid = 1), MetadataDifferences { group: true, ..only });
            assert_eq!(changed(|m| m.stat.mtime.nanoseconds = 1), MetadataDifferences { mtime: true, ..only });
            assert_eq!(changed(|m| m.stat.atime.seconds = 1), only);
            let acl: fn(&mut Metadata) = |m| m.xattrs = xattrs(&[("user.a", b"1")]);
            assert_eq!(changed(acl), MetadataDifferences { acl: true, ..only });
            let xattr: fn(&mut Metadata) = |m| m.xattrs = xattrs(&[("system.posix_acl_access", b"2")]);
            assert_eq!(changed(xattr), MetadataDifferences { xattrs: true, ..only });
        });
    }

    #[test]
    fn the_comparison_maps_owners_and_rounds_times_as_the_destination_does() {
        with_rules(Some("5:9"), 1000, |rules| {
            let wanted = metadata(Kind::File, Xattrs::default());
            let mut have = wanted.clone();
            assert!(difference(&wanted, &have, rules).owner);
            (have.stat.uid, have.stat.mtime.nanoseconds) = (9, 0);
            assert!(difference(&wanted, &have, rules).none());
        });
    }

    #[test]
    fn the_mode_of_a_symlink_is_never_compared() {
        with_rules(None, 1, |rules| {
            let wanted = metadata(Kind::Symlink, Xattrs::default());
            let mut have = wanted.clone();
            have.stat.mode = 0o777;
            assert!(difference(&wanted, &have, rules).none());
            let mut losses = Losses::default();
            check_stat(&wanted, &have.stat, rules, &mut losses);
            assert!(losses.is_empty());
        });
    }

    #[test]
    fn what_a_server_ignored_in_silence_is_found_in_the_final_stat() {
        with_rules(Some("5:9"), 1, |rules| {
            let wanted = metadata(Kind::File, Xattrs::default());
            let mut got = wanted.stat;
            (got.uid, got.gid, got.mode, got.mtime) = (65534, 65534, 0o600, Time { seconds: 99, nanoseconds: 0 });
            let mut losses = Losses::default();
            check_stat(&wanted, &got, rules, &mut losses);
            let found: Vec<_> = losses.iter().map(|(class, detail)| format!("{class}: {detail}")).collect();
            assert_eq!(
                found,
                [
                    "owner: uid 9 became 65534",
                    "group: gid 6 became 65534",
                    "mode: 0640 became 0600",
                    "time_grain: mtime 100+000000200ns became 99+000000000ns"
                ]
            );
            losses.clear();
            got.mtime.seconds = 98;
            check_stat(&wanted, &got, rules, &mut losses);
            assert!(losses.contains(LossClass::Times), "two seconds are more than any rounding");
        });
    }
}
