//! A source and a destination behind rigs, a canary beside them, and what every run has to keep
//! whatever went wrong (promise P1, and the exit codes of `docs/cli.md`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use super::Rig;
use super::plan::{Kind, Plan};
use crate::support::Rng;
use crate::support::canary::Canary;
use crate::support::copyd::{Copyd, Run};
use crate::support::mounts::{FsType, Volume, volume};
use crate::support::oracle::{Class, Difference, Overlook, compare, listed};
use crate::support::trees;

/// No run with a fault in it takes longer; most take less than a second.
pub const RUN_MAX: Duration = Duration::from_mins(1);
/// More than one chunk of a large file, which is read, hashed and read back by itself.
pub const LARGE_BYTES: usize = (16 << 20) + 12_345;

/// Which of the two sides a fault is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// Two rigs over directories in memory, and all that a run needs beside them.
pub struct Stage {
    pub source: Rig,
    pub destination: Rig,
    /// What stands behind the rigs.
    pub source_backing: PathBuf,
    pub destination_backing: PathBuf,
    state: PathBuf,
    canary: Canary,
    /// The inodes of what stood at the destination before the run, by path.
    old: BTreeMap<Vec<u8>, u64>,
    _volume: Box<dyn Volume>,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    pub fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 512);
        let [source_backing, destination_backing, state, beside] =
            ["source", "destination", "state", "beside"].map(|name| volume.directory(name));
        let (source, destination) = (Rig::over(&source_backing), Rig::over(&destination_backing));
        let canary = Canary::plant(&beside);
        let old = BTreeMap::new();
        Self { source, destination, source_backing, destination_backing, state, canary, old, _volume: volume }
    }

    /// The tree outside the roots that no run may touch.
    pub const fn canary(&self) -> &Canary {
        &self.canary
    }

    /// A new empty directory on the file system of both backing trees, outside them: what lies there can
    /// change places with what lies in them.
    pub fn aside(&self) -> tempfile::TempDir {
        let volume = self.source_backing.parent().expect("it lies in a volume");
        tempfile::tempdir_in(volume).expect("the volume takes a directory")
    }

    pub fn plan(&self, side: Side) -> &Plan {
        match side {
            Side::Source => self.source.plan(),
            Side::Destination => self.destination.plan(),
        }
    }

    pub fn command(&self, verb: &str, backend: &str) -> Copyd {
        let command = Copyd::new(verb).arg("--json").arg(self.source.path()).arg(self.destination.path());
        command.args(&["--jobs", "2", "--timeout", "20", "--backend", backend]).state_dir(&self.state).timeout(RUN_MAX)
    }

    /// As [`Self::command`], for a run that may wait for ever.
    pub fn patient_command(&self, verb: &str, backend: &str) -> Copyd {
        let command = Copyd::new(verb).arg("--json").arg(self.source.path()).arg(self.destination.path());
        command.args(&["--jobs", "2", "--backend", backend]).state_dir(&self.state).timeout(RUN_MAX)
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Makes everything as before the first run: nothing at the destination, no job, no rule.
    pub fn begin_again(&mut self) {
        for directory in [&self.destination_backing, &self.state] {
            for entry in fs::read_dir(directory).expect("it is ours").flatten() {
                let path = entry.path();
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.expect("it is ours");
            }
        }
        self.old.clear();
        self.clear();
    }

    /// No rule and no count on either side.
    pub fn clear(&self) {
        self.source.plan().clear();
        self.destination.plan().clear();
    }

    /// What stands at the destination now is old: a run may leave it as it is.
    pub fn remember_old(&mut self) {
        self.old = inodes(&self.destination_backing);
    }

    pub fn differences(&self) -> Vec<Difference> {
        let found = compare(&self.source_backing, &self.destination_backing, &Overlook::default());
        found.expect("both backing trees can be read")
    }

    pub fn leftovers(&self) -> Vec<Vec<u8>> {
        let reserved = |path: &Vec<u8>| path.split(|&b| b == b'/').any(|part| part.starts_with(b".copyd-"));
        inodes(&self.destination_backing).into_keys().filter(reserved).collect()
    }

    /// What every run keeps, whatever went wrong. The error says what it did not.
    pub fn judge(&self, run: &Run) -> Result<(), String> {
        const DOCUMENTED: [i32; 7] = [0, 11, 23, 30, 40, 41, 43];
        let code = run.status.code().ok_or("ended by a signal")?;
        if !DOCUMENTED.contains(&code) {
            return Err(format!("exit code {code}"));
        }
        if run.words().contains("panicked") {
            return Err("panicked".into());
        }
        let found = self.differences();
        if code == 0 && !found.is_empty() {
            return Err(format!("exit code 0, and yet:\n{}", listed(&found, 10)));
        }
        let events = run.events();
        let torn: Vec<_> = found.iter().filter(|d| self.torn(d, &events)).cloned().collect();
        if !torn.is_empty() {
            return Err(format!("torn:\n{}", listed(&torn, 10)));
        }
        if code != 0 {
            self.all_named(&found, &events)?;
        }
        let touched = self.canary.changes().map_err(|e| e.to_string())?;
        if touched.is_empty() { Ok(()) } else { Err(format!("the canary: {}", touched.join(", "))) }
    }

    /// Whether a final name holds something that is neither old nor whole.
    fn torn(&self, found: &Difference, events: &[Value]) -> bool {
        let reserved = found.path.starts_with(b".copyd-");
        let is_old = || {
            let path = self.destination_backing.join(std::ffi::OsStr::from_bytes(&found.path));
            fs::symlink_metadata(path).is_ok_and(|meta| self.old.get(&found.path) == Some(&meta.ino()))
        };
        let is_directory = || self.source_backing.join(std::ffi::OsStr::from_bytes(&found.path)).is_dir();
        // What the destination could not take of an entry is no tear where a loss names it, by any of
        // its names; nor is a name that is whole and not yet linked to the others.
        let inode = |path: &[u8]| {
            fs::symlink_metadata(self.source_backing.join(std::ffi::OsStr::from_bytes(path)))
                .map(|meta| meta.ino())
                .ok()
        };
        let content = matches!(found.class, Class::Type | Class::Content | Class::Size | Class::Target);
        let lost = || names(events, "loss").iter().any(|name| inode(name) == inode(&found.path));
        let accounted = || !content && (found.class == Class::LinkBroken || lost());
        found.class != Class::Missing && !reserved && !is_old() && !is_directory() && !accounted()
    }

    /// Every entry that is not as it should be is named, itself or by a directory above it, unless the
    /// run says why it ended before its time.
    fn all_named(&self, found: &[Difference], events: &[Value]) -> Result<(), String> {
        let summary = events.last().ok_or("no summary")?;
        let ends = |event: &Value| ["no_space", "quota", "read_only"].iter().any(|class| event["class"] == *class);
        if summary["error"].is_object() || events.iter().any(ends) {
            return Ok(());
        }
        let mut known = names(events, "entry_failed");
        known.extend(names(events, "loss"));
        if known.is_empty() {
            return Err("no entry is named and no error".into());
        }
        let named = |path: &[u8]| {
            let inode = |path: &[u8]| {
                let path = self.source_backing.join(std::ffi::OsStr::from_bytes(path));
                fs::symlink_metadata(path).map(|meta| meta.ino()).ok()
            };
            known.iter().any(|name| {
                let below = path.strip_prefix(&name[..]).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
                name.is_empty() || name == b"." || below || inode(name) == inode(path)
            })
        };
        let parents_touch = |d: &Difference| {
            d.class == Class::Mtime && self.source_backing.join(std::ffi::OsStr::from_bytes(&d.path)).is_dir()
        };
        let nameless: Vec<_> =
            found.iter().filter(|d| d.class != Class::Extra && !parents_touch(d) && !named(&d.path)).cloned().collect();
        if nameless.is_empty() { Ok(()) } else { Err(format!("not named:\n{}", listed(&nameless, 10))) }
    }

    /// The same command with no fault: everything is there, and nothing more.
    pub fn completes(&self, command: &Copyd) -> Result<(), String> {
        self.clear();
        let run = command.run();
        if run.status.code() != Some(0) {
            return Err(format!("the next run without a fault: {run}"));
        }
        let found = self.differences();
        if !found.is_empty() {
            return Err(format!("after the next run without a fault: {}", listed(&found, 10)));
        }
        let left = self.leftovers();
        if left.is_empty() { Ok(()) } else { Err(format!("left over: {:?}", String::from_utf8_lossy(&left[0]))) }
    }

    /// As [`Self::judge`], and then [`Self::completes`]; panics with all that the run said.
    pub fn assert_survives(&self, run: &Run, command: &Copyd) {
        let judged = self.judge(run).and_then(|()| self.completes(command));
        assert_eq!(judged, Ok(()), "{run}");
    }
}

/// The names that events of a kind carry.
pub fn names(events: &[Value], kind: &str) -> Vec<Vec<u8>> {
    let of_kind = events.iter().filter(|event| event["event"] == kind);
    let decoded = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).expect("standard base64");
    of_kind
        .filter_map(|event| match (event["name"].as_str(), event["name_b64"].as_str()) {
            (Some(name), _) => Some(name.as_bytes().to_vec()),
            (None, name) => name.map(decoded),
        })
        .collect()
}

/// Every path below a root with its inode.
fn inodes(root: &Path) -> BTreeMap<Vec<u8>, u64> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).expect("it is below").as_os_str().as_bytes().to_vec();
            found.insert(relative, entry.metadata().map_or(0, |meta| meta.ino()));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path);
            }
        }
    }
    found
}

/// A small tree with one of every kind.
pub fn plant(root: &Path) {
    let mut rng = Rng::new(6);
    fs::create_dir(root.join("dir")).unwrap();
    for (name, bytes) in [("empty", 0), ("one", 1), ("page", 4096), ("middle", 300 << 10), ("large", LARGE_BYTES)] {
        fs::write(root.join(name), rng.bytes(bytes)).unwrap();
    }
    fs::write(root.join("dir/inner"), rng.bytes(100)).unwrap();
    fs::hard_link(root.join("page"), root.join("dir/page")).unwrap();
    std::os::unix::fs::symlink("one", root.join("link")).unwrap();
    trees::make_node(&root.join("dir/fifo"), rustix::fs::FileType::Fifo, 0o640, 0).unwrap();
    trees::set_xattr(&root.join("middle"), "user.note", b"of a file").unwrap();
    trees::set_xattr(&root.join("dir"), "user.note", b"of a directory").unwrap();
}

/// What stood at the destination before: older files of the same names, and names that are to go.
pub fn plant_old(root: &Path) {
    for (name, content) in [("one", &b"old"[..]), ("middle", b"old and short"), ("stale", b"to go")] {
        fs::write(root.join(name), content).unwrap();
    }
    fs::create_dir(root.join("stale-dir")).unwrap();
    fs::write(root.join("stale-dir/inner"), b"to go").unwrap();
}

/// How often each call is made, which is what a test lets fail one by one.
pub fn counted(stage: &Stage, side: Side) -> Vec<(Kind, u64)> {
    stage.plan(side).counts().into_iter().collect()
}
