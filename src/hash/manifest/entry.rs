//! One entry as `FILE.jsonl` holds it.
//!
//! On the line every byte string has two forms: `path` where it is UTF-8, `path_b64` (standard
//! base64 with padding) where it is not; so have `target` and `link_group`. Times are seconds and
//! nanoseconds apart and device numbers are `[major, minor]`, because a JSON reader that keeps
//! numbers as doubles would round them packed.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::line::{Reason, check_path};
use crate::hash::digest::{from_hex, hex};
use crate::hash::{Digest, DigestKind};
use crate::sys::{Kind, Time};

/// What a manifest says of one entry. A field that its type does not have is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Path from the root, components joined by `/`; empty for the root itself.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Of a file, where it is known.
    pub digest: Option<Digest>,
    /// Of a symlink.
    pub target: Option<Vec<u8>>,
    /// Of a device, in `makedev` form.
    pub rdev: Option<u64>,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Of [`xattr_digest`](crate::hash::xattr_digest); `None` where there are none.
    pub xattrs: Option<[u8; 32]>,
    /// The smallest path that names the same inode; `None` where this is the only one.
    pub link_group: Option<Vec<u8>>,
}

/// The line's own fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest_kind: Option<DigestKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdev: Option<[u32; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: WireTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xattrs: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_group: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_group_b64: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTime {
    seconds: i64,
    nanoseconds: u32,
}

/// The two forms of a byte string, of which one is taken.
fn forms(bytes: Option<&Vec<u8>>) -> (Option<Cow<'_, str>>, Option<String>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| STANDARD.encode(bytes))) {
        None => (None, None),
        Some(Ok(text)) => (Some(Cow::Borrowed(text)), None),
        Some(Err(base64)) => (None, Some(base64)),
    }
}

fn bytes_of(text: Option<Cow<'_, str>>, base64: Option<String>) -> Result<Option<Vec<u8>>, Reason> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_owned().into_bytes())),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map(Some).map_err(|_| Reason::Entry("a field ending in _b64 is no base64"))
        }
        (Some(_), Some(_)) => Err(Reason::Entry("a field stands there both as text and as _b64")),
    }
}

impl<'a> From<&'a ManifestEntry> for Wire<'a> {
    fn from(entry: &'a ManifestEntry) -> Self {
        let (path, path_b64) = forms(Some(&entry.path));
        let (target, target_b64) = forms(entry.target.as_ref());
        let (link_group, link_group_b64) = forms(entry.link_group.as_ref());
        Wire {
            path,
            path_b64,
            kind: Cow::Borrowed(entry.kind.word()),
            digest_kind: entry.digest.map(|digest| digest.kind),
            digest: entry.digest.map(|digest| digest.hex()),
            target,
            target_b64,
            rdev: entry.rdev.map(|number| [rustix::fs::major(number), rustix::fs::minor(number)]),
            size: entry.size,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: WireTime { seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds },
            xattrs: entry.xattrs.as_ref().map(hex),
            link_group,
            link_group_b64,
        }
    }
}

impl TryFrom<Wire<'_>> for ManifestEntry {
    type Error = Reason;

    fn try_from(wire: Wire<'_>) -> Result<Self, Reason> {
        let digest = match (wire.digest_kind, wire.digest) {
            (None, None) => None,
            (Some(kind), Some(text)) => Some(Digest::from_hex(kind, text.as_bytes())?),
            _ => return Err(Reason::Entry("digest and digest_kind stand there together or not at all")),
        };
        if wire.mtime.nanoseconds >= 1_000_000_000 {
            return Err(Reason::Entry("the nanoseconds make a second or more"));
        }
        let entry = Self {
            path: bytes_of(wire.path, wire.path_b64)?.ok_or(Reason::Entry("it has no path"))?,
            kind: kind_of(&wire.kind).ok_or(Reason::Entry("its type is none that copyd knows"))?,
            digest,
            target: bytes_of(wire.target, wire.target_b64)?,
            rdev: wire.rdev.map(|[major, minor]| rustix::fs::makedev(major, minor)),
            size: wire.size,
            mode: wire.mode,
            uid: wire.uid,
            gid: wire.gid,
            mtime: Time { seconds: wire.mtime.seconds, nanoseconds: wire.mtime.nanoseconds },
            xattrs: wire.xattrs.map(|text| from_hex(text.as_bytes())).transpose()?,
            link_group: bytes_of(wire.link_group, wire.link_group_b64)?,
        };
        entry.check()?;
        Ok(entry)
    }
}

impl ManifestEntry {
    /// Whether the paths stay inside the root, and the type has just the fields that it needs.
    fn check(&self) -> Result<(), Reason> {
        check_path(&self.path)?;
        self.link_group.as_deref().map_or(Ok(()), check_path)?;
        let is_file = self.kind == Kind::File;
        if self.size.is_some() != is_file || (self.digest.is_some() && !is_file) {
            return Err(Reason::Entry("a file has a size, and nothing else has a size or a digest"));
        }
        if self.target.is_some() != (self.kind == Kind::Symlink) {
            return Err(Reason::Entry("a symlink has a target, and nothing else has"));
        }
        if self.target.as_ref().is_some_and(|target| target.contains(&0)) {
            return Err(Reason::Entry("the target holds a NUL byte"));
        }
        if self.rdev.is_some() != self.kind.is_device() {
            return Err(Reason::Entry("a device has an rdev, and nothing else has"));
        }
        Ok(())
    }

    /// The entry of one line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Reason> {
        serde_json::from_slice::<Wire<'_>>(line)?.try_into()
    }
}

impl Serialize for ManifestEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ManifestEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

fn kind_of(word: &str) -> Option<Kind> {
    let kinds =
        [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];
    kinds.into_iter().find(|kind| kind.word() == word)
}
