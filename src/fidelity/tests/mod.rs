//! Metadata on real file systems: tmpfs, and ext4, xfs and btrfs in loop-mounted images. The tests
//! run as root.

mod classes;
mod image;
mod kinds;
mod unprivileged;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::*;
use crate::sys::{self, Kind, Time};

/// A directory of one side, with what its file system was found to answer.
struct Place {
    directory: File,
    traits: SideTraits,
}

impl Place {
    fn new(path: &Path) -> Self {
        let directory = File::open(path).expect("open the root");
        let traits = SideTraits::probe(directory.as_fd()).expect("probe");
        Self { directory, traits }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Makes an entry as copyd does: files and directories private, special files by `mknodat`.
    fn make(&self, name: &CStr, kind: Kind, rdev: u64) -> Handle<'_> {
        let private = Mode::from_raw_mode(0o600);
        match kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
                drop(rustix::fs::openat(self.fd(), name, flags, private).expect("create"));
            }
            Kind::Directory => rustix::fs::mkdirat(self.fd(), name, Mode::RWXU).expect("mkdir"),
            Kind::Symlink => rustix::fs::symlinkat(c"where to", self.fd(), name).expect("symlink"),
            special => {
                let of_type = FileType::from_raw_mode(special.bits());
                rustix::fs::mknodat(self.fd(), name, of_type, private, rdev).expect("mknod");
            }
        }
        self.open(name, kind)
    }

    fn open(&self, name: &CStr, kind: Kind) -> Handle<'_> {
        let by_descriptor = matches!(kind, Kind::File | Kind::Directory);
        let open = || rustix::fs::openat(self.fd(), name, OFlags::RDONLY, Mode::empty()).expect("open").into();
        Handle { own: by_descriptor.then(open), directory: self.fd(), name: name.to_owned() }
    }
}

/// An entry as copyd holds it.
struct Handle<'a> {
    own: Option<File>,
    directory: BorrowedFd<'a>,
    name: CString,
}

impl Handle<'_> {
    fn entry(&self) -> EntryRef<'_> {
        match &self.own {
            Some(file) => EntryRef::Fd(file.as_fd()),
            None => EntryRef::At(self.directory, &self.name),
        }
    }

    fn stat(&self) -> Stat {
        self.entry().stat().expect("stat")
    }

    fn set(&self, name: &CStr, value: &[u8]) {
        assert!(sys::set_xattr(self.entry(), name, value).expect("set attribute").is_done());
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        assert!(sys::list_xattrs(self.entry(), &mut names).expect("list").is_done());
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<_> = names.map(|name| String::from_utf8(name.to_vec()).expect("text")).collect();
        names.sort();
        names
    }

    fn flags(&self) -> u32 {
        let Some(own) = &self.own else { panic!("flags are asked of files and directories") };
        let sys::Answer::Done(flags) = sys::get_flags(own.as_fd()).expect("flags") else { panic!("no flags here") };
        flags
    }

    fn set_flags(&self, flags: u32) {
        let Some(own) = &self.own else { panic!("flags are set on files and directories") };
        assert!(sys::set_flags(own.as_fd(), self.flags() | flags).expect("set flags").is_done());
    }

    fn capture(&self, traits: &SideTraits) -> Metadata {
        let mut losses = Losses::default();
        let metadata = capture(self.entry(), &self.stat(), traits, &mut losses).expect("capture");
        assert!(losses.is_empty(), "{losses:?}");
        metadata
    }
}

const NO_MAP: IdMap = IdMap::IDENTITY;

/// Carries an entry over the whole way that a pass takes; what is left is what was lost.
fn carry<'a>(wanted: &Metadata, source: &Place, destination: &'a Place, name: &CStr) -> (Handle<'a>, Losses) {
    carry_mapped(wanted, source, destination, name, &NO_MAP)
}

fn carry_mapped<'a>(
    wanted: &Metadata,
    source: &Place,
    destination: &'a Place,
    name: &CStr,
    id_map: &IdMap,
) -> (Handle<'a>, Losses) {
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map };
    let mut losses = Losses::default();
    let made = destination.make(name, wanted.stat.kind, wanted.stat.rdev);
    prepare(made.entry(), wanted, &rules, &mut losses).expect("prepare");
    apply(made.entry(), wanted, &made.stat(), Times::Set, &rules, &mut losses).expect("apply");
    check_stat(wanted, &made.stat(), &rules, &mut losses);
    apply_after_publish(made.entry(), wanted, &rules, &mut losses).expect("apply after publishing");
    (made, losses)
}

fn classes(losses: &Losses) -> Vec<LossClass> {
    losses.iter().map(|(class, _)| class).collect()
}

/// Asserts that nothing of an entry was lost and that neither way of looking finds a difference.
fn assert_equal(wanted: &Metadata, got: &Handle<'_>, source: &Place, destination: &Place, losses: &Losses) {
    assert!(losses.is_empty(), "{:?} {losses:?}", got.name);
    let have = got.capture(&destination.traits);
    assert_eq!(have.xattrs, wanted.xattrs, "{:?}", got.name);
    let rules = Rules { source: &source.traits, destination: &destination.traits, id_map: &NO_MAP };
    assert!(difference(wanted, &have, &rules).none(), "{:?} {:?}", got.name, difference(wanted, &have, &rules));
    let mut found = Losses::default();
    check(got.entry(), wanted, &rules, &mut found).expect("check");
    assert!(found.is_empty(), "{:?} {found:?}", got.name);
    let (a, b) = (&wanted.stat, &have.stat);
    assert_eq!((a.kind, a.uid, a.gid, a.mtime, a.atime, a.rdev), (b.kind, b.uid, b.gid, b.mtime, b.atime, b.rdev));
    assert_eq!(a.mode, b.mode, "{:?}", got.name);
}

/// Capabilities in the second version of their attribute: `cap_net_raw+ep`.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn named_acl() -> Vec<u8> {
    acl::tests::named()
}

fn owner(entry: EntryRef<'_>, uid: u32, gid: u32) {
    sys::set_owner(entry, Some(uid), Some(gid)).expect("chown");
}

fn mode(entry: EntryRef<'_>, mode: u32) {
    sys::set_mode(entry, mode).expect("chmod");
}

fn times(entry: EntryRef<'_>, seconds: i64, nanoseconds: u32) {
    let mtime = Time { seconds, nanoseconds };
    sys::set_times(entry, Time { seconds: seconds.wrapping_add(7), nanoseconds }, mtime).expect("utimens");
}

/// Removes an entry, for a place where several tests' entries follow each other.
fn remove(place: &Place, name: &CStr) {
    rustix::fs::unlinkat(place.fd(), name, AtFlags::empty()).expect("unlink");
}
