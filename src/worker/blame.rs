//! Who does not answer: found without asking the file systems in question.
//!
//! Whoever looks at a hanging file system to see whether it hangs, hangs. So only procfs is read, of this
//! process: which call each thread waits in and on which descriptor (`/proc/self/task/N/syscall`, proc(5)), what
//! the rings have in flight, and on which mount such a descriptor lies (`mnt_id` in `/proc/self/fdinfo`). None of
//! these leads into the file system behind a descriptor. A `close` has taken its descriptor out of the table
//! before it waits; there the counters of FUSE's connections tell, where they can be read.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Side;
use crate::pass::Opened;
use crate::sys;

/// What makes a descriptor belong to a root.
#[derive(Debug)]
struct Root {
    side: Side,
    mount: u64,
    /// As procfs shows it; from the directory entries in memory, not from the file system.
    path: PathBuf,
    /// Where FUSE counts the requests without an answer, see the kernel's filesystems/fuse.rst.
    waiting: PathBuf,
    /// Kept open, so that its number means nothing else.
    _fd: Arc<OwnedFd>,
}

/// The roots of a run, as a watcher knows them.
#[derive(Debug, Default)]
pub struct Roots(Vec<Root>);

impl Roots {
    /// Notes what the two roots are, while they answer.
    #[must_use]
    pub fn of(opened: &Opened<'_>) -> Self {
        let sides = [(Side::Source, opened.source), (Side::Destination, Some(opened.destination))];
        let root = |(side, fd): (Side, Option<&Arc<OwnedFd>>)| {
            let fd = fd?;
            let device = sys::stat_fd(fd).ok()?.dev;
            let waiting = format!("/sys/fs/fuse/connections/{}/waiting", rustix::fs::minor(device));
            Some(Root {
                side,
                mount: mount_of(fd.as_raw_fd())?,
                path: path_of(fd.as_raw_fd())?,
                waiting: waiting.into(),
                _fd: Arc::clone(fd),
            })
        };
        Self(sides.into_iter().filter_map(root).collect())
    }

    /// The side that a descriptor lies on. Where both roots are on one mount, their paths tell.
    fn side(&self, fd: RawFd) -> Option<Side> {
        let mount = mount_of(fd)?;
        let mut on_mount = self.0.iter().filter(|root| root.mount == mount);
        match (on_mount.next(), on_mount.next()) {
            (Some(only), None) => Some(only.side),
            (Some(_), Some(_)) => {
                let path = path_of(fd)?;
                self.0.iter().find(|root| path.starts_with(&root.path)).map(|root| root.side)
            }
            _ => None,
        }
    }

    /// As [`Self::side`], while no root is known yet: whatever has a path is of the one that is being opened.
    fn before(&self, fd: RawFd, opening: Option<Side>) -> Option<Side> {
        let has_path = || path_of(fd).is_some_and(|path| path.is_absolute());
        opening.filter(|_| self.0.is_empty() && has_path())
    }

    /// The one side that owes answers, if FUSE says so of one only.
    fn owing(&self) -> Option<Side> {
        let owes = |root: &&Root| {
            let count = fs::read_to_string(&root.waiting).ok().and_then(|text| text.trim().parse::<u64>().ok());
            count.is_some_and(|count| count > 0)
        };
        let mut owing = self.0.iter().filter(owes);
        owing.next().filter(|_| owing.next().is_none()).map(|root| root.side)
    }

    /// Who does not answer, and to which call. `opening` is the root that is being opened, if one is.
    #[must_use]
    pub fn who(&self, opening: Option<Side>) -> (Option<Side>, Option<String>) {
        let mut waits: Vec<(Option<Side>, &'static str)> = Vec::new();
        for wait in waiting_threads() {
            match wait {
                Wait::On(fd, word) => {
                    // A descriptor of the state, a pipe or a ring is nobody's fault here.
                    if let Some(side) = self.side(fd).or_else(|| self.before(fd, opening)) {
                        waits.push((Some(side), word));
                    }
                }
                Wait::Path(word) => waits.push((opening, word)),
                // What is written is flushed where its file is closed; what was read has nothing to flush.
                Wait::Close => waits.push((self.owing().or(Some(Side::Destination)), "close")),
            }
        }
        waits.extend(sys::in_flight().into_iter().filter_map(|(fd, word)| Some((Some(self.side(fd)?), word))));
        // What most wait for is named; where several are as many, the first.
        let count = |wait: &(Option<Side>, &str)| waits.iter().filter(|other| *other == wait).count();
        match waits.iter().rev().max_by_key(|wait| (wait.0.is_some(), count(wait))) {
            Some((side, word)) => (side.or_else(|| self.owing()), Some((*word).to_owned())),
            None => (opening.or_else(|| self.owing()), None),
        }
    }
}

/// What a thread waits in.
enum Wait {
    On(RawFd, &'static str),
    /// A call by path from the working directory or the root.
    Path(&'static str),
    Close,
}

fn waiting_threads() -> Vec<Wait> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // A thread that has gone meanwhile waits for nothing.
    tasks.filter_map(|task| wait_of(&fs::read_to_string(task.path().join("syscall")).ok()?)).collect()
}

/// Reads a line of procfs: number and arguments in hex, `running`, or -1 for what is no call.
fn wait_of(line: &str) -> Option<Wait> {
    let mut words = line.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let arguments: Vec<u64> =
        words.filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()).collect();
    let (_, word, place) = CALLS.iter().find(|(call, ..)| *call == number)?;
    if number == libc::SYS_close {
        return Some(Wait::Close);
    }
    let Some(place) = *place else { return Some(Wait::Path(word)) };
    // The lower half of the register: descriptors are ints.
    let fd = u32::try_from(*arguments.get(place)? & 0xffff_ffff).ok()?.cast_signed();
    Some(if fd < 0 { Wait::Path(word) } else { Wait::On(fd, word) })
}

/// The calls that copyd makes on trees, in its own words, with the argument that is the descriptor.
const CALLS: &[(i64, &str, Option<usize>)] = &[
    (libc::SYS_read, "read", Some(0)),
    (libc::SYS_write, "write", Some(0)),
    (libc::SYS_pread64, "read", Some(0)),
    (libc::SYS_pwrite64, "write", Some(0)),
    (libc::SYS_close, "close", None),
    (libc::SYS_fsync, "fsync", Some(0)),
    (libc::SYS_fdatasync, "fsync", Some(0)),
    (libc::SYS_syncfs, "syncfs", Some(0)),
    (libc::SYS_getdents64, "list", Some(0)),
    (libc::SYS_statx, "stat", Some(0)),
    (libc::SYS_newfstatat, "stat", Some(0)),
    (libc::SYS_fstat, "stat", Some(0)),
    (libc::SYS_fstatfs, "statfs", Some(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", None),
    (libc::SYS_openat, "open", Some(0)),
    (libc::SYS_openat2, "open", Some(0)),
    (libc::SYS_mkdirat, "make directory", Some(0)),
    (libc::SYS_mknodat, "make special file", Some(0)),
    (libc::SYS_symlinkat, "make symlink", Some(1)),
    (libc::SYS_linkat, "link", Some(0)),
    (libc::SYS_unlinkat, "remove", Some(0)),
    (libc::SYS_renameat, "rename", Some(0)),
    (libc::SYS_renameat2, "rename", Some(0)),
    (libc::SYS_readlinkat, "read symlink", Some(0)),
    (libc::SYS_fchmod, "set mode", Some(0)),
    (libc::SYS_fchmodat, "set mode", Some(0)),
    (libc::SYS_fchown, "set owner", Some(0)),
    (libc::SYS_fchownat, "set owner", Some(0)),
    (libc::SYS_utimensat, "set times", Some(0)),
    (libc::SYS_ftruncate, "set size", Some(0)),
    (libc::SYS_fallocate, "allocate", Some(0)),
    (libc::SYS_fadvise64, "drop from the cache", Some(0)),
    (libc::SYS_lseek, "seek", Some(0)),
    (libc::SYS_ioctl, "ioctl", Some(0)),
    (libc::SYS_copy_file_range, "copy within the server", Some(2)),
    (libc::SYS_fgetxattr, "read attribute", Some(0)),
    (libc::SYS_flistxattr, "list attributes", Some(0)),
    (libc::SYS_fsetxattr, "set attribute", Some(0)),
    (libc::SYS_fremovexattr, "remove attribute", Some(0)),
    (libc::SYS_lgetxattr, "read attribute", None),
    (libc::SYS_llistxattr, "list attributes", None),
    (libc::SYS_lsetxattr, "set attribute", None),
    (libc::SYS_lremovexattr, "remove attribute", None),
    (libc::SYS_getxattr, "read attribute", None),
    (libc::SYS_listxattr, "list attributes", None),
    (libc::SYS_setxattr, "set attribute", None),
    (libc::SYS_removexattr, "remove attribute", None),
];

/// The mount that a descriptor of this process lies on.
fn mount_of(fd: RawFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|id| id.trim().parse().ok())
}

fn path_of(fd: RawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn root(path: &std::path::Path) -> Arc<OwnedFd> {
        Arc::new(sys::open_root(path).unwrap())
    }

    #[test]
    fn roots_on_one_mount_are_told_apart_by_their_paths_and_other_descriptors_are_neither() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = ["source", "destination"].map(|name| scratch.path().join(name));
        for path in &paths {
            fs::create_dir(path).unwrap();
        }
        let (source, destination) = (root(&paths[0]), root(&paths[1]));
        let roots = Roots::of(&Opened { source: Some(&source), destination: &destination });
        let file = |at: &std::path::Path| fs::File::create(at.join("file")).unwrap();
        assert_eq!(roots.side(file(&paths[0]).as_raw_fd()), Some(Side::Source));
        assert_eq!(roots.side(file(&paths[1]).as_raw_fd()), Some(Side::Destination));
        assert_eq!(roots.side(file(scratch.path()).as_raw_fd()), None);
        let (pipe, _keep) = std::io::pipe().unwrap();
        assert_eq!(roots.side(pipe.as_raw_fd()), None);
    }

    #[test]
    fn a_line_of_procfs_names_the_call_and_its_descriptor() {
        let line = format!("{} 0x7 0x7fe1 0x20 0x0 0x0 0x0 0x7ffd 0x7fe1", libc::SYS_pread64);
        assert!(matches!(wait_of(&line), Some(Wait::On(7, "read"))));
        let line = format!("{} 0xffffff9c 0x7fe1 0x20 0x0 0x0 0x0 0x7ffd 0x7fe1", libc::SYS_openat);
        assert!(matches!(wait_of(&line), Some(Wait::Path("open"))));
        let line = format!("{} 0x7 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7fe1", libc::SYS_close);
        assert!(matches!(wait_of(&line), Some(Wait::Close)));
        for nothing in ["running", "-1 0x7ffd 0x7fe1", "", "202 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8"] {
            assert!(wait_of(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_thread_that_waits_for_a_pipe_is_seen_to_wait_for_it() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = reader.as_raw_fd();
        let thread = std::thread::spawn(move || reader.read(&mut [0]));
        let seen = || waiting_threads().iter().any(|wait| matches!(wait, Wait::On(fd, "read") if *fd == number));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !seen() {
            assert!(std::time::Instant::now() < deadline, "procfs never shows it");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(writer);
        thread.join().unwrap().unwrap();
    }
}
