//! Trees to migrate, the same on every run.
//!
//! [`every_kind`] holds one of each thing that a share can hold and a copier gets wrong. What not
//! every file system can keep is left to [`Kinds`], so that a tree between two file systems holds
//! what both keep, and a faithful copy exists.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags, makedev,
};

use super::Rng;
use super::mounts::{FsType, Volume};
use super::raw::{fsxattr, set_fsxattr};

/// What the file systems at hand can keep, beyond what all can.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Inode flags to set.
    pub flags: IFlags,
    /// Whether to set project ids.
    pub projects: bool,
    /// Longest target of a symbolic link, in bytes.
    pub symlink_target_max: usize,
}

impl Kinds {
    /// What every file system of [`FsType`] keeps; no inode flags.
    pub const fn common() -> Self {
        Self { flags: IFlags::empty(), projects: false, symlink_target_max: FsType::Xfs.symlink_target_max() }
    }

    /// What both keep.
    pub fn between(a: &dyn Volume, b: &dyn Volume) -> Self {
        Self {
            flags: a.kind().flags() & b.kind().flags(),
            projects: a.projects() && b.projects(),
            symlink_target_max: a.kind().symlink_target_max().min(b.kind().symlink_target_max()),
        }
    }
}

/// `FS_XFLAG_PROJINHERIT` of `linux/fs.h`.
const PROJECT_INHERIT: u32 = 0x200;
/// Owners that a signed 32-bit number can't hold; the last is the largest there is (-1 means none).
const OWNERS: [(u32, u32); 3] = [(1000, 1001), (2_147_483_653, 3_000_000_000), (4_294_967_294, 4_294_967_294)];
/// Seconds and nanoseconds: the last moment before 1970, the oldest day that ext4 and xfs hold, a
/// signed and an unsigned 32-bit number's end and what comes after, a far future, the epoch itself.
const TIMES: [(&str, i64, i64); 7] = [
    ("1969", -1, 999_999_999),
    ("1901", -2_147_472_000, 1),
    ("2038", 2_147_483_647, 999_999_999),
    ("2038-after", 2_147_483_648, 0),
    ("2106-after", 4_294_967_296, 123_456_789),
    ("2400", 13_569_465_600, 123_456_789),
    ("epoch", 0, 0),
];

/// Fills an existing empty directory with one of every kind of entry.
pub fn every_kind(root: &Path, kinds: &Kinds) {
    let mut maker =
        Maker { root: root.to_owned(), kinds: *kinds, rng: Rng::new(7), times: HashMap::new(), last: vec![] };
    let made = maker.all().and_then(|()| maker.finish());
    if let Err(e) = made {
        panic!("the tree below {} can't be made: {e}", root.display());
    }
}

struct Maker {
    root: PathBuf,
    kinds: Kinds,
    rng: Rng,
    /// Modification times that are part of the tree's purpose.
    times: HashMap<PathBuf, (i64, i64)>,
    /// Inode flags, set when all else is done.
    last: Vec<(PathBuf, IFlags)>,
}

impl Maker {
    fn all(&mut self) -> io::Result<()> {
        self.sizes()?;
        self.holes()?;
        self.names()?;
        self.symlinks()?;
        self.specials()?;
        self.hard_links()?;
        self.modes_and_owners()?;
        self.dated()?;
        self.xattrs()?;
        self.acls()?;
        self.empty_directories()?;
        self.flags_and_projects()?;
        fs::set_permissions(&self.root, Permissions::from_mode(0o751))?;
        chown(&self.root, Some(1234), Some(4321))?;
        set_xattr(&self.root, "user.root", b"the root has its own")
    }

    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    fn file(&mut self, path: &Path, len: usize) -> io::Result<()> {
        fs::write(path, self.rng.bytes(len))
    }

    fn sizes(&mut self) -> io::Result<()> {
        let at = self.directory("sizes")?;
        for len in [0, 1, 4095, 4096, 4097, 65_536, (1 << 20) + 1, 20 << 20, 40 << 20] {
            self.file(&at.join(format!("{len}")), len)?;
        }
        Ok(())
    }

    fn holes(&mut self) -> io::Result<()> {
        const MIB: u64 = 1 << 20;
        let at = self.directory("holes")?;
        let data = self.rng.bytes(65_536);
        let sparse = |name: &str, size: u64, pieces: &[u64]| {
            let file = File::create(at.join(name))?;
            file.set_len(size)?;
            pieces.iter().try_for_each(|&offset| file.write_all_at(&data, offset))
        };
        sparse("start", 8 * MIB + 65_536, &[8 * MIB])?;
        sparse("middle", 10 * MIB + 131_072, &[0, 10 * MIB + 65_536])?;
        sparse("end", 8 * MIB, &[0])?;
        sparse("all", 32 * MIB, &[])?;
        sparse("many", 64 * MIB, &(0..64).map(|i| i * MIB).collect::<Vec<_>>())?;
        sparse("over-a-chunk-border", 48 * MIB, &[16 * MIB - 32_768, 32 * MIB - 65_536])?;
        sparse("odd-end", 8 * MIB + 123, &[4 * MIB])?;
        fs::write(at.join("zeros-that-are-data"), vec![0; 3 << 20])?;
        let preallocated = File::create(at.join("preallocated"))?;
        preallocated.write_all_at(&data, 0)?;
        rustix::fs::fallocate(&preallocated, FallocateFlags::empty(), 0, 4 * MIB)?;
        Ok(())
    }

    fn names(&mut self) -> io::Result<()> {
        let at = self.directory("names")?;
        let singles = (1..=255u8).filter(|b| !b"/.".contains(b)).map(|b| vec![b]);
        let others = [
            &b"line\nbreak"[..],
            b"esc\x1b[31mred\x1b]0;title\x07",
            b"carriage\rreturn",
            b"-rf",
            b"--delete",
            b"caf\xc3\xa9",
            b"cafe\xcc\x81",
            b" leading",
            b"trailing ",
            b"...",
            b"..hidden",
            b"bad\xff\xfeutf8",
            b"cut\xe2\x82",
            b"$(reboot)`reboot`",
            b"back\\slash",
            b"'quote\"s",
            b"a:b|c<d>e?f*g",
            b"HASH  two-spaces",
            &[b'n'; 255],
            &[0xff; 255],
        ];
        for name in singles.chain(others.iter().map(|n| n.to_vec())) {
            fs::write(at.join(OsStr::from_bytes(&name)), &name)?;
        }
        let inside = at.join(OsStr::from_bytes(b"directory\n\xff"));
        fs::create_dir(&inside)?;
        self.file(&inside.join("plain"), 10)
    }

    fn symlinks(&mut self) -> io::Result<()> {
        let at = self.directory("symlinks")?;
        let target: String = "t/".chars().cycle().take(self.kinds.symlink_target_max).collect();
        symlink("nowhere", at.join("dangling"))?;
        symlink("../sizes", at.join("to-directory"))?;
        symlink("loop", at.join("loop"))?;
        symlink("..", at.join("up"))?;
        symlink("/etc/passwd", at.join("absolute"))?;
        symlink(target, at.join("long"))?;
        symlink(OsStr::from_bytes(b"bad\xff\n\x1b"), at.join("bytes"))?;
        symlink("nowhere", at.join("owned"))?;
        lchown(at.join("owned"), Some(OWNERS[1].0), Some(OWNERS[1].1))?;
        set_xattr(&at.join("owned"), "trusted.copyd-test", b"on a symlink")?;
        symlink("nowhere", at.join("dated"))?;
        self.times.insert(at.join("dated"), (-1, 999_999_999));
        Ok(())
    }

    /// Device numbers beyond eight bits each, but within the 14 and 18 that xfs takes.
    fn specials(&self) -> io::Result<()> {
        let at = self.directory("specials")?;
        make_node(&at.join("fifo"), FileType::Fifo, 0o640, 0)?;
        make_node(&at.join("socket"), FileType::Socket, 0o755, 0)?;
        make_node(&at.join("null"), FileType::CharacterDevice, 0o666, makedev(1, 3))?;
        make_node(&at.join("char-large-numbers"), FileType::CharacterDevice, 0o600, makedev(511, 200_000))?;
        make_node(&at.join("block"), FileType::BlockDevice, 0o660, makedev(7, 200))?;
        make_node(&at.join("with-more"), FileType::Fifo, 0o600, 0)?;
        lchown(at.join("with-more"), Some(OWNERS[2].0), Some(OWNERS[2].1))?;
        set_xattr(&at.join("with-more"), "trusted.copyd-test", b"on a fifo")?;
        set_xattr(&at.join("with-more"), "system.posix_acl_access", &acl(77))?;
        set_xattr(&at.join("null"), "trusted.copyd-test", b"on a device")
    }

    /// Groups whose names lie in different directories, sorted both before and after each other.
    fn hard_links(&mut self) -> io::Result<()> {
        let (near, far) = (self.directory("links-near")?, self.directory("links-far")?);
        fs::create_dir(far.join("deeper"))?;
        self.file(&near.join("file"), 5000)?;
        symlink("nowhere", near.join("symlink"))?;
        make_node(&near.join("fifo"), FileType::Fifo, 0o600, 0)?;
        make_node(&near.join("socket"), FileType::Socket, 0o600, 0)?;
        make_node(&near.join("device"), FileType::CharacterDevice, 0o600, makedev(240, 77))?;
        for name in ["file", "symlink", "fifo", "socket", "device"] {
            fs::hard_link(near.join(name), near.join(format!("{name}-again")))?;
            fs::hard_link(near.join(name), far.join(name))?;
            fs::hard_link(near.join(name), far.join("deeper").join(format!("a-{name}")))?;
        }
        self.file(&near.join("empty"), 0)?;
        fs::hard_link(near.join("empty"), far.join("empty"))
    }

    fn modes_and_owners(&mut self) -> io::Result<()> {
        let at = self.directory("modes")?;
        for mode in [0o4755, 0o2755, 0o6711, 0o7777, 0o1644, 0o000, 0o444, 0o111, 0o020] {
            let path = at.join(format!("file-{mode:04o}"));
            self.file(&path, 100)?;
            chown(&path, Some(OWNERS[0].0), Some(OWNERS[0].1))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        for mode in [0o1777, 0o2775, 0o000, 0o555, 0o3700] {
            let path = at.join(format!("directory-{mode:04o}"));
            fs::create_dir(&path)?;
            chown(&path, Some(OWNERS[0].0), Some(OWNERS[0].1))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            self.file(&path.join("inside"), 10)?;
            fs::create_dir(path.join("directory-inside"))?;
        }
        for (user, group) in OWNERS {
            let path = at.join(format!("owned-by-{user}"));
            self.file(&path, 10)?;
            chown(&path, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn dated(&mut self) -> io::Result<()> {
        let at = self.directory("times")?;
        for (name, seconds, nanoseconds) in TIMES {
            let paths = ["file", "directory", "symlink", "fifo"].map(|kind| at.join(format!("{kind}-{name}")));
            self.file(&paths[0], 3)?;
            fs::create_dir(&paths[1])?;
            self.file(&paths[1].join("child"), 3)?;
            symlink("nowhere", &paths[2])?;
            make_node(&paths[3], FileType::Fifo, 0o600, 0)?;
            self.times.extend(paths.into_iter().map(|path| (path, (seconds, nanoseconds))));
        }
        Ok(())
    }

    fn xattrs(&mut self) -> io::Result<()> {
        let at = self.directory("xattrs")?;
        let (file, directory) = (at.join("file"), at.join("directory"));
        self.file(&file, 100)?;
        fs::create_dir(&directory)?;
        self.file(&directory.join("inside"), 1)?;
        for path in [&file, &directory] {
            set_xattr(path, "user.empty", b"")?;
            set_xattr(path, "user.binary", b"\0\xff\n\0")?;
            set_xattr(path, OsStr::from_bytes(b"user.bad\xff\xfe"), b"name")?;
            set_xattr(path, "user.longer", &[b'v'; 700])?;
            set_xattr(path, "trusted.copyd-test", b"root only")?;
            set_xattr(path, "security.copyd-test", b"no module owns it")?;
        }
        // `struct vfs_ns_cap_data` revision 2, effective: CAP_NET_RAW (13) permitted.
        let program = at.join("with-capability");
        self.file(&program, 100)?;
        chown(&program, Some(OWNERS[0].0), Some(OWNERS[0].1))?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        let words = [0x0200_0001, 1 << 13, 0, 0, 0u32];
        set_xattr(&program, "security.capability", &words.map(u32::to_le_bytes).concat())?;
        let read_only = at.join("read-only");
        self.file(&read_only, 10)?;
        set_xattr(&read_only, "user.copyd-test", b"set before the mode")?;
        fs::set_permissions(&read_only, Permissions::from_mode(0o400))
    }

    fn acls(&mut self) -> io::Result<()> {
        let at = self.directory("acls")?;
        self.file(&at.join("file"), 10)?;
        set_xattr(&at.join("file"), "system.posix_acl_access", &acl(OWNERS[1].0))?;
        let defaults = at.join("with-default");
        fs::create_dir(&defaults)?;
        set_xattr(&defaults, "system.posix_acl_access", &acl(5))?;
        set_xattr(&defaults, "system.posix_acl_default", &acl(6))?;
        self.file(&defaults.join("inherits"), 10)?;
        fs::create_dir(defaults.join("inherits-too"))?;
        self.file(&defaults.join("inherits-too/inside"), 10)?;
        // These did not inherit: a copy that makes them in place must not let them.
        let (file, directory) = (at.join("plain"), at.join("plain-directory"));
        self.file(&file, 10)?;
        fs::create_dir(&directory)?;
        fs::rename(file, defaults.join("plain"))?;
        fs::rename(directory, defaults.join("plain-directory"))
    }

    fn empty_directories(&self) -> io::Result<()> {
        fs::create_dir_all(self.root.join("empty/one/two/three"))?;
        fs::create_dir(self.root.join("empty/another"))
    }

    fn flags_and_projects(&mut self) -> io::Result<()> {
        let at = self.directory("attributes")?;
        let on_directories = IFlags::DIRSYNC;
        for (name, flag) in self.kinds.flags.iter_names() {
            let directory = at.join(format!("directory-{name}"));
            fs::create_dir(&directory)?;
            self.last.push((directory.clone(), flag));
            let file = at.join(format!("file-{name}"));
            if on_directories.contains(flag) {
                self.file(&directory.join("inside"), 10)?;
                continue;
            }
            File::create(&file)?;
            if flag == IFlags::NOCOW {
                set_flag(&file, flag)?; // taken by empty files only
            } else {
                self.file(&directory.join("inside"), 10)?;
                self.last.push((file.clone(), flag));
            }
            self.file(&file, 5000)?;
        }
        if self.kinds.projects {
            let directory = at.join("project-directory");
            fs::create_dir(&directory)?;
            set_project(&directory, 4_000_000_000, PROJECT_INHERIT)?;
            self.file(&directory.join("inherits"), 10)?;
            self.file(&at.join("project-file"), 10)?;
            set_project(&at.join("project-file"), 77, 0)?;
        }
        Ok(())
    }

    /// Gives every entry its modification time, children before their directory, and then the
    /// inode flags, which would stand in the way of all else.
    fn finish(&mut self) -> io::Result<()> {
        let mut directories = vec![self.root.clone()];
        let mut at = 0;
        while at < directories.len() {
            let mut children: Vec<_> = fs::read_dir(&directories[at])?.collect::<io::Result<_>>()?;
            children.sort_by_key(fs::DirEntry::file_name);
            for child in children {
                if child.file_type()?.is_dir() {
                    directories.push(child.path());
                } else {
                    self.set_mtime(&child.path())?;
                }
            }
            at += 1;
        }
        for directory in directories.iter().rev() {
            self.set_mtime(directory)?;
        }
        self.last.iter().try_for_each(|(path, flag)| set_flag(path, *flag))
    }

    fn set_mtime(&mut self, path: &Path) -> io::Result<()> {
        let (seconds, fraction) = (self.rng.below(200_000_000), self.rng.below(1_000_000_000));
        let drawn = (1_500_000_000 + seconds.cast_signed(), fraction.cast_signed());
        let time = self.times.get(path).copied().unwrap_or(drawn);
        let time = Timespec { tv_sec: time.0, tv_nsec: time.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A minimal ACL with one named user: the bytes of `struct posix_acl_xattr_header` and its entries.
pub fn acl(user: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries = [(0x01u16, 7u16, NOBODY), (0x02, 5, user), (0x04, 4, NOBODY), (0x10, 5, NOBODY), (0x20, 0, NOBODY)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub fn set_xattr(path: &Path, name: impl AsRef<OsStr>, value: &[u8]) -> io::Result<()> {
    rustix::fs::lsetxattr(path, name.as_ref(), value, XattrFlags::empty())
        .map_err(|e| io::Error::new(e.kind(), format!("{} on {}: {e}", name.as_ref().display(), path.display())))
}

/// A FIFO, socket or device. The mode is set after, so that the umask has no say.
pub fn make_node(path: &Path, kind: FileType, mode: u32, device: u64) -> io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Adds an inode flag.
pub fn set_flag(path: &Path, flag: IFlags) -> io::Result<()> {
    let file = File::open(path)?;
    let flags = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, flags | flag)
        .map_err(|e| io::Error::new(e.kind(), format!("{flag:?} on {}: {e}", path.display())))
}

/// Sets the project id, and adds extended flags.
pub fn set_project(path: &Path, project: u32, xflags: u32) -> io::Result<()> {
    let file = File::open(path)?;
    let mut attributes = fsxattr(&file)?;
    attributes.project = project;
    attributes.xflags |= xflags;
    set_fsxattr(&file, attributes)
}

/// A chain of directories, `levels` deep, each name `name_len` bytes long, with a file at the
/// bottom and one at every hundredth level. Far beyond `PATH_MAX`: made from held descriptors.
pub fn deep(root: &Path, levels: usize, name_len: usize) -> io::Result<()> {
    let mut rng = Rng::new(levels as u64);
    let mut here = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for level in 1..=levels {
        let letter = char::from(b'a' + u8::try_from(level % 26).expect("below 26"));
        let name: String = std::iter::repeat_n(letter, name_len).collect();
        rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755))?;
        here = rustix::fs::openat(&here, &name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if level % 100 == 0 || level == levels {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&here, "leaf", flags, Mode::from_raw_mode(0o644))?;
            File::from(file).write_all(&rng.bytes(100))?;
        }
    }
    Ok(())
}

/// `count` files, 500 a directory, of 0 to 64 KiB, half of them under 4 KiB.
pub fn small_files(root: &Path, count: usize, seed: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed);
    let mut block = vec![0; 65_536];
    for i in 0..count {
        let directory = root.join(format!("d{:05}", i / 500));
        if i % 500 == 0 {
            fs::create_dir(&directory)?;
        }
        let bits = 8 + rng.below(9); // sizes below 2^8 .. 2^16, each as likely
        let len = usize::try_from(rng.below(1 << bits)).expect("below 65,536");
        rng.fill(&mut block[..len]);
        fs::write(directory.join(format!("f{i:07}")), &block[..len])?;
    }
    Ok(())
}

/// One directory with `count` empty files.
pub fn wide(root: &Path, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|i| File::create(root.join(format!("{i:08}"))).map(drop))
}
