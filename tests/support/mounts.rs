//! File systems of one's own: memory, and ext4, xfs, btrfs in an image.
//!
//! Each test's mounts live in a mount namespace of the thread that made them. So tests never see
//! each other's, and a test that is killed leaves neither a mount nor a loop device behind: the
//! kernel takes them down with the last process. `Drop` does the same earlier and in order.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::IFlags;

use super::tool;

/// Flags that a file or directory carries and a person can set (chattr(1)), as compared and copied.
pub const USER_FLAGS: IFlags = IFlags::APPEND
    .union(IFlags::IMMUTABLE)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::NOCOW)
    .union(IFlags::COMPRESSED);

/// A kind of file system that a test can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsType {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
}

impl FsType {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The inode flags of [`USER_FLAGS`] that it keeps (`*_FL_USER_MODIFIABLE` and
    /// `xfs_flags2diflags` in the kernel's sources; tmpfs since 6.6). Compression is left out of
    /// ext4, which stores the bit and ignores it, and COW is turned off only on empty files.
    pub fn flags(self) -> IFlags {
        let all = IFlags::APPEND | IFlags::IMMUTABLE | IFlags::NODUMP | IFlags::NOATIME;
        match self {
            Self::Tmpfs => all,
            Self::Xfs => all | IFlags::SYNC,
            Self::Ext4 => all | IFlags::SYNC | IFlags::DIRSYNC,
            Self::Btrfs => all | IFlags::SYNC | IFlags::DIRSYNC | IFlags::NOCOW | IFlags::COMPRESSED,
        }
    }

    /// The longest target of a symbolic link, in bytes (`XFS_SYMLINK_MAXLEN`; elsewhere a page or
    /// block less one).
    pub const fn symlink_target_max(self) -> usize {
        match self {
            Self::Xfs => 1023,
            _ => 4095,
        }
    }
}

/// A mounted file system that a test owns whole.
pub trait Volume {
    /// Where it is mounted, absolute. Holds nothing but what its mkfs made (`lost+found`).
    fn path(&self) -> &Path;

    fn kind(&self) -> FsType;

    /// Whether every inode has a project id there.
    fn projects(&self) -> bool;

    /// An empty directory below the mount, with the given name.
    fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).expect("a fresh name on a fresh file system");
        path
    }
}

/// Mounts a file system of the given kind and at most `size_mib`.
pub fn volume(kind: FsType, size_mib: u64) -> Box<dyn Volume> {
    match kind {
        FsType::Tmpfs => Box::new(Tmpfs::new(size_mib)),
        _ => Box::new(LoopFs::new(kind, size_mib)),
    }
}

/// Gives this thread a mount table of its own, once.
pub fn own_mounts() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.get() {
        return;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests need root: mounts, owners, devices and trusted xattrs can't be had without; run them with sudo"
    );
    super::raw::unshare_mounts().expect("a mount namespace of one's own needs CAP_SYS_ADMIN");
    tool("mount", "mount", &["--make-rprivate", "/"]);
    DONE.set(true);
}

/// A directory with something mounted on it; taken down on drop.
#[derive(Debug)]
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn new(kind: FsType, what: &Path, options: &str) -> Self {
        Self::tried(kind, what, options).unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// `mount -t kind -o options what point`, and a look that it really is another file system:
    /// a test that wrote below an empty mount point would prove nothing about the file system. The
    /// error is what mount said.
    fn tried(kind: FsType, what: &Path, options: &str) -> Result<Self, String> {
        let point = tempfile::Builder::new()
            .prefix("copyd-test-")
            .tempdir_in("/tmp")
            .expect("/tmp takes a directory for the mount point")
            .keep();
        let parent = std::fs::metadata("/tmp").expect("/tmp is there").dev();
        let mut command = Command::new("mount");
        let output = command.args(["-t", kind.word(), "-o", options]).arg(what).arg(&point).output();
        let output = output.unwrap_or_else(|e| panic!("mount can't be run: {e}; install the package mount"));
        if !output.status.success() {
            let _ = std::fs::remove_dir(&point);
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} of {} can't be mounted: {}", kind.word(), what.display(), said.trim()));
        }
        let mounted = Self { point };
        let (device, at) = (std::fs::metadata(&mounted.point).expect("it is there").dev(), mounted.point.display());
        assert_ne!(device, parent, "{} is not mounted at {at}, though mount said so", kind.word());
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmount = |how: &[&str]| {
            let status = Command::new("umount").args(how).arg(&self.point).output();
            status.is_ok_and(|output| output.status.success())
        };
        // Something may still hold it for a moment; a lazy unmount lets go as soon as it does.
        if !unmount(&[]) && !unmount(&["--lazy"]) && !std::thread::panicking() {
            eprintln!("{} can't be unmounted", self.point.display());
        }
        let _ = std::fs::remove_dir(&self.point);
    }
}

/// A memory file system.
#[derive(Debug)]
pub struct Tmpfs {
    mounted: Mounted,
}

impl Tmpfs {
    pub fn new(size_mib: u64) -> Self {
        own_mounts();
        let options = format!("size={size_mib}m,mode=0755");
        Self { mounted: Mounted::new(FsType::Tmpfs, Path::new("copyd-test"), &options) }
    }
}

impl Volume for Tmpfs {
    fn path(&self) -> &Path {
        &self.mounted.point
    }

    fn kind(&self) -> FsType {
        FsType::Tmpfs
    }

    fn projects(&self) -> bool {
        false
    }
}

/// A file system in an image. The order of the fields is the order of taking down.
#[derive(Debug)]
pub struct LoopFs {
    mounted: Option<Mounted>,
    options: &'static str,
    image: ImagePlace,
    kind: FsType,
    projects: bool,
}

/// Where the image lies: in memory when there is room for twice its size, else on the disk.
#[derive(Debug)]
enum ImagePlace {
    /// Where a test wants it: on a file system that fails.
    Given(PathBuf),
    Memory(Tmpfs),
    Disk(tempfile::TempDir),
}

impl ImagePlace {
    fn new(size_mib: u64) -> Self {
        if memory_available_mib() > size_mib * 2 {
            return Self::Memory(Tmpfs::new(size_mib + 16));
        }
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory takes the image");
        Self::Disk(place)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(directory) => directory,
            Self::Memory(tmpfs) => tmpfs.path(),
            Self::Disk(directory) => directory.path(),
        }
    }
}

fn memory_available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo can be read");
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("/proc/meminfo names MemAvailable since Linux 3.14") / 1024
}

/// A copy of an image, mounted. Its file goes with it.
#[derive(Debug)]
pub struct ImageCopy {
    mounted: Option<Mounted>,
    file: PathBuf,
}

impl ImageCopy {
    pub fn mount(kind: FsType, file: PathBuf) -> Self {
        let mounted = Mounted::new(kind, &file, "loop");
        Self { mounted: Some(mounted), file }
    }

    pub fn path(&self) -> &Path {
        &self.mounted.as_ref().expect("it is mounted until it is dropped").point
    }
}

impl Drop for ImageCopy {
    fn drop(&mut self) {
        self.mounted = None;
        let _ = std::fs::remove_file(&self.file);
    }
}

impl LoopFs {
    /// xfs needs at least 300 MiB (mkfs.xfs 5.19), btrfs 109 MiB.
    pub fn new(kind: FsType, size_mib: u64) -> Self {
        own_mounts();
        Self::placed(kind, size_mib, ImagePlace::new(size_mib))
    }

    /// With its image in an existing directory, which may have less room than the image's size.
    pub fn in_directory(kind: FsType, size_mib: u64, directory: &Path) -> Self {
        own_mounts();
        Self::placed(kind, size_mib, ImagePlace::Given(directory.to_owned()))
    }

    fn placed(kind: FsType, size_mib: u64, image: ImagePlace) -> Self {
        let file = image.path().join("image");
        std::fs::File::create(&file).and_then(|f| f.set_len(size_mib << 20)).expect("there is room for a sparse image");
        assert!(
            Path::new("/dev/loop-control").exists(),
            "/dev/loop-control is missing: the kernel needs the loop driver (modprobe loop), a container --privileged"
        );
        let name = file.to_string_lossy().into_owned();
        let (mut options, mut projects) = ("loop", false);
        match kind {
            FsType::Ext4 if ext4_projects() => {
                tool("e2fsprogs", "mkfs.ext4", &["-q", "-F", "-O", "project,quota", &name]);
                (options, projects) = ("loop,prjquota", true);
            }
            FsType::Ext4 => drop(tool("e2fsprogs", "mkfs.ext4", &["-q", "-F", &name])),
            FsType::Xfs => {
                tool("xfsprogs", "mkfs.xfs", &["-q", "-m", "reflink=1", &name]);
                projects = true;
            }
            FsType::Btrfs => drop(tool("btrfs-progs", "mkfs.btrfs", &["-q", &name])),
            FsType::Tmpfs => panic!("tmpfs has no image: use Tmpfs"),
        }
        Self { mounted: Some(Mounted::new(kind, &file, options)), options, image, kind, projects }
    }

    /// Takes it down and mounts it again, elsewhere and on another loop device.
    pub fn remount_elsewhere(&mut self) {
        let device = |at: &Path| std::fs::metadata(at).expect("it is mounted").dev();
        let before = device(self.path());
        // Each takes the first device that is free: at least one gets that of this file system.
        let mut others = Vec::new();
        while self.mounted.is_none() || device(self.path()) == before {
            assert!(others.len() < 8, "always the same device");
            self.mounted = None;
            others.push(Self::new(FsType::Ext4, 8));
            self.mounted = Some(Mounted::new(self.kind, &self.image(), self.options));
        }
    }

    /// Cuts the power: from now on nothing reaches the image, and what was not synced never will
    /// (`XFS_IOC_GOINGDOWN` without a flush of the log, which ext4 answers too).
    pub fn cut_power(&self) {
        let point = self.path().to_string_lossy().into_owned();
        tool("xfsprogs", "xfs_io", &["-x", "-c", "shutdown", &point]);
    }

    /// Takes it down and mounts it again, with its log replayed: what was only cached is gone.
    pub fn remount(&mut self) {
        self.mounted = None;
        self.mounted = Some(Mounted::new(self.kind, &self.image(), self.options));
    }

    /// Takes it down until [`Self::remount`].
    pub fn unmount(&mut self) {
        self.mounted = None;
    }

    /// Mounts a copy of its image while it is not mounted itself: xfs and btrfs have a file system's
    /// UUID only once. The error is what mount said.
    pub fn try_copy(&self, file: PathBuf) -> Result<ImageCopy, String> {
        assert!(self.mounted.is_none(), "unmount the original first");
        // The file goes, too, where it can't be mounted.
        let mut copy = ImageCopy { mounted: None, file };
        copy.mounted = Some(Mounted::tried(self.kind, &copy.file, self.options)?);
        Ok(copy)
    }

    /// The file below the block device.
    pub fn image(&self) -> PathBuf {
        self.image.path().join("image")
    }
}

/// Whether this kernel mounts an ext4 that has project ids: it refuses one unless it was built with
/// `CONFIG_QFMT_V2`, whose format 4 `/proc/sys/fs/quota` does not name. So the kernel's own
/// configuration is asked, and where it is not published the tests do without.
fn ext4_projects() -> bool {
    let config = Command::new("zcat").arg("/proc/config.gz").output();
    config.is_ok_and(|output| {
        let lines: Vec<_> = output.stdout.split(|&b| b == b'\n').collect();
        [&b"CONFIG_QUOTA=y"[..], b"CONFIG_QFMT_V2=y"].iter().all(|wanted| lines.contains(wanted))
    })
}

impl Volume for LoopFs {
    fn path(&self) -> &Path {
        &self.mounted.as_ref().expect("it is mounted but while it moves").point
    }

    fn kind(&self) -> FsType {
        self.kind
    }

    fn projects(&self) -> bool {
        self.projects
    }
}
