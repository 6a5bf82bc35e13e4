//! One copyd for one job (promise P5), by `flock(2)`: the kernel gives the lock back when its holder
//! dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
}

impl Lock {
    /// Takes the lock on `path`, which is created if need be, trying for `patience`.
    ///
    /// # Errors
    /// [`Error::Guard`] with the holder's process id when another process holds it,
    /// [`Error::State`] when the file can't be opened or locked.
    pub fn take(path: &Path, what: &str, patience: Duration) -> Result<Self, Error> {
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
                Err(TryLockError::WouldBlock) => return Err(held(&mut file, path, what)),
            }
        }
        let lock = Self { file };
        lock.sign(&std::process::id().to_string()).map_err(|error| call_failed(path, "can't be written", error))?;
        Ok(lock)
    }

    fn sign(&self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        std::os::unix::fs::FileExt::write_all_at(&self.file, text.as_bytes(), 0)?;
        (&self.file).flush()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An id left in the file would only be a stale hint, so a failure here harms nothing.
        let _ = self.file.set_len(0);
    }
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
