//! What can go wrong, where, and what to do about it.
//!
//! Two levels, because a tree of a hundred million files always holds a bad one: an
//! [`EntryError`] concerns one entry, is counted and named, and the pass goes on; an [`Error`]
//! ends the run. Both keep the system's own error as their source. The exit code is decided in
//! one place, [`ExitCode::first`], by the order that `docs/cli.md` promises.

use std::io;
use std::path::PathBuf;

use bstr::ByteSlice;

/// Which of the two trees an error concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WhichSide)]
pub enum Side {
    Source,
    Destination,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

/// The cause of one entry's failure, coarse enough to group a report by and to carry a remedy.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The entry was listed and is gone.
    Vanished,
    /// The source changed while it was read, more often than copyd tries again.
    Hot,
    /// It is named in a list of files, and the source does not have it.
    Missing,
    /// Permission refused.
    Permission,
    /// No room at the destination.
    NoSpace,
    /// A quota at the destination is used up.
    Quota,
    /// The file system is mounted read-only, or became so.
    ReadOnly,
    /// The name or the file is more than the destination can hold.
    TooLarge,
    /// A mount inside the tree, which copyd never crosses.
    Mountpoint,
    /// What was written did not read back as it was read.
    Mismatch,
    /// The destination changed under copyd: another writer.
    Interfered,
    /// The server forgot the handle.
    Stale,
    /// More than a limit that copyd keeps or was given: a listing without end, a file larger than asked for.
    OverLimit,
    /// The call is not supported there.
    Unsupported,
    /// Out of descriptors, memory or another limit of the machine.
    Resources,
    /// An I/O error, or anything else.
    Io,
}

impl Class {
    /// The class of a system error.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooManyEntries>) {
            return Self::OverLimit;
        }
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::Vanished,
            Some(libc::EACCES | libc::EPERM) => Self::Permission,
            Some(libc::ENOSPC) => Self::NoSpace,
            Some(libc::EDQUOT) => Self::Quota,
            Some(libc::EROFS) => Self::ReadOnly,
            Some(libc::ENAMETOOLONG | libc::EFBIG | libc::EILSEQ) => Self::TooLarge,
            Some(libc::EXDEV) => Self::Mountpoint,
            Some(libc::ESTALE) => Self::Stale,
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => Self::Unsupported,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::Resources,
            Some(libc::ELOOP | libc::ENOTDIR) => Self::Interfered,
            _ => Self::Io,
        }
    }

    /// The class of a system error on one side. What is missing at the destination was not deleted by
    /// the share's users: copyd has put or seen it there, and somebody else took it away.
    #[must_use]
    pub fn on(side: Side, error: &io::Error) -> Self {
        match Self::of(error) {
            Self::Vanished if side == Side::Destination => Self::Interfered,
            class => class,
        }
    }

    /// The word that events and reports carry.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::Hot => "hot",
            Self::Missing => "missing",
            Self::Permission => "permission",
            Self::NoSpace => "no_space",
            Self::Quota => "quota",
            Self::ReadOnly => "read_only",
            Self::TooLarge => "too_large",
            Self::Mountpoint => "mountpoint",
            Self::Mismatch => "mismatch",
            Self::Interfered => "interfered",
            Self::Stale => "stale",
            Self::OverLimit => "over_limit",
            Self::Unsupported => "unsupported",
            Self::Resources => "resources",
            Self::Io => "io",
        }
    }

    /// What the person in front of it can do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Vanished => "nothing to do: it was deleted while copyd ran; the next run follows",
            Self::Hot => "run the same command again when the writer is quiet, or copy from a snapshot",
            Self::Missing => "check the list: paths in it are relative to the source",
            Self::Permission => {
                "run as root, or give this user the right; on a root-squashed export, use no_root_squash for the copy"
            }
            Self::NoSpace => "make room at the destination, then run the same command again: it resumes",
            Self::Quota => "raise the quota at the destination, then run the same command again: it resumes",
            Self::ReadOnly => {
                "remount the destination read-write (dmesg says why the kernel changed it), then run again"
            }
            Self::TooLarge => {
                "the destination can't hold this name or size: rename it at the source, or choose another file system"
            }
            Self::Mountpoint => "migrate the mounted file system as a job of its own, or exclude it with --exclude",
            Self::Mismatch => {
                "the destination returned other bytes than were written, twice: check its disks and memory before trusting it"
            }
            Self::Interfered => "something else writes to this tree: stop it, then run the same command again",
            Self::Stale => "the server lost the handle: check the server, remount, then run the same command again",
            Self::OverLimit => {
                "look whether it is meant to be so large; raise the limit (--max-size, --max-allocated, --max-dir-entries), or leave it out with --exclude"
            }
            Self::Unsupported => "the file system there does not support this: see the classes of loss in the README",
            Self::Resources => "raise the limit (ulimit -n, memory), or lower --jobs",
            Self::Io => "check the disk or server (dmesg), then run the same command again",
        }
    }

    /// Whether going on with other entries is pointless: each would fail alike.
    #[must_use]
    pub const fn stops_the_run(self) -> bool {
        matches!(self, Self::NoSpace | Self::Quota | Self::ReadOnly)
    }
}

/// A directory lists more entries than are allowed: most likely a server that lists without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it lists more than {most} entries, which may go on without end")]
pub struct TooManyEntries {
    pub most: u64,
}

impl From<TooManyEntries> for io::Error {
    fn from(error: TooManyEntries) -> Self {
        Self::other(error)
    }
}

/// One entry's failure: which, on which side, at which call, why.
#[derive(Debug, thiserror::Error)]
#[error("{side} {}: {operation}{}: {}", .path.as_bstr(), detail(.source.as_ref()), .class.remedy())]
pub struct EntryError {
    pub class: Class,
    pub side: Side,
    /// What copyd was doing, in words: "open", "read", "set owner".
    pub operation: &'static str,
    /// Path from the root, bytes as the file system gave them; empty for the root itself.
    pub path: Vec<u8>,
    pub source: Option<io::Error>,
}

fn detail(source: Option<&io::Error>) -> String {
    source.map(|e| format!(": {e}")).unwrap_or_default()
}

impl EntryError {
    /// An error of a system call, its class taken from the call's own error.
    #[must_use]
    pub fn io(side: Side, operation: &'static str, path: Vec<u8>, source: io::Error) -> Self {
        Self { class: Class::on(side, &source), side, operation, path, source: Some(source) }
    }
}

/// What ends a run before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong.
    #[error("{what}")]
    Usage { what: String, remedy: &'static str },
    /// A root can't be used: missing, a file, unreadable.
    #[error("{side} {}: {what}", .path.display())]
    Root { side: Side, path: PathBuf, what: &'static str, remedy: &'static str, source: Option<io::Error> },
    /// A guard of the promises refuses: foreign entries, roots inside each other, source gone.
    #[error("{what}")]
    Guard { what: String, remedy: &'static str },
    /// More deletions than `--max-delete`.
    #[error("{wanted} deletions would exceed --max-delete={limit}; nothing was deleted")]
    DeletionLimit { wanted: u64, limit: u64 },
    /// The state directory can't be used.
    #[error("state directory {}: {what}", .path.display())]
    State { path: PathBuf, what: &'static str, source: Option<Box<dyn std::error::Error + Send + Sync>> },
    /// An output the user named (log, manifest) can't be written.
    #[error("{what} {}", .path.display())]
    Output { path: PathBuf, what: &'static str, source: io::Error },
    /// No progress for longer than `--timeout`.
    #[error("{what}")]
    Timeout { what: String },
    /// Ended by force after a cancel, because no safe point was reached.
    #[error("{what}")]
    Cancelled { what: String },
    /// The process that did the work is not there any more, or never was.
    #[error("{what}")]
    Worker { what: String, remedy: &'static str },
    /// The machine, or a limit, gives no more of something that the run can't do without.
    #[error("{what}")]
    Resources { what: &'static str, source: io::Error },
    /// A defect of copyd.
    #[error("internal error: {what}")]
    Internal { what: String },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Usage { remedy, .. } | Self::Root { remedy, .. } | Self::Guard { remedy, .. } => remedy,
            Self::DeletionLimit { .. } => "look at what would go with -n -i --delete, then raise --max-delete",
            Self::State { .. } => "check room and permissions there, or name another place with --state-dir",
            Self::Output { .. } => "check the path, its permissions and the room",
            Self::Cancelled { .. } => "run the same command again: it resumes, and removes what was left",
            Self::Worker { remedy, .. } => remedy,
            Self::Timeout { .. } => {
                "check that both file systems answer (ls, df), then run the same command again: it resumes"
            }
            Self::Resources { .. } => {
                "raise the limit (ulimit -n, -u, -v; that of the service or the container), or lower --jobs"
            }
            Self::Internal { .. } => "please report it with the log; the destination holds only whole files",
        }
    }

    /// The exit code of a run that this ends.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage { .. } => ExitCode::Usage,
            Self::Root { .. } | Self::State { .. } | Self::Output { .. } | Self::Resources { .. } => ExitCode::Root,
            Self::Guard { .. } => ExitCode::Guard,
            Self::DeletionLimit { .. } => ExitCode::DeletionLimit,
            Self::Timeout { .. } => ExitCode::Timeout,
            Self::Cancelled { .. } => ExitCode::Stopped,
            Self::Worker { .. } | Self::Internal { .. } => ExitCode::Internal,
        }
    }
}

/// The exit codes of `docs/cli.md`; rsync's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    Complete = 0,
    Usage = 1,
    Internal = 2,
    Root = 11,
    Stopped = 20,
    SomeFailed = 23,
    Vanished = 24,
    DeletionLimit = 25,
    Timeout = 30,
    Mismatch = 40,
    LossRefused = 41,
    Guard = 43,
}

impl ExitCode {
    /// The code with this number, if it is one of copyd's.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ORDER.into_iter().find(|code| *code as u8 == number)
    }

    const ORDER: [Self; 12] = [
        Self::Usage,
        Self::Stopped,
        Self::Internal,
        Self::Guard,
        Self::DeletionLimit,
        Self::Root,
        Self::Timeout,
        Self::Mismatch,
        Self::SomeFailed,
        Self::LossRefused,
        Self::Vanished,
        Self::Complete,
    ];

    /// Of several that hold, the one that the contract puts first.
    #[must_use]
    pub fn first(holding: &[Self]) -> Self {
        Self::ORDER.into_iter().find(|code| holding.contains(code)).unwrap_or(Self::Complete)
    }
}
