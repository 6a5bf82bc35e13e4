//! Access control lists as attribute values: what they say beyond the mode, and whom they name.
//!
//! POSIX ACLs travel in the kernel's own form (`posix_acl_xattr.h`, version 2, little-endian:
//! a version, then entries of tag, permissions and id), the same on every file system; `NFSv4` ACLs
//! in the XDR form of RFC 7530, 6.2.1, as `system.nfs4_acl` shows them.

use std::borrow::Cow;

use super::idmap::IdMap;

/// Names under which POSIX ACLs are listed.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The name under which an `NFSv4` client shows a server's ACL.
pub(super) const NFS4: &[u8] = b"system.nfs4_acl";

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;

const TAG_USER_OBJ: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_GROUP_OBJ: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_OTHER: u16 = 0x20;

/// One entry of a POSIX ACL.
#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    permissions: u16,
    /// User or group of a named entry; all ones elsewhere.
    id: u32,
}

impl Entry {
    fn bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&self.tag.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.permissions.to_le_bytes());
        bytes[4..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }
}

/// The entries of a POSIX ACL; `None` for a value that is none.
fn entries(value: &[u8]) -> Option<impl Iterator<Item = Entry>> {
    let rest = value.strip_prefix(&VERSION)?;
    let (entries, tail) = rest.as_chunks::<ENTRY_BYTES>();
    let decode = |[a, b, c, d, e, f, g, h]: &[u8; ENTRY_BYTES]| Entry {
        tag: u16::from_le_bytes([*a, *b]),
        permissions: u16::from_le_bytes([*c, *d]),
        id: u32::from_le_bytes([*e, *f, *g, *h]),
    };
    tail.is_empty().then(|| entries.iter().map(decode))
}

/// Whether an access ACL says no more than the mode does. Some servers list such a one for every
/// file; the kernel itself turns it into mode bits when it is set.
pub(super) fn is_minimal(value: &[u8]) -> bool {
    entries(value).is_some_and(|mut all| all.all(|entry| matches!(entry.tag, TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER)))
}

/// The mode for an entry whose access ACL is not (yet) set.
///
/// With an ACL, the group bits of the mode are its mask: the most that any named user or group
/// has. Set without the ACL they would give all of that to the owning group, which may have had
/// nothing. So the group gets what the ACL gives to it and no more.
pub(super) fn narrowed_mode(value: &[u8], mode: u32) -> u32 {
    let group = entries(value).and_then(|mut all| all.find(|entry| entry.tag == TAG_GROUP_OBJ));
    let permissions = group.map_or(0, |entry| u32::from(entry.permissions & 7));
    mode & (!0o070 | permissions << 3)
}

/// A POSIX ACL with the ids of its named entries mapped; any other value as it is.
///
/// Where two names fall together the result grants what both granted: less is safe, and the kernel
/// would only ever look at the first.
pub(super) fn mapped<'a>(name: &[u8], value: &'a [u8], id_map: &IdMap) -> Cow<'a, [u8]> {
    if id_map.is_identity() || (name != ACCESS && name != DEFAULT) {
        return Cow::Borrowed(value);
    }
    let Some(all) = entries(value) else { return Cow::Borrowed(value) };
    let mut mapped: Vec<Entry> = all
        .map(|entry| match entry.tag {
            TAG_USER => Entry { id: id_map.uid(entry.id), ..entry },
            TAG_GROUP => Entry { id: id_map.gid(entry.id), ..entry },
            _ => entry,
        })
        .collect();
    // The kernel wants tags in this order, and file systems keep ids in theirs.
    mapped.sort_by_key(|entry| (entry.tag, entry.id));
    mapped.dedup_by(|next, kept| {
        let same = (next.tag, next.id) == (kept.tag, kept.id);
        if same {
            kept.permissions &= next.permissions;
        }
        same
    });
    let mut bytes = Vec::with_capacity(HEADER_BYTES + mapped.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&VERSION);
    bytes.extend(mapped.into_iter().flat_map(Entry::bytes));
    Cow::Owned(bytes)
}

/// Whether an `NFSv4` ACL speaks only of owner, group and everyone, and inherits nothing: then it is
/// the server's rendering of the mode, which every file there has.
pub(super) fn nfs4_is_minimal(value: &[u8]) -> bool {
    nfs4_names_only_the_mode(value).unwrap_or(false)
}

fn nfs4_names_only_the_mode(mut rest: &[u8]) -> Option<bool> {
    /// `ACE4_IDENTIFIER_GROUP`: the only flag that an entry for `GROUP@` needs.
    const IDENTIFIER_GROUP: u32 = 0x40;
    /// `ACE4_ACCESS_DENIED_ACE_TYPE`, after `ACE4_ACCESS_ALLOWED_ACE_TYPE`, which is 0.
    const DENIED: u32 = 1;
    let word = |rest: &mut &[u8]| -> Option<u32> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_be_bytes(*head))
    };
    for _ in 0..word(&mut rest)? {
        let (kind, flags, _mask, length) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
        let length = usize::try_from(length).ok()?;
        let who = rest.get(..length)?;
        rest = rest.get(length.checked_next_multiple_of(4)?..)?;
        if kind > DENIED || flags & !IDENTIFIER_GROUP != 0 || !matches!(who, b"OWNER@" | b"GROUP@" | b"EVERYONE@") {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A POSIX ACL of (tag, permissions, id).
    pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        bytes.extend(
            entries
                .iter()
                .flat_map(|(tag, permissions, id)| Entry { tag: *tag, permissions: *permissions, id: *id }.bytes()),
        );
        bytes
    }

    const NO_ID: u32 = u32::MAX;

    /// `user::rw-, user:5:rwx, user:6:r--, group::---, mask::rwx, other::r--`.
    pub fn named() -> Vec<u8> {
        acl(&[(1, 6, NO_ID), (2, 7, 5), (2, 4, 6), (4, 0, NO_ID), (16, 7, NO_ID), (32, 4, NO_ID)])
    }

    #[test]
    fn an_acl_of_owner_group_and_other_is_only_a_mode() {
        assert!(is_minimal(&acl(&[(1, 6, NO_ID), (4, 4, NO_ID), (32, 4, NO_ID)])));
        assert!(!is_minimal(&named()));
        assert!(!is_minimal(b"something else"));
        assert!(!is_minimal(&named()[..21]));
    }

    #[test]
    fn without_its_acl_the_group_gets_no_more_than_the_acl_gave_it() {
        assert_eq!(narrowed_mode(&named(), 0o2674), 0o2604);
        assert_eq!(narrowed_mode(&acl(&[(1, 6, NO_ID), (4, 5, NO_ID), (16, 7, NO_ID)]), 0o770), 0o750);
        assert_eq!(narrowed_mode(&acl(&[(4, 7, NO_ID), (16, 4, NO_ID)]), 0o640), 0o640, "never more than the mask");
        assert_eq!(narrowed_mode(b"bad", 0o777), 0o707);
    }

    #[test]
    fn named_entries_are_mapped_sorted_and_where_they_meet_the_lesser_grant_stays() {
        let map = IdMap::parse(Some("5:9,6:1"), None, None).expect("map");
        let expected = acl(&[(1, 6, NO_ID), (2, 4, 1), (2, 7, 9), (4, 0, NO_ID), (16, 7, NO_ID), (32, 4, NO_ID)]);
        assert_eq!(mapped(ACCESS, &named(), &map), expected);
        let map = IdMap::parse(Some("*:9"), None, None).expect("map");
        let expected = acl(&[(1, 6, NO_ID), (2, 4, 9), (4, 0, NO_ID), (16, 7, NO_ID), (32, 4, NO_ID)]);
        assert_eq!(mapped(DEFAULT, &named(), &map), expected);
        assert_eq!(mapped(b"user.x", &named(), &map), named());
        assert_eq!(mapped(ACCESS, b"bad", &map), &b"bad"[..]);
        let groups = IdMap::parse(None, Some("*:9"), None).expect("map");
        assert_eq!(mapped(ACCESS, &named(), &groups), named());
    }

    /// An `NFSv4` ACL of (type, flags, who).
    fn nfs4(entries: &[(u32, u32, &str)]) -> Vec<u8> {
        let mut bytes = u32::try_from(entries.len()).expect("few").to_be_bytes().to_vec();
        for (kind, flags, who) in entries {
            for word in [*kind, *flags, 0x1f_01ff, u32::try_from(who.len()).expect("short")] {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend(who.bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn an_nfsv4_acl_that_names_somebody_or_inherits_is_more_than_the_mode() {
        let plain = nfs4(&[(0, 0, "OWNER@"), (0, 0x40, "GROUP@"), (1, 0, "EVERYONE@"), (0, 0, "EVERYONE@")]);
        assert!(nfs4_is_minimal(&plain));
        assert!(!nfs4_is_minimal(&nfs4(&[(0, 0, "OWNER@"), (0, 0, "bob@example.org")])));
        assert!(!nfs4_is_minimal(&nfs4(&[(0, 3, "OWNER@")])), "inherits");
        assert!(!nfs4_is_minimal(&nfs4(&[(2, 0, "OWNER@")])), "audits");
        for cut in 1..plain.len() {
            assert!(!nfs4_is_minimal(&plain[..cut]), "a torn value is kept, cut at {cut}");
        }
    }
}
