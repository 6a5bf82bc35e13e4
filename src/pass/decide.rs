//! The comparison of one entry with its counterpart: pure, from what statx said of both and what
//! the catalog remembers.
//!
//! Size and modification time alone can be deceived (they can be put back), so where a catalog
//! knows the entry, change time and inode count too, on both sides: then equal means that nobody
//! touched either since copyd published it, xattrs and flags included. Where a side was touched
//! without size or time having moved, its content is hashed against the catalog's digest before
//! anything is believed. Without a catalog, size and time decide as they do for rsync, and the
//! metadata is read and compared.

use crate::store::{Facts, Fingerprint, Published};
use crate::sys::{Kind, Stat, Time};
use crate::tree::plan::Differences;

/// What has to be done to know, or to make equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides are as the catalog remembers them.
    Unchanged,
    /// Equal by size and time, or as remembered without all of its metadata: compare the rest of it.
    CompareMetadata,
    /// Someone touched a side: hash these sides against the catalog's digest.
    HashAgain { source: bool, destination: bool },
    /// Copy it.
    Copy(Differences),
    /// Another type stands there.
    OtherType,
}

/// The fingerprint that a catalog keeps of a source entry.
#[must_use]
pub fn fingerprint(source: &Stat) -> Fingerprint {
    Fingerprint { dev: source.dev, ino: source.ino, size: source.size, mtime: source.mtime, ctime: source.ctime }
}

/// What a catalog keeps of a published entry.
#[must_use]
pub fn published(destination: &Stat) -> Published {
    Published { ino: destination.ino, mtime: destination.mtime, ctime: destination.ctime }
}

/// Whether nobody touched either side since the row was written.
#[must_use]
pub fn as_remembered(row: &Facts, source: &Stat, destination: &Stat) -> bool {
    row.source == fingerprint(source) && published_as(row, source, destination)
}

fn published_as(row: &Facts, source: &Stat, destination: &Stat) -> bool {
    row.published == Some(published(destination)) && (source.kind != Kind::File || source.size == destination.size)
}

/// Whether two times are the same to a file system that keeps multiples of `grain_ns` nanoseconds
/// (1 to 10^9): exactly, or `destination` is `source` cut down to the grain.
#[must_use]
pub fn same_time(source: Time, destination: Time, grain_ns: u32) -> bool {
    let grain = grain_ns.max(1);
    source == destination
        || (source.seconds == destination.seconds && source.nanoseconds / grain == destination.nanoseconds / grain)
}

/// Compares `source` with `destination`. `owner` is what the destination shall have, after
/// mapping; `known` is the catalog's row.
#[must_use]
pub fn decide(source: &Stat, owner: (u32, u32), destination: &Stat, known: Option<&Facts>, grain_ns: u32) -> Verdict {
    if source.kind != destination.kind {
        return Verdict::OtherType;
    }
    let source_same = known.is_some_and(|row| row.source == fingerprint(source));
    let destination_same = known.is_some_and(|row| published_as(row, source, destination));
    if source_same && destination_same {
        let lost = known.is_some_and(|row| row.lost);
        return if lost { Verdict::CompareMetadata } else { Verdict::Unchanged };
    }
    if source.kind != Kind::File {
        return Verdict::CompareMetadata;
    }
    let size = source.size != destination.size;
    // A destination that keeps times otherwise than asked is judged by what it kept.
    let mtime = !same_time(source.mtime, destination.mtime, grain_ns)
        && !known.is_some_and(|row| {
            row.source.mtime == source.mtime && row.published.is_some_and(|p| p.mtime == destination.mtime)
        });
    if size || mtime {
        let differences = Differences {
            content: true,
            size,
            mtime,
            mode: source.mode != destination.mode,
            owner: owner.0 != destination.uid,
            group: owner.1 != destination.gid,
            ..Differences::default()
        };
        return Verdict::Copy(differences);
    }
    match known {
        None => Verdict::CompareMetadata,
        Some(row) if row.digest.is_some() => {
            Verdict::HashAgain { source: !source_same, destination: !destination_same }
        }
        // It was copied without a hash: there is nothing to hold it against but a new copy.
        Some(_) if !source_same => Verdict::Copy(Differences { content: true, ..Differences::default() }),
        Some(_) => Verdict::CompareMetadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ContentDigest;
    use proptest::prelude::*;

    fn stat(kind: Kind) -> Stat {
        let at = |s| Time { seconds: s, nanoseconds: 5 };
        Stat {
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            nlink: 1,
            size: 10,
            blocks: 8,
            ino: 3,
            dev: 4,
            rdev: 0,
            atime: at(1),
            mtime: at(2),
            ctime: at(3),
            mount_id: 1,
            mount_root: false,
        }
    }

    fn row(source: &Stat, destination: &Stat) -> Facts {
        let mut facts = Facts::new(source.kind);
        facts.source = fingerprint(source);
        facts.published = Some(published(destination));
        facts.digest = Some(ContentDigest { kind: 0, bytes: [1; 32] });
        facts
    }

    fn decided(source: &Stat, destination: &Stat, known: Option<&Facts>) -> Verdict {
        decide(source, (source.uid, source.gid), destination, known, 1)
    }

    #[test]
    fn both_sides_as_remembered_are_unchanged() {
        let s = stat(Kind::File);
        assert_eq!(decided(&s, &s, Some(&row(&s, &s))), Verdict::Unchanged);
    }

    #[test]
    fn what_could_not_be_kept_is_tried_again_though_both_sides_are_as_remembered() {
        let s = stat(Kind::File);
        let known = Facts { lost: true, ..row(&s, &s) };
        assert_eq!(decided(&s, &s, Some(&known)), Verdict::CompareMetadata);
    }

    #[test]
    fn a_rewrite_with_the_time_put_back_is_hashed() {
        let s = stat(Kind::File);
        let known = row(&s, &s);
        let rewritten = Stat { ctime: Time { seconds: 99, nanoseconds: 0 }, ..s };
        assert_eq!(decided(&rewritten, &s, Some(&known)), Verdict::HashAgain { source: true, destination: false });
        assert_eq!(decided(&s, &rewritten, Some(&known)), Verdict::HashAgain { source: false, destination: true });
    }

    #[test]
    fn without_a_hash_a_touched_source_is_copied_again() {
        let s = stat(Kind::File);
        let known = Facts { digest: None, ..row(&s, &s) };
        let touched = Stat { ctime: Time { seconds: 99, nanoseconds: 0 }, ..s };
        assert!(matches!(decided(&touched, &s, Some(&known)), Verdict::Copy(_)));
    }

    #[test]
    fn a_coarser_clock_at_the_destination_is_no_difference() {
        let s = stat(Kind::File);
        let coarse = Stat { mtime: Time { seconds: 2, nanoseconds: 0 }, ..s };
        assert_eq!(decide(&s, (1, 2), &coarse, None, 1_000_000_000), Verdict::CompareMetadata);
        assert!(matches!(decide(&s, (1, 2), &coarse, None, 1), Verdict::Copy(_)));
    }

    proptest! {
        #[test]
        fn nothing_that_moved_is_ever_called_unchanged(
            field in 0..8usize, amount in 1..1000u32, on_source in any::<bool>(),
        ) {
            let before = stat(Kind::File);
            let known = row(&before, &before);
            let mut moved = before;
            let n = u64::from(amount);
            let is_visible = match field {
                0 => { moved.size += n; true }
                1 => { moved.mtime.seconds += i64::from(amount); true }
                2 => { moved.mtime.nanoseconds += amount; true }
                3 => { moved.ctime.seconds += i64::from(amount); true }
                4 => { moved.ctime.nanoseconds += amount; true }
                5 => { moved.ino += n; true }
                6 => { moved.dev += n; on_source }
                _ => { moved.kind = Kind::Fifo; true }
            };
            let verdict = if on_source { decided(&moved, &before, Some(&known)) } else { decided(&before, &moved, Some(&known)) };
            if is_visible {
                prop_assert_ne!(verdict, Verdict::Unchanged);
            }
        }
    }
}
