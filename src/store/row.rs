//! One row of a catalog: what a job knows of one entry, in memory and in the database.
//!
//! Both directions go through [`Cells`], the row's numbers in the order of [`COLUMNS`], so that
//! what is bound, what is read and what [`check`] covers can't drift apart.

use crate::sys::{Kind, Time};

/// Identifier of a directory inside one catalog. Never used twice.
pub type DirectoryId = u64;

/// The directory that the row of the root itself stands in, with an empty name.
pub const ROOT_PARENT: DirectoryId = 0;
/// The directory id of the root.
pub const ROOT_DIRECTORY: DirectoryId = 1;

/// What the source said of the entry when it was read: equal now means unchanged since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Device as of now; a catalog keeps it relative to the root's, so it survives a remount.
    pub dev: u64,
    pub ino: u64,
    /// Bytes, logical.
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
}

/// What the destination said of the entry after copyd published it: equal now means that nobody
/// else touched it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub ino: u64,
    pub mtime: Time,
    pub ctime: Time,
}

/// A content digest with the number of its kind, as the hash layer numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentDigest {
    pub kind: u8,
    pub bytes: [u8; 32],
}

/// How well the entry at the destination is known to be the source's (promise P2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Skipped as equal, or copied without read-back.
    #[default]
    Assumed,
    /// Read from an unchanged source, durable, read back equal.
    Proved,
}

/// The inode that several names of the source share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkGroup {
    pub dev: u64,
    pub ino: u64,
}

/// Everything of a row that has a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: Kind,
    /// The id under which a directory's own entries stand; `None` for everything else.
    pub child: Option<DirectoryId>,
    pub source: Fingerprint,
    /// Names of the inode at the source.
    pub nlink: u32,
    /// Permission, set-id and sticky bits at the source.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a device node, else 0.
    pub rdev: u64,
    /// `None` until the entry stands at the destination under its final name.
    pub published: Option<Published>,
    pub digest: Option<ContentDigest>,
    /// Over extended attributes and ACLs; `None` where the entry has none.
    pub xattr_digest: Option<[u8; 32]>,
    pub proof: Proof,
    /// Some of its metadata could not be kept, so it is looked at again however little it moves:
    /// what was refused once may be granted now, and what is not is named by every run.
    pub lost: bool,
}

impl Facts {
    /// A row of this kind that nothing else is known of yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            child: None,
            source: Fingerprint::default(),
            nlink: 1,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            published: None,
            digest: None,
            xattr_digest: None,
            proof: Proof::Assumed,
            lost: false,
        }
    }

    /// The group of hard links that the entry belongs to. Directories have several links by nature
    /// and belong to none.
    #[must_use]
    pub fn link_group(&self) -> Option<LinkGroup> {
        (self.nlink > 1 && self.kind != Kind::Directory)
            .then_some(LinkGroup { dev: self.source.dev, ino: self.source.ino })
    }
}

/// One row, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The directory that holds the entry.
    pub directory: DirectoryId,
    /// One component, bytes; empty for the root only.
    pub name: Vec<u8>,
    pub facts: Facts,
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
}

impl Row {
    /// The row as a reader lends it.
    #[must_use]
    pub fn borrow(&self) -> RowRef<'_> {
        RowRef { directory: self.directory, name: &self.name, facts: &self.facts, target: self.target.as_deref() }
    }
}

/// One row, lent by a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    pub directory: DirectoryId,
    pub name: &'a [u8],
    pub facts: &'a Facts,
    pub target: Option<&'a [u8]>,
}

impl RowRef<'_> {
    /// A copy that outlives the reader's buffer.
    #[must_use]
    pub fn to_owned(&self) -> Row {
        Row {
            directory: self.directory,
            name: self.name.to_vec(),
            facts: *self.facts,
            target: self.target.map(<[u8]>::to_vec),
        }
    }
}

/// Numbers of a row that have a column of their own, without directory and check sum.
pub(super) const CELLS: usize = 13;

/// The columns in the order of statements: directory, name, the [`Cells`], the byte strings, the
/// check sum. Few, because a statement's time goes by their number more than by their bytes.
pub(super) const COLUMNS: &str = "dir, name, child, src_ino, nlink, size, src_mtime, src_ctime, mode, uid, gid, \
     dst_ino, dst_mtime, dst_ctime, proof, digest, target, xattr_digest, extra, sum";

/// How many columns [`COLUMNS`] names.
pub(super) const COLUMN_COUNT: usize = 2 + CELLS + STRINGS + 1;

/// Byte strings of a row beside its name.
pub(super) const STRINGS: usize = 4;

/// The numbers of one row as the database holds them. 64-bit numbers without sign keep their bits,
/// so values from 2^63 show as negative ones there.
pub(super) type Cells = [Option<i64>; CELLS];

const SECOND_NS: i64 = 1_000_000_000;

/// Bits of the cell that says how an entry stands.
const PROVED: i64 = 1;
const LOST: i64 = 2;

/// What seldom differs from its usual value, kept in one column that is null nearly always: pairs of
/// a number from this list and 8 bytes, least first.
#[derive(Debug)]
pub(super) struct Extra {
    bytes: [u8; 9 * Self::TAGS.len()],
    len: usize,
}

impl Extra {
    /// Device at the source minus that of its root, which a remount gives another number.
    const SRC_DEV: u8 = 1;
    /// Device number of a device node.
    const RDEV: u8 = 2;
    /// Seconds of a time outside the years 1677 to 2262, whose column then keeps its nanoseconds.
    const SRC_MTIME: u8 = 3;
    const SRC_CTIME: u8 = 4;
    const DST_MTIME: u8 = 5;
    const DST_CTIME: u8 = 6;
    const TAGS: [u8; 6] =
        [Self::SRC_DEV, Self::RDEV, Self::SRC_MTIME, Self::SRC_CTIME, Self::DST_MTIME, Self::DST_CTIME];

    pub fn bytes(&self) -> Option<&[u8]> {
        (self.len > 0).then(|| &self.bytes[..self.len])
    }

    fn put(&mut self, tag: u8, value: u64) {
        self.bytes[self.len] = tag;
        self.bytes[self.len + 1..self.len + 9].copy_from_slice(&value.to_le_bytes());
        self.len += 9;
    }

    fn get(bytes: Option<&[u8]>, tag: u8) -> Option<u64> {
        let (pairs, _) = bytes?.as_chunks::<9>();
        let pair = pairs.iter().find(|pair| pair[0] == tag)?;
        pair.last_chunk().map(|value| u64::from_le_bytes(*value))
    }

    /// A time as nanoseconds since 1970, or, where they don't fit, split.
    fn time(&mut self, tag: u8, time: Time) -> i64 {
        let nanoseconds = i64::from(time.nanoseconds);
        let whole = time.seconds.checked_mul(SECOND_NS).and_then(|whole| whole.checked_add(nanoseconds));
        whole.filter(|_| nanoseconds < SECOND_NS).unwrap_or_else(|| {
            self.put(tag, time.seconds.cast_unsigned());
            nanoseconds
        })
    }

    fn read_time(bytes: Option<&[u8]>, tag: u8, cell: i64) -> Option<Time> {
        let (seconds, nanoseconds) = match Self::get(bytes, tag) {
            Some(seconds) => (seconds.cast_signed(), cell),
            None => (cell.div_euclid(SECOND_NS), cell.rem_euclid(SECOND_NS)),
        };
        Some(Time { seconds, nanoseconds: u32::try_from(nanoseconds).ok()? })
    }
}

/// Facts to cells. `source_dev` is the device of the source's root.
pub(super) fn encode(facts: &Facts, source_dev: u64) -> (Cells, Extra) {
    let mut extra = Extra { bytes: [0; 9 * Extra::TAGS.len()], len: 0 };
    let bits = |n: u64| Some(n.cast_signed());
    let small = |n: u32| Some(i64::from(n));
    let s = &facts.source;
    let dev = s.dev.wrapping_sub(source_dev);
    if dev != 0 {
        extra.put(Extra::SRC_DEV, dev);
    }
    if facts.rdev != 0 {
        extra.put(Extra::RDEV, facts.rdev);
    }
    let published = facts.published.as_ref();
    let cells = [
        facts.child.map(u64::cast_signed),
        bits(s.ino),
        small(facts.nlink),
        bits(s.size),
        Some(extra.time(Extra::SRC_MTIME, s.mtime)),
        Some(extra.time(Extra::SRC_CTIME, s.ctime)),
        small(facts.kind.bits() | (facts.mode & 0o7777)),
        small(facts.uid),
        small(facts.gid),
        published.map(|p| p.ino.cast_signed()),
        published.map(|p| extra.time(Extra::DST_MTIME, p.mtime)),
        published.map(|p| extra.time(Extra::DST_CTIME, p.ctime)),
        Some(if facts.proof == Proof::Proved { PROVED } else { 0 } | if facts.lost { LOST } else { 0 }),
    ];
    (cells, extra)
}

/// Cells and byte strings to facts; `None` where something is not as [`encode`] gives it.
pub(super) fn decode(cells: &Cells, strings: &Strings<'_>, source_dev: u64) -> Option<Facts> {
    let bits = |i: usize| cells[i].map(i64::cast_unsigned);
    let small = |i: usize| u32::try_from(cells[i]?).ok();
    let time = |i: usize, tag: u8| Extra::read_time(strings.extra, tag, cells[i]?);
    let mode = small(6)?;
    let published = match bits(9) {
        None => None,
        Some(ino) => Some(Published { ino, mtime: time(10, Extra::DST_MTIME)?, ctime: time(11, Extra::DST_CTIME)? }),
    };
    let digest = match strings.digest {
        None => None,
        Some([kind, bytes @ ..]) => Some(ContentDigest { kind: *kind, bytes: bytes.try_into().ok()? }),
        Some([]) => return None,
    };
    Some(Facts {
        kind: Kind::from_mode(mode)?,
        child: bits(0),
        source: Fingerprint {
            dev: source_dev.wrapping_add(Extra::get(strings.extra, Extra::SRC_DEV).unwrap_or_default()),
            ino: bits(1)?,
            size: bits(3)?,
            mtime: time(4, Extra::SRC_MTIME)?,
            ctime: time(5, Extra::SRC_CTIME)?,
        },
        nlink: small(2)?,
        mode: mode & 0o7777,
        uid: small(7)?,
        gid: small(8)?,
        rdev: Extra::get(strings.extra, Extra::RDEV).unwrap_or_default(),
        published,
        digest,
        xattr_digest: strings.xattr_digest.map(<[u8; 32]>::try_from).transpose().ok()?,
        proof: match cells[12]? & !LOST {
            0 => Proof::Assumed,
            PROVED => Proof::Proved,
            _ => return None,
        },
        lost: cells[12]? & LOST != 0,
    })
}

/// The byte strings of a row as the database holds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strings<'a> {
    pub name: &'a [u8],
    /// Its kind in one byte, then 32 bytes.
    pub digest: Option<&'a [u8]>,
    pub target: Option<&'a [u8]>,
    pub xattr_digest: Option<&'a [u8]>,
    pub extra: Option<&'a [u8]>,
}

impl<'a> Strings<'a> {
    /// All but the name, in the order of [`COLUMNS`].
    pub fn beside_name(&self) -> [Option<&'a [u8]>; STRINGS] {
        [self.digest, self.target, self.xattr_digest, self.extra]
    }
}

/// The row's own check sum, kept in its last column. `SQLite`'s structures notice a page that is out
/// of order, not a flipped bit inside a digest or a time; this does, at a few nanoseconds a row.
///
/// Each step is a bijection of the sum, and of the word it takes in: damage within one word always
/// shows, any other but for one chance in 2^64. It guards against damage, not against malice.
pub(super) fn check(directory: DirectoryId, cells: &Cells, strings: &Strings<'_>) -> i64 {
    let mut sum = Sum(directory);
    let mut absent = 0_u64;
    for (i, cell) in cells.iter().enumerate() {
        match cell {
            Some(number) => sum.word(number.cast_unsigned()),
            None => absent |= 1 << i,
        }
    }
    sum.word(absent);
    sum.bytes(Some(strings.name));
    strings.beside_name().into_iter().for_each(|string| sum.bytes(string));
    sum.0.cast_signed()
}

struct Sum(u64);

impl Sum {
    fn word(&mut self, word: u64) {
        // An odd multiplier (2^64 divided by the golden ratio) permutes 64-bit words.
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return self.word(u64::MAX) };
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }
}
