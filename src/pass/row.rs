//! Catalog rows from what a pass knows of an entry, and back.

use std::ffi::CStr;

use crate::fidelity::{Losses, Metadata, Xattrs};
use crate::hash::{Digest, DigestKind};
use crate::store::{ContentDigest, DirectoryId, Facts, Proof, Row};
use crate::sys::Stat;

use super::decide::{fingerprint, published};
use super::directory::Directory;

/// The facts of an entry that stands at the destination as `there`, without what is in `losses`.
#[must_use]
pub fn facts(wanted: &Metadata, there: &Stat, digest: Option<Digest>, proof: Proof, losses: &Losses) -> Facts {
    let stat = &wanted.stat;
    Facts {
        kind: stat.kind,
        child: None,
        source: fingerprint(stat),
        nlink: stat.nlink,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        published: Some(published(there)),
        digest: digest.map(content_digest),
        xattr_digest: xattr_digest(&wanted.xattrs),
        proof,
        lost: losses.any_lost(),
    }
}

/// The digest of an entry's extended attributes; `None` where it has none.
#[must_use]
pub fn xattr_digest(xattrs: &Xattrs) -> Option<[u8; 32]> {
    if xattrs.is_empty() {
        return None;
    }
    let pairs: Vec<(&[u8], &[u8])> = xattrs.iter().map(|x| (x.name.to_bytes(), &*x.value)).collect();
    crate::hash::xattr_digest(&pairs)
}

/// The row of an entry in a directory.
#[must_use]
pub fn row(node: &Directory, name: &CStr, facts: Facts, target: Option<Vec<u8>>) -> Row {
    row_in(node.payload.id, name, facts, target)
}

/// The row of an entry in the directory with this id.
#[must_use]
pub fn row_in(directory: DirectoryId, name: &CStr, facts: Facts, target: Option<Vec<u8>>) -> Row {
    Row { directory, name: name.to_bytes().to_vec(), facts, target }
}

/// The digest in a catalog's numbers.
#[must_use]
pub fn content_digest(digest: Digest) -> ContentDigest {
    let kind = match digest.kind {
        DigestKind::Blake3 => 0,
        DigestKind::Blake3Nonzero => 1,
    };
    ContentDigest { kind, bytes: digest.bytes }
}

/// The digest from a catalog's numbers; `None` for a kind that this version does not know.
#[must_use]
pub fn digest(stored: ContentDigest) -> Option<Digest> {
    let kind = match stored.kind {
        0 => DigestKind::Blake3,
        1 => DigestKind::Blake3Nonzero,
        _ => return None,
    };
    Some(Digest { kind, bytes: stored.bytes })
}
