//! One line for a whole share: two shares are equal where their digests are.
//!
//! `share_digest` stands for what the entries are, `metadata_digest` for whose and how old they are.
//! Each is BLAKE3 over a domain line and then, for every entry in ascending order of raw path bytes,
//! its fields, each preceded by its length (8 bytes, little-endian), so that no two lists of entries
//! share one spelling:
//!
//! ```text
//! share     path ‖ type ‖ digest kind ‖ digest, link target or device number
//! metadata  path ‖ mode ‖ uid ‖ gid ‖ mtime ‖ xattrs ‖ link group
//! ```
//!
//! Types and kinds are their words; what an entry has not is an empty field. A device number is its
//! major and minor (4 bytes each), mode, uid and gid are 4 bytes, mtime is 8 bytes of signed seconds
//! and 4 of nanoseconds, all little-endian.

use bstr::ByteSlice;

use super::Digest;
use super::digest::hex;
use crate::limits;
use crate::sys::{Kind, Time};

const SHARE_DOMAIN: &[u8] = b"copyd share v1\n";
const METADATA_DOMAIN: &[u8] = b"copyd metadata v1\n";
const XATTRS_DOMAIN: &[u8] = b"copyd xattrs v1\n";

/// What an entry is, with what makes it equal to another of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareContent<'a> {
    File(Digest),
    Directory,
    /// The target's bytes.
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    /// The device number in `makedev` form.
    CharDevice(u64),
    /// The device number in `makedev` form.
    BlockDevice(u64),
}

impl ShareContent<'_> {
    /// The type alone.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Directory => Kind::Directory,
            Self::Symlink(_) => Kind::Symlink,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::CharDevice(_) => Kind::CharDevice,
            Self::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

/// One entry as the share's digests see it.
#[derive(Clone, Copy, Debug)]
pub struct ShareEntry<'a> {
    /// Path from the root, components joined by `/`; empty for the root itself.
    pub path: &'a [u8],
    pub content: ShareContent<'a>,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Of [`xattr_digest`]; `None` where the entry has none.
    pub xattrs: Option<[u8; 32]>,
    /// The smallest path, by raw bytes, of those in the share that name this inode; empty where this
    /// is the only one.
    pub link_group: &'a [u8],
}

/// An entry came that does not sort after the one before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {:?} came after {:?}, out of order", .path.as_bstr(), .previous.as_bstr())]
pub struct Order {
    pub previous: Vec<u8>,
    pub path: Vec<u8>,
}

/// Both digests of a share, in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareDigests {
    /// `share_digest` of the summary.
    pub share: String,
    /// `metadata_digest` of the summary.
    pub metadata: String,
}

/// Takes the entries one by one and holds none but the last path.
#[derive(Debug)]
pub struct ShareDigest {
    share: Fields,
    metadata: Fields,
    previous: Option<Vec<u8>>,
}

impl Default for ShareDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl ShareDigest {
    #[must_use]
    pub fn new() -> Self {
        Self { share: Fields::new(SHARE_DOMAIN), metadata: Fields::new(METADATA_DOMAIN), previous: None }
    }

    /// Adds the entry that is next by raw path bytes. That is not the order of a walk: `a.b` stands
    /// before `a/b`, because `.` is the smaller byte.
    ///
    /// # Errors
    /// [`Order`] where the path is not greater than the last one; the entry is then not in.
    pub fn push(&mut self, entry: &ShareEntry<'_>) -> Result<(), Order> {
        match &mut self.previous {
            Some(previous) if previous.as_slice() >= entry.path => {
                return Err(Order { previous: previous.clone(), path: entry.path.to_vec() });
            }
            Some(previous) => {
                previous.clear();
                previous.extend_from_slice(entry.path);
            }
            None => self.previous = Some(entry.path.to_vec()),
        }
        let digest;
        let device;
        let (kind, value): (&str, &[u8]) = match entry.content {
            ShareContent::File(file) => {
                digest = file;
                (digest.kind.word(), &digest.bytes)
            }
            ShareContent::Symlink(target) => ("", target),
            ShareContent::CharDevice(number) | ShareContent::BlockDevice(number) => {
                device = device_bytes(number);
                ("", &device)
            }
            ShareContent::Directory | ShareContent::Fifo | ShareContent::Socket => ("", &[]),
        };
        for part in [entry.path, entry.content.kind().word().as_bytes(), kind.as_bytes(), value] {
            self.share.push(part);
        }
        let mut mtime = [0; 12];
        mtime[..8].copy_from_slice(&entry.mtime.seconds.to_le_bytes());
        mtime[8..].copy_from_slice(&entry.mtime.nanoseconds.to_le_bytes());
        let [mode, uid, gid] = [entry.mode, entry.uid, entry.gid].map(u32::to_le_bytes);
        let xattrs = entry.xattrs.as_ref().map_or(&[][..], |digest| digest);
        for part in [entry.path, &mode, &uid, &gid, &mtime, xattrs, entry.link_group] {
            self.metadata.push(part);
        }
        Ok(())
    }

    /// The digests of all that came.
    #[must_use]
    pub fn finish(self) -> ShareDigests {
        ShareDigests { share: hex(self.share.finish().as_bytes()), metadata: hex(self.metadata.finish().as_bytes()) }
    }
}

/// The digest of an entry's extended attributes, names with values in any order; `None` where there
/// are none, so that having none is spelled in one way only.
#[must_use]
pub fn xattr_digest<N: AsRef<[u8]>, V: AsRef<[u8]>>(xattrs: &[(N, V)]) -> Option<[u8; 32]> {
    if xattrs.is_empty() {
        return None;
    }
    let mut sorted: Vec<(&[u8], &[u8])> = xattrs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    sorted.sort_unstable();
    let mut fields = Fields::new(XATTRS_DOMAIN);
    for (name, value) in sorted {
        fields.push(name);
        fields.push(value);
    }
    Some(fields.finish().into())
}

/// A domain line and fields, each behind its length. Fields are short, and BLAKE3 is several times
/// faster on long input, so they are gathered first.
#[derive(Debug)]
struct Fields {
    hasher: blake3::Hasher,
    pending: Vec<u8>,
}

impl Fields {
    fn new(domain: &[u8]) -> Self {
        Self { hasher: blake3::Hasher::new(), pending: domain.to_vec() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= limits::DIGEST_FIELDS_BYTES {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.pending).finalize()
    }
}

/// Major and minor apart, because `makedev` packs them otherwise on other systems.
fn device_bytes(number: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&rustix::fs::major(number).to_le_bytes());
    bytes[4..].copy_from_slice(&rustix::fs::minor(number).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::DigestKind;

    fn file(path: &[u8]) -> ShareEntry<'_> {
        ShareEntry {
            path,
            content: ShareContent::File(Digest::of(b"content")),
            mode: 0o644,
            uid: 1000,
            gid: 100,
            mtime: Time { seconds: -5, nanoseconds: 7 },
            xattrs: None,
            link_group: b"",
        }
    }

    fn digests(entries: &[ShareEntry<'_>]) -> ShareDigests {
        let mut digest = ShareDigest::new();
        for entry in entries {
            digest.push(entry).unwrap();
        }
        digest.finish()
    }

    #[test]
    fn the_bytes_that_are_hashed_are_those_of_the_definition() {
        fn spell(line: &[u8], fields: &[&[u8]]) -> String {
            let mut bytes = line.to_vec();
            for field in fields {
                bytes.extend((field.len() as u64).to_le_bytes());
                bytes.extend_from_slice(field);
            }
            blake3::hash(&bytes).to_hex().to_string()
        }
        let mut device = file(b"\xff");
        device.content = ShareContent::BlockDevice(rustix::fs::makedev(8, 17));
        let content = blake3::hash(b"content");
        let metadata: [&[u8]; 6] = [
            &[0xa4, 1, 0, 0],
            &[0xe8, 3, 0, 0],
            &[100, 0, 0, 0],
            &[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0],
            b"",
            b"",
        ];
        let mut fields: Vec<&[u8]> = vec![b"a/b", b"file", b"b3", content.as_bytes()];
        fields.extend([b"\xff".as_slice(), b"block-device", b"", &[8, 0, 0, 0, 17, 0, 0, 0]]);
        let found = digests(&[file(b"a/b"), device]);
        assert_eq!(found.share, spell(b"copyd share v1\n", &fields));
        let mut fields: Vec<&[u8]> = vec![b"a/b"];
        fields.extend(metadata);
        fields.push(b"\xff");
        fields.extend(metadata);
        assert_eq!(found.metadata, spell(b"copyd metadata v1\n", &fields));
    }

    #[test]
    fn every_field_moves_its_own_digest_and_only_that() {
        let plain = digests(&[file(b"a")]);
        let contents = [
            ShareContent::File(Digest { kind: DigestKind::Blake3Nonzero, ..Digest::of(b"content") }),
            ShareContent::File(Digest::of(b"other")),
            ShareContent::Directory,
            ShareContent::Fifo,
            ShareContent::Socket,
            ShareContent::Symlink(b"x"),
            ShareContent::Symlink(b"y"),
            ShareContent::CharDevice(rustix::fs::makedev(1, 3)),
            ShareContent::CharDevice(rustix::fs::makedev(1, 5)),
            ShareContent::BlockDevice(rustix::fs::makedev(1, 3)),
        ];
        let mut seen = std::collections::HashSet::from([plain.share.clone()]);
        for content in contents {
            let found = digests(&[ShareEntry { content, ..file(b"a") }]);
            assert_eq!(found.metadata, plain.metadata);
            assert!(seen.insert(found.share), "{content:?}");
        }
        let base = file(b"a");
        let later = Time { seconds: -5, nanoseconds: 8 };
        let mut seen = std::collections::HashSet::from([plain.metadata.clone()]);
        for entry in [
            ShareEntry { mode: 0o4644, ..base },
            ShareEntry { uid: 0, ..base },
            ShareEntry { gid: 0, ..base },
            ShareEntry { mtime: later, ..base },
            ShareEntry { xattrs: xattr_digest(&[(b"user.a", b"1")]), ..base },
            ShareEntry { link_group: b"a", ..base },
        ] {
            let found = digests(&[entry]);
            assert_eq!(found.share, plain.share);
            assert!(seen.insert(found.metadata), "{entry:?}");
        }
    }

    #[test]
    fn entries_out_of_order_or_twice_are_refused() {
        let sorted = || {
            let mut digest = ShareDigest::new();
            for path in [b"".as_slice(), b"a", b"a.b", b"a/b", b"\xff"] {
                digest.push(&file(path)).unwrap();
            }
            digest
        };
        let mut digest = sorted();
        for path in [b"b".as_slice(), b"\xff", b""] {
            let wrong = Order { previous: b"\xff".to_vec(), path: path.to_vec() };
            assert_eq!(digest.push(&file(path)), Err(wrong));
        }
        assert_eq!(digest.finish(), sorted().finish());
        let mut digest = ShareDigest::new();
        digest.push(&file(b"")).unwrap();
        assert!(digest.push(&file(b"")).is_err(), "the root came twice");
    }

    #[test]
    fn xattrs_count_with_their_borders_and_not_with_their_order() {
        let digest = |pairs: &[(&str, &str)]| xattr_digest(pairs);
        assert_eq!(digest(&[]), None);
        assert_eq!(digest(&[("a", "1"), ("b", "2")]), digest(&[("b", "2"), ("a", "1")]));
        assert_ne!(digest(&[("a", "1b")]), digest(&[("a1", "b")]));
        assert_ne!(digest(&[("a", ""), ("b", "")]), digest(&[("a", "b")]));
    }
}
