//! Extended attributes of one entry: which are carried, captured whole, in one order.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::io;

use bstr::ByteSlice;

use super::acl;
use super::idmap::IdMap;
use super::loss::{LossClass, Losses};
use super::{EntryOpError, is_refusal};
use crate::limits::XATTR_TOTAL_BYTES;
use crate::sys::{self, Answer, EntryRef};

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// With its namespace: `user.comment`.
    pub name: CString,
    pub value: Box<[u8]>,
}

impl Xattr {
    /// The value as the destination should have it.
    pub(super) fn mapped(&self, id_map: &IdMap) -> Cow<'_, [u8]> {
        acl::mapped(self.name.to_bytes(), &self.value, id_map)
    }
}

/// The attributes of one entry that copyd carries, sorted by name. Empty, the usual case, it owns
/// no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(Vec<Xattr>);

impl Xattrs {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the names' bytes.
    pub fn iter(&self) -> std::slice::Iter<'_, Xattr> {
        self.0.iter()
    }

    /// The value under a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let place = self.0.binary_search_by(|xattr| xattr.name.to_bytes().cmp(name)).ok()?;
        Some(&self.0[place].value)
    }
}

impl<'a> IntoIterator for &'a Xattrs {
    type Item = &'a Xattr;
    type IntoIter = std::slice::Iter<'a, Xattr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What becomes of an attribute of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carry {
    Yes,
    /// A view of something that is carried by other means, or the file system's own bookkeeping.
    No,
    /// A signature over the inode.
    Integrity,
}

/// Names that are never carried, and why nothing is lost by that.
///
/// - `trusted.SGI_ACL_*`: how xfs shows root the ACLs that `system.posix_acl_*` holds already.
/// - `system.nfs4_dacl`, `system.nfs4_sacl`: parts of what `system.nfs4_acl` holds.
/// - `ceph.`, `glusterfs.`, `trusted.glusterfs.`, `lustre.`, `afs.`, `bcachefs_effective.`: what
///   the storage says about its own placement of the file.
const VIEWS: [&[u8]; 9] = [
    b"trusted.SGI_ACL_",
    b"system.nfs4_dacl",
    b"system.nfs4_sacl",
    b"ceph.",
    b"glusterfs.",
    b"trusted.glusterfs.",
    b"lustre.",
    b"afs.",
    b"bcachefs_effective.",
];

fn carry(name: &[u8]) -> Carry {
    if name == b"security.ima" || name == b"security.evm" {
        Carry::Integrity
    } else if VIEWS.iter().any(|prefix| name.starts_with(prefix)) {
        Carry::No
    } else {
        Carry::Yes
    }
}

/// Whether an attribute that only the destination has is there by its own right: labels that the
/// security module gives to every new inode, and the ACL that a server makes of every mode.
#[must_use]
pub fn belongs_to_destination(name: &[u8]) -> bool {
    const OWN: [&[u8]; 4] = [b"security.selinux", b"security.SMACK64", b"security.apparmor", acl::NFS4];
    OWN.iter().any(|prefix| name.starts_with(prefix))
}

/// The class of loss when this attribute can't be kept.
pub(super) fn class_of(name: &CStr) -> LossClass {
    match name.to_bytes() {
        acl::ACCESS | acl::DEFAULT | acl::NFS4 => LossClass::Acl,
        b"security.capability" => LossClass::Capability,
        // Properties such as `btrfs.compression`: tuning, like the flags of the same name.
        name if name.starts_with(b"btrfs.") => LossClass::InodeFlags,
        _ => LossClass::Xattr,
    }
}

/// Notes that an attribute could not be kept. Names are a tenant's bytes: they are escaped.
pub(super) fn lose(losses: &mut Losses, name: &CStr, why: impl std::fmt::Display) {
    losses.add(class_of(name), || format!("{:?}: {why}", name.to_bytes().as_bstr()));
}

thread_local! {
    /// Names and one value, kept from entry to entry so that the usual entry allocates nothing.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Reads all attributes of an entry that are carried: one system call where there are none.
///
/// # Errors
/// What says that the file system is in trouble. What is merely refused is a loss.
pub(super) fn capture(entry: EntryRef<'_>, losses: &mut Losses) -> Result<Xattrs, EntryOpError> {
    SCRATCH.with_borrow_mut(|(names, value)| capture_with(entry, names, value, losses))
}

fn capture_with(
    entry: EntryRef<'_>,
    names: &mut Vec<u8>,
    value: &mut Vec<u8>,
    losses: &mut Losses,
) -> Result<Xattrs, EntryOpError> {
    match sys::list_xattrs(entry, names) {
        Ok(Answer::Done(())) => {}
        Ok(Answer::Unsupported) => return Ok(Xattrs::default()),
        Err(e) if is_refusal(&e) || e.raw_os_error() == Some(libc::E2BIG) => {
            losses.add(LossClass::Xattr, || format!("the attributes can't be listed: {e}"));
            return Ok(Xattrs::default());
        }
        Err(e) => return Err(EntryOpError::new("list extended attributes", e)),
    }
    let mut found = Vec::new();
    let mut bytes_total = 0;
    for name in listed(names) {
        match carry(name.to_bytes()) {
            Carry::No => continue,
            Carry::Integrity => {
                losses.add(LossClass::Integrity, || name.to_string_lossy().into_owned());
                continue;
            }
            Carry::Yes => {}
        }
        if !read(entry, name, value, losses)? || is_only_the_mode(name, value) {
            continue;
        }
        bytes_total += name.count_bytes() + value.len();
        if bytes_total > XATTR_TOTAL_BYTES {
            lose(losses, name, format_args!("more than {XATTR_TOTAL_BYTES} bytes of attributes"));
            break;
        }
        found.push(Xattr { name: name.to_owned(), value: value.as_slice().into() });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.name == b.name);
    Ok(Xattrs(found))
}

/// The names of a list. One that does not end with NUL is a server's lie; the torn name is left out.
pub(super) fn listed(names: &[u8]) -> impl Iterator<Item = &CStr> {
    names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
}

/// Reads one value; false where there is none to carry.
fn read(entry: EntryRef<'_>, name: &CStr, value: &mut Vec<u8>, losses: &mut Losses) -> Result<bool, EntryOpError> {
    match sys::get_xattr(entry, name, value) {
        Ok(Answer::Done(())) => Ok(true),
        // Removed since it was listed: the change moves the ctime, which the fingerprint sees.
        Err(e) if e.raw_os_error() == Some(libc::ENODATA) => Ok(false),
        Ok(Answer::Unsupported) => {
            lose(losses, name, "listed, but it can't be read");
            Ok(false)
        }
        Err(e) if is_refusal(&e) || e.raw_os_error() == Some(libc::E2BIG) => {
            lose(losses, name, e);
            Ok(false)
        }
        Err(e) => Err(EntryOpError::new("read extended attribute", e)),
    }
}

pub(super) fn is_only_the_mode(name: &CStr, value: &[u8]) -> bool {
    match name.to_bytes() {
        acl::ACCESS => acl::is_minimal(value),
        acl::NFS4 => acl::nfs4_is_minimal(value),
        _ => false,
    }
}

/// What has to be done to one attribute of the destination.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Set(&'a Xattr),
    Remove(&'a CStr),
}

impl Step<'_> {
    pub(super) fn name(&self) -> &CStr {
        match self {
            Self::Set(xattr) => &xattr.name,
            Self::Remove(name) => name,
        }
    }

    pub(super) fn is_acl(&self) -> bool {
        class_of(self.name()) == LossClass::Acl
    }
}

/// The steps from what the destination has to what the source has, in the order of names.
pub(super) fn steps<'a>(wanted: &'a Xattrs, have: &'a Xattrs, id_map: &IdMap) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let (mut left, mut right) = (wanted.iter().peekable(), have.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return steps,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let wanted = if order.is_le() { left.next() } else { None };
        let have = if order.is_ge() { right.next() } else { None };
        match (wanted, have) {
            (Some(wanted), Some(have)) if wanted.mapped(id_map)[..] == have.value[..] => {}
            (Some(wanted), _) => steps.push(Step::Set(wanted)),
            (None, Some(have)) if !belongs_to_destination(have.name.to_bytes()) => {
                steps.push(Step::Remove(&have.name));
            }
            (None, _) => {}
        }
    }
}

/// Whether an error says that this attribute does not fit or is not allowed, rather than that the
/// file system is in trouble.
pub(super) fn is_no_place(entry: EntryRef<'_>, error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ERANGE | libc::ENAMETOOLONG | libc::EMSGSIZE) => true,
        // ext4 has one block for attributes, btrfs a tree node: ENOSPC on a file system with room.
        Some(libc::ENOSPC) => sys::available_bytes(entry).is_ok_and(|bytes| bytes > crate::limits::XATTR_ROOM_BYTES),
        _ => is_refusal(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Attributes by name and value.
    pub fn xattrs(of: &[(&str, &[u8])]) -> Xattrs {
        let mut all: Vec<_> = of
            .iter()
            .map(|(name, value)| Xattr { name: CString::new(*name).expect("a name"), value: (*value).into() })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Xattrs(all)
    }

    fn words(steps: &[Step<'_>]) -> Vec<String> {
        let word = |step: &Step<'_>| match step {
            Step::Set(xattr) => format!("set {}", xattr.name.to_string_lossy()),
            Step::Remove(name) => format!("remove {}", name.to_string_lossy()),
        };
        steps.iter().map(word).collect()
    }

    #[test]
    fn steps_set_what_differs_and_remove_what_is_foreign_but_not_labels() {
        let wanted = xattrs(&[("user.a", b"1"), ("user.b", b"2"), ("user.d", b"4")]);
        let have = xattrs(&[
            ("security.selinux", b"label"),
            ("user.a", b"1"),
            ("user.b", b"x"),
            ("user.c", b""),
            ("user.e", b""),
        ]);
        let found = steps(&wanted, &have, &IdMap::default());
        assert_eq!(words(&found), ["set user.b", "remove user.c", "set user.d", "remove user.e"]);
        assert!(steps(&wanted, &wanted, &IdMap::default()).is_empty());
        let labelled = xattrs(&[("security.selinux", b"other")]);
        assert_eq!(words(&steps(&labelled, &have, &IdMap::default()))[0], "set security.selinux");
    }

    #[test]
    fn an_acl_that_is_equal_after_mapping_needs_no_step() {
        let map = IdMap::parse(Some("5:9"), None, None).expect("map");
        let source = acl::tests::named();
        let wanted = xattrs(&[("system.posix_acl_access", &source)]);
        let have = xattrs(&[("system.posix_acl_access", &acl::mapped(acl::ACCESS, &source, &map))]);
        assert!(steps(&wanted, &have, &map).is_empty());
        assert_eq!(steps(&wanted, &have, &IdMap::default()).len(), 1);
    }

    #[test]
    fn views_and_signatures_are_not_carried() {
        assert_eq!(carry(b"trusted.SGI_ACL_FILE"), Carry::No);
        assert_eq!(carry(b"trusted.SGI_ACL_DEFAULT"), Carry::No);
        assert_eq!(carry(b"security.evm"), Carry::Integrity);
        assert_eq!(carry(b"security.ima"), Carry::Integrity);
        for name in ["user.x", "trusted.overlay.opaque", "security.capability", "system.posix_acl_default"] {
            assert_eq!(carry(name.as_bytes()), Carry::Yes, "{name}");
        }
    }

    #[test]
    fn a_name_with_control_bytes_is_escaped_in_the_detail() {
        let mut losses = Losses::default();
        lose(&mut losses, c"user.\x1b[31m\xff", "too large");
        let details: Vec<_> = losses.iter().collect();
        assert_eq!(details, [(LossClass::Xattr, r#""user.\x1b[31m\xff": too large"#)]);
    }
}
