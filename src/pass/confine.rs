//! What a run may still do when it has all that it needs open: the policy.
//!
//! Names, attributes and contents come from tenants. Should one of them make copyd run foreign code, that
//! code has what this process has. So as soon as roots, state, log and manifest are known, the process
//! gives up everything else, for good and in every thread. Four measures, each with its own reach:
//!
//! | measure | takes away |
//! |---|---|
//! | `no_new_privs` | what set-id programs would give back |
//! | capabilities | what no copy needs ([`capabilities`]) |
//! | Landlock | opening, making and removing anything outside of [`Confinement`]'s places; the network |
//! | seccomp | mounts, namespaces, programs, tracing, kernel and keys ([`crate::sys::bar_calls`]) |
//!
//! Where a kernel or container refuses one of them the run goes on without it, and says so once.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope,
};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::sys::{self, Narrowing, Refused};

/// The places that a run needs from now on, and what it does there.
#[derive(Debug, Default)]
pub struct Confinement<'a> {
    /// Directories that are only read.
    pub read: Vec<BorrowedFd<'a>>,
    /// The destination, where the run writes to it.
    pub written: Option<BorrowedFd<'a>>,
    /// The directory of the job's state.
    pub state: Option<PathBuf>,
    /// Files that come into being at the end, each beside a temporary one: the manifest.
    pub outputs: Vec<PathBuf>,
    /// A directory from which an empty one is removed at the end: that of a dry run's state.
    pub emptied: Option<PathBuf>,
    /// io_uring may be set up.
    pub ring: bool,
    /// All roots lie in memory file systems. Landlock looks at every directory above a file at each open,
    /// which costs a fifth of a copy there and nothing that shows where a device or a server has to answer:
    /// so there it is left out.
    pub in_memory: bool,
}

/// What of it the kernel has granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// The version of Landlock that holds; `None` where none does.
    pub landlock: Option<u32>,
    /// The barred calls are barred.
    pub seccomp: bool,
    /// Set-id programs give nothing.
    pub no_new_privileges: bool,
    /// Capabilities that this process still can use, as their names in `capabilities(7)`.
    pub capabilities: Vec<Cow<'static, str>>,
    /// Namespaces that are this process's own, as `/proc/PID/ns` names them.
    #[serde(default)]
    pub namespaces: Vec<Cow<'static, str>>,
    /// What could not be taken away, each with its reason.
    pub missing: Vec<String>,
}

impl Confined {
    /// What a person should know, in one line; `None` where nothing is missing.
    #[must_use]
    pub fn shortfall(&self) -> Option<String> {
        let level = self.landlock.map_or_else(|| "no Landlock".into(), |version| format!("Landlock {version}"));
        (!self.missing.is_empty())
            .then(|| format!("this process keeps rights that it does not need ({level}): {}", self.missing.join("; ")))
    }
}

/// The first version of Landlock that lets a file be renamed from one directory to another (Linux 5.19):
/// with the first one no temporary would reach its place.
const LANDLOCK_MIN: u32 = 2;

/// Confines this process for good.
#[must_use]
pub fn confine(to: &Confinement<'_>) -> Confined {
    let mut confined = Confined::default();
    let mut miss = |what: String| confined.missing.push(what);
    let version = sys::landlock_version();
    let ruleset = match version.filter(|_| !to.in_memory) {
        None if to.in_memory => None,
        None => {
            miss("Landlock: not in this kernel, or turned off".into());
            None
        }
        Some(version) if version < LANDLOCK_MIN => {
            miss(format!("Landlock: version {version} allows no rename between directories, Linux 5.19 does"));
            None
        }
        Some(_) => match ruleset(to) {
            Ok(made) => made,
            Err(e) => {
                miss(format!("Landlock: {e}"));
                None
            }
        },
    };
    let keep = capabilities(to.written.is_some());
    let narrowing = Narrowing { keep: keep.bits(), ruleset: ruleset.as_ref().map(AsFd::as_fd) };
    let refused = sys::narrow_every_thread(narrowing);
    for (step, what) in [
        (Refused::PRIVILEGES, "no_new_privs: refused"),
        (Refused::LANDLOCK, "Landlock: refused"),
        (Refused::CAPABILITIES, "capabilities: refused"),
        (Refused::THREADS, "a thread of this process could not be reached"),
    ] {
        if refused.contains(step) {
            miss(what.into());
        }
    }
    let barred = sys::bar_calls(to.ring).map_err(|e| miss(format!("seccomp: {e}")));
    confined.seccomp = barred.is_ok();
    confined.no_new_privileges = !refused.contains(Refused::PRIVILEGES);
    confined.landlock = version.filter(|_| ruleset.is_some() && !refused.contains(Refused::LANDLOCK));
    confined.capabilities = names(sys::effective_capabilities());
    confined
}

/// What stays, and why. A confined run copies all that an unconfined one would.
fn capabilities(writes: bool) -> CapabilitySet {
    // Reading: directories and files of all owners, without moving access times (`O_NOATIME`); the
    // `trusted.*` attributes, which the kernel shows to CAP_SYS_ADMIN only, and labels that its security
    // module does not know. Buffers of the ring, which else count against RLIMIT_MEMLOCK.
    let reading = CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::MAC_ADMIN
        | CapabilitySet::IPC_LOCK;
    // Writing: into directories of all owners; owners, set-id bits of foreign groups, file capabilities,
    // device nodes, immutable and append-only flags. CAP_SYS_RESOURCE: the journal flag of ext4, its
    // reserved blocks, and users who were over their quota at the source.
    let writing = CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::CHOWN
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
        | CapabilitySet::MKNOD
        | CapabilitySet::LINUX_IMMUTABLE
        | CapabilitySet::SYS_RESOURCE;
    if writes {
        reading | writing
    } else {
        // DAC_OVERRIDE: a state or a manifest in a directory of another owner.
        reading | CapabilitySet::DAC_OVERRIDE
    }
}

/// The most that any run keeps, as a set of bits: what a process that is to carry one out has to begin with.
#[must_use]
pub fn capabilities_max() -> u64 {
    capabilities(true).bits()
}

fn names(capabilities: u64) -> Vec<Cow<'static, str>> {
    let known = CapabilitySet::from_bits_truncate(capabilities);
    known.iter_names().map(|(name, _)| name.into()).collect()
}

/// The rights of a directory tree that is only read. Not to execute: nothing is.
fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// The rights where entries of every kind come and go. Neither to execute nor to talk to devices.
fn writing() -> BitFlags<AccessFs> {
    reading()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeChar
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::MakeBlock
        | AccessFs::MakeSym
        | AccessFs::Refer
}

/// The rights for plain files in a directory: state, outputs.
fn keeping() -> BitFlags<AccessFs> {
    reading()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::Refer
}

/// Everything that this kernel can handle is forbidden but at the places of `to`.
fn ruleset(to: &Confinement<'_>) -> Result<Option<OwnedFd>, RulesetError> {
    let mut made = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V7))?
        .handle_access(AccessNet::from_all(ABI::V7))?
        .scope(Scope::from_all(ABI::V7))?
        .create()?;
    for root in &to.read {
        made = made.add_rule(PathBeneath::new(root, reading()))?;
    }
    if let Some(root) = to.written {
        made = made.add_rule(PathBeneath::new(root, writing()))?;
    }
    if let Some(state) = &to.state {
        made = beneath(made, state, keeping())?;
    }
    for output in &to.outputs {
        made = beneath(made, directory_of(output), keeping())?;
    }
    if let Some(emptied) = &to.emptied {
        made = beneath(made, emptied, AccessFs::RemoveDir.into())?;
    }
    // Its own descriptors, counters of its own threads, and what is mounted where. What else lies there
    // is of other processes, and Landlock hides that from a confined one.
    made = beneath(made, Path::new("/proc"), reading())?;
    // How many requests a FUSE server owes an answer, which tells who hangs; read, so nobody is aborted.
    made = beneath(made, Path::new("/sys/fs/fuse/connections"), reading())?;
    Ok(made.into())
}

/// Adds a rule for a directory by its path; one that is not there needs none.
fn beneath(made: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match sys::hold_root(path) {
        Ok(directory) => made.add_rule(PathBeneath::new(directory, access)),
        // Whoever opens something there says why that fails.
        Err(_) => Ok(made),
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
