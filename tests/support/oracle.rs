//! The judge: do two trees hold the same share?
//!
//! It walks both trees in step, sorted by name, with one descriptor on each side ([`Cursor`]), so
//! depth and path length don't matter. Memory: the names of the directories on the way down, and
//! the identities of inodes with several names. What it compares is told by [`Class`].

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, IFlags, OFlags, SeekFrom, Statx};
use rustix::io::Errno;

use super::cursor::{Cursor, Identity, file_type, identity, open_at, stat_at, stat_fd};
use super::escaped;
use super::mounts::USER_FLAGS;

/// What kind of difference was found. "A" is the original, "B" the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// In A only. What lies below it is not looked at.
    Missing,
    /// In B only.
    Extra,
    /// File, directory, symlink and so on. Nothing else of such an entry is compared.
    Type,
    /// Bytes of a file; not compared where the sizes differ.
    Content,
    Size,
    /// Permission, set-id and sticky bits.
    Mode,
    /// User or group.
    Owner,
    /// Modification time, to the nanosecond.
    Mtime,
    /// Device number of a device.
    Device,
    /// Target of a symbolic link.
    Target,
    /// Extended attributes of every namespace but ACLs, `security.selinux` (the destination's own
    /// policy) and `trusted.SGI_ACL_*` (xfs shows root its ACLs a second time).
    Xattr,
    /// POSIX ACLs, access and default.
    Acl,
    /// The inode flags that a person sets, where both sides have flags.
    Flags,
    /// Project ids, where both sides have them.
    Project,
    /// Two names of one inode in A, of two in B.
    LinkBroken,
    /// Two names of two inodes in A, of one in B.
    LinkInvented,
    /// A has holes, and B takes much more room.
    Holes,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Difference {
    pub class: Class,
    /// From the root; empty for the root itself.
    pub path: Vec<u8>,
    /// Both sides' values, escaped.
    pub detail: String,
}

/// What the judge overlooks. Nothing, by default.
#[derive(Clone, Debug, Default)]
pub struct Overlook {
    /// Names directly below either root.
    pub root_names: Vec<Vec<u8>>,
    pub classes: Vec<Class>,
}

/// The comparison ends after so many findings: more help nobody, and memory stays bounded.
const FINDINGS_MAX: usize = 10_000;
/// Bytes compared at a time.
const BLOCK: usize = 1 << 20;
/// The kernel's limits of an xattr list and value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 65_536;
/// A file counts as sparse when it lacks at least this many bytes.
const SPARSE_BYTES: u64 = 1 << 20;
/// Room that a copy of a sparse file may take beyond 1.3 times the original's.
const SPARSE_SLACK_BYTES: u64 = 256 << 10;

/// Compares and panics with the first 40 differences.
pub fn assert_same(a: &Path, b: &Path) {
    assert_same_but(a, b, &Overlook::default());
}

/// As [`assert_same`], overlooking what `overlook` names.
pub fn assert_same_but(a: &Path, b: &Path, overlook: &Overlook) {
    let found = match compare(a, b, overlook) {
        Ok(found) => found,
        Err(e) => panic!("{} and {} can't be compared: {e}", a.display(), b.display()),
    };
    assert!(
        found.is_empty(),
        "{} differences between {} and {}:\n{}",
        found.len(),
        a.display(),
        b.display(),
        listed(&found, 40)
    );
}

/// The first `most` findings, a line each.
pub fn listed(found: &[Difference], most: usize) -> String {
    found.iter().take(most).fold(String::new(), |mut text, d| {
        writeln!(text, "  {}: {:?}: {}", escaped(&d.path), d.class, d.detail).expect("a String takes all");
        text
    })
}

/// All differences between two trees, in the order of the walk. An error means that a side could
/// not be read, which says nothing about equality.
pub fn compare(a: &Path, b: &Path, overlook: &Overlook) -> io::Result<Vec<Difference>> {
    let mut judge = Judge {
        a: Cursor::open(a)?,
        b: Cursor::open(b)?,
        overlook,
        found: Vec::new(),
        counterpart: HashMap::new(),
        original: HashMap::new(),
        blocks: (vec![0; BLOCK], vec![0; BLOCK]),
    };
    judge.directory_itself(c"")?;
    let mut pending = vec![judge.pairs()?];
    while let Some(names) = pending.last_mut() {
        if judge.found.len() >= FINDINGS_MAX {
            break;
        }
        if let Some(pair) = names.pop() {
            if judge.entry(&pair).map_err(|e| judge.located(&pair.name, &e))? {
                judge.a.enter(&pair.name)?;
                judge.b.enter(&pair.name)?;
                judge.directory_itself(c"")?;
                pending.push(judge.pairs()?);
            }
            continue;
        }
        pending.pop();
        if !pending.is_empty() {
            judge.a.leave()?;
            judge.b.leave()?;
        }
    }
    Ok(judge.found)
}

/// A name, and on which sides it is.
struct Pair {
    name: CString,
    in_a: bool,
    in_b: bool,
}

struct Judge<'o> {
    a: Cursor,
    b: Cursor,
    overlook: &'o Overlook,
    found: Vec<Difference>,
    /// Of inodes with several names: A's inode → B's inode at its first common name, and back.
    counterpart: HashMap<Identity, Identity>,
    original: HashMap<Identity, Identity>,
    blocks: (Vec<u8>, Vec<u8>),
}

impl Judge<'_> {
    fn located(&self, name: &CStr, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", escaped(&self.a.path_of(name))))
    }

    fn say(&mut self, class: Class, name: &CStr, detail: impl Into<String>) {
        if !self.overlook.classes.contains(&class) {
            self.found.push(Difference { class, path: self.a.path_of(name), detail: detail.into() });
        }
    }

    fn say_unequal<T: PartialEq + std::fmt::Debug>(&mut self, class: Class, name: &CStr, a: &T, b: &T) {
        if a != b {
            self.say(class, name, format!("{a:?} became {b:?}"));
        }
    }

    /// The names of both directories, last first, so that `pop` gives them in order.
    fn pairs(&self) -> io::Result<Vec<Pair>> {
        let (mut a, mut b) = (self.a.names()?.into_iter().peekable(), self.b.names()?.into_iter().peekable());
        let mut pairs = Vec::new();
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(x), Some(y)) => x.cmp(y),
            };
            let (from_a, from_b) = (a.next_if(|_| order.is_le()), b.next_if(|_| order.is_ge()));
            let (in_a, in_b) = (from_a.is_some(), from_b.is_some());
            let Some(name) = from_a.or(from_b) else { break };
            let overlooked =
                self.a.depth() == 0 && self.overlook.root_names.iter().any(|n| n.as_slice() == name.as_bytes());
            if !overlooked {
                pairs.push(Pair { name, in_a, in_b });
            }
        }
        pairs.reverse();
        Ok(pairs)
    }

    /// Compares one name; `true` when both are directories, which the caller then enters.
    fn entry(&mut self, pair: &Pair) -> io::Result<bool> {
        let name = pair.name.as_c_str();
        if !pair.in_b {
            self.say(Class::Missing, name, "only in the original");
            return Ok(false);
        }
        if !pair.in_a {
            self.say(Class::Extra, name, "only in the copy");
            return Ok(false);
        }
        let (a, b) = (stat_at(self.a.fd(), name)?, stat_at(self.b.fd(), name)?);
        let kind = file_type(&a);
        if kind != file_type(&b) {
            self.say(Class::Type, name, format!("{kind:?} became {:?}", file_type(&b)));
            return Ok(false);
        }
        if kind == FileType::Directory {
            return Ok(true);
        }
        self.stats(name, &a, &b);
        self.links(name, &a, &b);
        match kind {
            FileType::RegularFile => self.file(name, &a, &b)?,
            FileType::Symlink => {
                let target = |side: &Cursor| rustix::fs::readlinkat(side.fd(), name, Vec::new());
                let (x, y) = (target(&self.a)?, target(&self.b)?);
                self.say_unequal(Class::Target, name, &x, &y);
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let number = |s: &Statx| (s.stx_rdev_major, s.stx_rdev_minor);
                self.say_unequal(Class::Device, name, &number(&a), &number(&b));
            }
            _ => {}
        }
        if kind != FileType::RegularFile {
            let (x, y) = (xattrs_of_name(self.a.fd(), name)?, xattrs_of_name(self.b.fd(), name)?);
            self.xattrs(name, &x, &y);
        }
        Ok(false)
    }

    /// Compares the two directories that the cursors stand in.
    fn directory_itself(&mut self, name: &CStr) -> io::Result<()> {
        let (a, b) = (stat_fd(self.a.fd())?, stat_fd(self.b.fd())?);
        self.stats(name, &a, &b);
        let (a, b) = (Attributes::of(self.a.fd())?, Attributes::of(self.b.fd())?);
        self.attributes(name, &a, &b);
        Ok(())
    }

    fn stats(&mut self, name: &CStr, a: &Statx, b: &Statx) {
        let (x, y) = (a.stx_mode & 0o7777, b.stx_mode & 0o7777);
        if x != y {
            self.say(Class::Mode, name, format!("{x:04o} became {y:04o}"));
        }
        self.say_unequal(Class::Owner, name, &(a.stx_uid, a.stx_gid), &(b.stx_uid, b.stx_gid));
        let mtime = |s: &Statx| (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec);
        self.say_unequal(Class::Mtime, name, &mtime(a), &mtime(b));
    }

    /// Groups of hard links are the same when the inodes of A and of B map onto each other one to
    /// one, over the names that both have.
    fn links(&mut self, name: &CStr, a: &Statx, b: &Statx) {
        if a.stx_nlink < 2 && b.stx_nlink < 2 {
            return;
        }
        let (x, y) = (identity(a), identity(b));
        if *self.counterpart.entry(x).or_insert(y) != y {
            self.say(Class::LinkBroken, name, "one inode with an earlier name in the original, another in the copy");
        }
        if *self.original.entry(y).or_insert(x) != x {
            self.say(Class::LinkInvented, name, "one inode with an earlier name in the copy, another in the original");
        }
    }

    fn file(&mut self, name: &CStr, a: &Statx, b: &Statx) -> io::Result<()> {
        let (fa, fb) = (open_at(self.a.fd(), name, OFlags::empty())?, open_at(self.b.fd(), name, OFlags::empty())?);
        let (x, y) = (Attributes::of(fa.as_fd())?, Attributes::of(fb.as_fd())?);
        self.attributes(name, &x, &y);
        self.say_unequal(Class::Size, name, &a.stx_size, &b.stx_size);
        if a.stx_size == b.stx_size
            && let Some(offset) = first_difference(&fa, &fb, a.stx_size, &mut self.blocks)?
        {
            self.say(Class::Content, name, format!("differs from byte {offset} on"));
        }
        let (room_a, room_b) = (a.stx_blocks * 512, b.stx_blocks * 512);
        if a.stx_size > room_a + SPARSE_BYTES && room_b > room_a + room_a * 3 / 10 + SPARSE_SLACK_BYTES {
            self.say(Class::Holes, name, format!("{room_a} bytes allocated became {room_b}"));
        }
        Ok(())
    }

    fn attributes(&mut self, name: &CStr, a: &Attributes, b: &Attributes) {
        self.xattrs(name, &a.xattrs, &b.xattrs);
        if let (Some(x), Some(y)) = (a.flags, b.flags) {
            self.say_unequal(Class::Flags, name, &x, &y);
        }
        if let (Some(x), Some(y)) = (a.project, b.project) {
            self.say_unequal(Class::Project, name, &x, &y);
        }
    }

    fn xattrs(&mut self, name: &CStr, a: &Xattrs, b: &Xattrs) {
        let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let (x, y) = (a.get(key), b.get(key));
            if x == y {
                continue;
            }
            let class = if key.starts_with(b"system.posix_acl_") { Class::Acl } else { Class::Xattr };
            let shown = |v: Option<&Vec<u8>>| v.map_or("nothing".into(), |v| escaped(v));
            self.say(class, name, format!("{}: {} became {}", escaped(key), shown(x), shown(y)));
        }
    }
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an open file or directory says beyond `statx`; `None` where the file system has no answer.
struct Attributes {
    xattrs: Xattrs,
    flags: Option<IFlags>,
    project: Option<u32>,
}

impl Attributes {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let xattrs = collect_xattrs(
            |list| rustix::fs::flistxattr(fd, list),
            |key, value| rustix::fs::fgetxattr(fd, key, value),
        )?;
        let flags = match rustix::fs::ioctl_getflags(fd) {
            Ok(flags) => Some(flags & USER_FLAGS),
            Err(e) if unsupported(e) => None,
            Err(e) => return Err(e.into()),
        };
        let project = match super::raw::fsxattr(fd) {
            Ok(attributes) => Some(attributes.project),
            Err(e) if Errno::from_io_error(&e).is_some_and(unsupported) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { xattrs, flags, project })
    }
}

fn unsupported(error: Errno) -> bool {
    [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL].contains(&error)
}

/// Xattrs of what can't or must not be opened: the name is reached through its directory's entry
/// in procfs, and its own last component is not followed.
fn xattrs_of_name(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Xattrs> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    collect_xattrs(|list| rustix::fs::llistxattr(&path, list), |key, value| rustix::fs::lgetxattr(&path, key, value))
}

fn collect_xattrs(
    list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let mut names = vec![0; XATTR_MAX];
    let len = match list(&mut names) {
        Ok(len) => len,
        Err(e) if unsupported(e) => return Ok(Xattrs::new()),
        Err(e) => return Err(e.into()),
    };
    let mut xattrs = Xattrs::new();
    let mut value = Vec::new();
    for name in names[..len].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        if name == b"security.selinux" || name.starts_with(b"trusted.SGI_ACL_") {
            continue;
        }
        value.resize(XATTR_MAX, 0);
        let len = get(name, &mut value)?;
        xattrs.insert(name.to_vec(), value[..len].to_vec());
    }
    Ok(xattrs)
}

/// Offset of the first byte that differs. Where both files have a hole nothing is read.
fn first_difference(a: &OwnedFd, b: &OwnedFd, size: u64, blocks: &mut (Vec<u8>, Vec<u8>)) -> io::Result<Option<u64>> {
    let mut offset = 0;
    loop {
        offset = next_data(a, offset, size)?.min(next_data(b, offset, size)?);
        if offset >= size {
            return Ok(None);
        }
        let len = usize::try_from(size - offset).unwrap_or(BLOCK).min(BLOCK);
        let (x, y) = (&mut blocks.0[..len], &mut blocks.1[..len]);
        read_exactly(a, x, offset)?;
        read_exactly(b, y, offset)?;
        if x != y {
            let at = x.iter().zip(y.iter()).position(|(p, q)| p != q).unwrap_or(0);
            return Ok(Some(offset + at as u64));
        }
        offset += len as u64;
    }
}

fn next_data(file: &OwnedFd, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(found),
        Err(Errno::NXIO) => Ok(size),
        Err(Errno::INVAL) => Ok(offset), // no SEEK_DATA there: all of it is read
        Err(e) => Err(e.into()),
    }
}

fn read_exactly(file: &OwnedFd, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let got = rustix::io::pread(file, &mut *bytes, offset)?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "shorter than its size"));
        }
        bytes = &mut bytes[got..];
        offset += got as u64;
    }
    Ok(())
}
