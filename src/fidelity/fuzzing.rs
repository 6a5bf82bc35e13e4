//! The attributes' part of [`crate::fuzzing`].

use super::acl;
use super::idmap::IdMap;
use super::xattrs::{belongs_to_destination, class_of, is_only_the_mode, listed};

/// A list of names, as the kernel gives it, up to an empty name; then one value.
pub(crate) fn attributes(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == [0, 0]).map_or(data.len(), |at| at + 1);
    let (names, value) = data.split_at(end);
    let value = value.strip_prefix(&[0]).unwrap_or(value);
    for name in listed(names) {
        let _ = (class_of(name), belongs_to_destination(name.to_bytes()), is_only_the_mode(name, value));
    }
    let minimal = acl::is_minimal(value);
    let _ = acl::nfs4_is_minimal(value);
    for mode in [0, 0o644, 0o7777] {
        let narrowed = acl::narrowed_mode(value, mode);
        assert_eq!(narrowed & !mode, 0, "an ACL takes bits of a mode away, and gives none");
    }
    let map = IdMap::parse(Some("*:5"), Some("1000-4000000000:6"), None).expect("a good map");
    for name in [acl::ACCESS, acl::DEFAULT] {
        let once = acl::mapped(name, value, &map).into_owned();
        assert!(once.len() <= value.len(), "mapping makes entries fewer, never more");
        assert_eq!(minimal, acl::is_minimal(&once), "mapping names nobody new");
        assert_eq!(acl::mapped(name, &once, &map), once, "mapped ids map to themselves");
    }
    assert_eq!(acl::mapped(acl::NFS4, value, &map), value, "ACLs of other forms stay as they are");
}
