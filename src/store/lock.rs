//! One copyd for one job (promise P5), by `flock(2)`: the kernel gives the lock back when its holder
//! dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::database::call_failed;
use crate::error::Error;

/// How often a lock that is waited for is tried, in milliseconds.
const RETRY_MS: u64 = 10;

/// A held lock. Its file keeps the holder's process id, for the message that others get; the file
/// itself stays, because a lock on a file that is removed guards nothing.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock on `path`, which is created if need be, trying for `patience`.
    ///
    /// # Errors
    /// [`Error::Guard`] with the holder's process id when another process holds it,
    /// [`Error::State`] when the file can't be opened or locked.
    pub fn take(path: &Path, what: &str, patience: Duration) -> Result<Self, Error> {
        Self::attempt(path, what, patience).unwrap_or_else(Err)
    }

    /// As [`Lock::take`], without patience. The inner error is that of a lock which another holds.
    pub fn try_take(path: &Path, what: &str) -> Result<Result<Self, Error>, Error> {
        match Self::attempt(path, what, Duration::ZERO) {
            Ok(Err(_)) if holder_is_dying(path) => {
                // It runs no line of its own any more and only waits for the kernel: see `fence.rs`.
                Self::replace(path)?;
                Self::attempt(path, what, Duration::ZERO)
            }
            other => other,
        }
    }

    fn attempt(path: &Path, what: &str, patience: Duration) -> Result<Result<Self, Error>, Error> {
        // The standard library opens every file with O_CLOEXEC, so no child inherits the lock.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| call_failed(path, "can't be opened", error))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(call_failed(path, "can't be locked", error)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(RETRY_MS));
                }
                Err(TryLockError::WouldBlock) => return Ok(Err(held(&mut file, path, what))),
            }
        }
        let lock = Self { file, path: path.to_owned() };
        lock.sign(&std::process::id().to_string()).map_err(|error| call_failed(path, "can't be written", error))?;
        Ok(Ok(lock))
    }

    fn sign(&self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        std::os::unix::fs::FileExt::write_all_at(&self.file, text.as_bytes(), 0)?;
        (&self.file).flush()
    }
}

impl Lock {
    /// Puts another file in the lock's place. Whoever holds the old one keeps everyone away from nothing;
    /// to be called under the lock that guards the taking of this one.
    ///
    /// # Errors
    /// [`Error::State`] when the file can't be made.
    pub fn replace(path: &Path) -> Result<(), Error> {
        let fresh = path.with_extension("new");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&fresh)
            .map_err(|error| call_failed(&fresh, "can't be created", error))?;
        std::fs::rename(&fresh, path).map_err(|error| call_failed(path, "can't be renamed into place", error))
    }

    /// Whether its file still stands under its name.
    pub fn is_in_place(&self) -> bool {
        let identity = |found: std::io::Result<std::fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
        let here = identity(self.file.metadata());
        here.is_some() && here == identity(std::fs::symlink_metadata(&self.path))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An id left in the file would only be a stale hint, so a failure here harms nothing.
        let _ = self.file.set_len(0);
    }
}

/// Whether the process that holds the lock on `path` was killed, and is kept alive only by calls that the
/// kernel does not let go. The kernel's own list of locks is asked, because the process id in the file may be
/// that of another machine or container.
fn holder_is_dying(path: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(path) else { return false };
    let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let place = format!("{:02x}:{:02x}:{}", device.0, device.1, meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    // "1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF", see proc_locks(5).
    let holder = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str()))
            .then(|| words[4].parse::<u32>().ok())?
    });
    holder.is_some_and(is_dying)
}

/// Whether every thread of a process is gone, or has a SIGKILL that waits for it.
fn is_dying(process: u32) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let pending = |name| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        let gone = status.is_empty() || field("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
        gone || (pending("SigPnd:") | pending("ShdPnd:")) & KILL != 0
    })
}

fn held(file: &mut File, path: &Path, what: &str) -> Error {
    let mut text = String::new();
    // The holder may not have signed yet.
    let holder = match file.read_to_string(&mut text) {
        Ok(_) if text.parse::<u32>().is_ok() => format!("process {text}"),
        _ => "another process".to_owned(),
    };
    let path = PathBuf::from(path);
    Error::Guard {
        what: format!("{what} is in use by {holder} (lock {})", path.display()),
        remedy: "wait until that copyd has ended, or stop it (SIGTERM), then run the same command again",
    }
}
