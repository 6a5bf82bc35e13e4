//! Changes on either side, concrete enough to be done again, and how they are made up.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::predict::{Extras, Flags};
use super::tree::{self, Content, Tree, joined};
use crate::support::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// One change. One that can't be made, because what it speaks of has gone, is none.
#[derive(Clone, Debug)]
pub enum Change {
    /// A file, new or in place of its bytes.
    Write {
        path: Name,
        len: usize,
        fill: u8,
    },
    /// Other bytes of the same number, with the modification time put back.
    Rewrite {
        path: Name,
        fill: u8,
    },
    /// A file with the size and time of the other side's.
    Mirror {
        path: Name,
        fill: u8,
    },
    Directory {
        path: Name,
    },
    Symlink {
        path: Name,
        target: u8,
    },
    Fifo {
        path: Name,
    },
    Link {
        from: Name,
        to: Name,
    },
    Rename {
        from: Name,
        to: Name,
    },
    /// With everything below it.
    Remove {
        path: Name,
    },
    Mode {
        path: Name,
        mode: u32,
    },
    Owner {
        path: Name,
        owner: (u32, u32),
    },
    Time {
        path: Name,
        mtime: (i64, i64),
    },
    Attribute {
        path: Name,
        value: Option<u8>,
    },
}

#[derive(Clone, Debug)]
pub enum Step {
    Change(Side, Change),
    Run(Flags),
    /// A run that makes the destination equal, and a comparison that has to agree.
    End,
}

/// A path that prints as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Makes a change below `root`. Says nothing of whether it could be made.
pub fn make(change: &Change, root: &Path, other: &Path) {
    let at = |path: &[u8]| tree::at(root, path);
    // What can't be done any more is not done: the trees are read again after each change.
    let _ = match change {
        Change::Write { path, len, fill } => write(&at(path), &vec![*fill; *len]),
        Change::Rewrite { path, fill } => rewrite(&at(path), *fill),
        Change::Mirror { path, fill } => mirror(&at(path), &tree::at(other, path), *fill),
        Change::Directory { path } => fs::create_dir(at(path)),
        Change::Symlink { path, target } => symlink(format!("target {target}"), at(path)),
        Change::Fifo { path } => {
            rustix::fs::mknodat(CWD, at(path), rustix::fs::FileType::Fifo, 0o600.into(), 0).map_err(Into::into)
        }
        Change::Link { from, to } => fs::hard_link(at(from), at(to)),
        Change::Rename { from, to } => fs::rename(at(from), at(to)),
        Change::Remove { path } if path.is_empty() => clear(root),
        Change::Remove { path } => remove(&at(path)),
        Change::Mode { path, mode } => match fs::symlink_metadata(at(path)) {
            Ok(stat) if !stat.is_symlink() => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
            _ => Ok(()),
        },
        Change::Owner { path, owner } => lchown(at(path), Some(owner.0), Some(owner.1)),
        Change::Time { path, mtime } => set_mtime(&at(path), *mtime),
        Change::Attribute { path, value } => {
            let set = |value: &u8| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(at(path), "trusted.model", &[*value; 3], flags)
            };
            let removed = || rustix::fs::lremovexattr(at(path), "trusted.model");
            value.as_ref().map_or_else(removed, set).map_err(Into::into)
        }
    };
}

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn clear(root: &Path) -> std::io::Result<()> {
    fs::read_dir(root)?.try_for_each(|entry| remove(&entry?.path()))
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::symlink_metadata(path).is_ok() && !is_file(path) {
        return Ok(());
    }
    File::create(path)?.write_all(bytes)
}

fn rewrite(path: &Path, fill: u8) -> std::io::Result<()> {
    if !is_file(path) {
        return Ok(());
    }
    let mtime = mtime_of(path)?;
    let len = fs::metadata(path)?.len();
    write(path, &vec![fill; usize::try_from(len).unwrap_or_default()])?;
    set_mtime(path, mtime)
}

fn mirror(path: &Path, other: &Path, fill: u8) -> std::io::Result<()> {
    if !is_file(other) {
        return Ok(());
    }
    let len = usize::try_from(fs::metadata(other)?.len()).unwrap_or_default();
    write(path, &vec![fill; len])?;
    if is_file(path) { set_mtime(path, mtime_of(other)?) } else { Ok(()) }
}

fn mtime_of(path: &Path) -> std::io::Result<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let stat = fs::symlink_metadata(path)?;
    Ok((stat.mtime(), stat.mtime_nsec()))
}

fn set_mtime(path: &Path, mtime: (i64, i64)) -> std::io::Result<()> {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
}

/// Few names, so that the two sides meet often; some as nobody would choose them.
const NAMES: [&[u8]; 9] = [b"a", b"b", b"c", b"d.x", b"e.x", b"\xff\xfe", b"new\nline", b"-n", b".hid den"];
const DEPTH_MAX: usize = 3;

/// Makes up changes and runs.
#[derive(Debug)]
pub struct Imagination {
    pub rng: Rng,
    /// Changes left before the next run.
    left: u64,
    /// A change of a kind of entry takes two steps.
    then: Option<Step>,
}

impl Imagination {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let left = 15 + rng.below(15);
        Self { rng, left, then: None }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.rng.below(count) == 0
    }

    /// The next step, from where both sides stand.
    pub fn next(&mut self, source: &Tree, destination: &Tree, first: bool) -> Step {
        if let Some(step) = self.then.take() {
            return step;
        }
        if self.left == 0 {
            self.left = 1 + self.rng.below(9);
            return Step::Run(self.flags());
        }
        self.left -= 1;
        let side = if first || self.rng.below(5) < 3 { Side::Source } else { Side::Destination };
        if side == Side::Source && !first && self.one_in(60) {
            return Step::Change(side, Change::Remove { path: Name(Vec::new()) });
        }
        let (own, other) = if side == Side::Source { (source, destination) } else { (destination, source) };
        Step::Change(side, self.change(side, own, other))
    }

    fn flags(&mut self) -> Flags {
        let extras = match self.rng.below(6) {
            0 | 1 => Extras::Guard,
            2 | 3 => Extras::Keep,
            _ => Extras::Delete,
        };
        let max_delete = self.one_in(3).then(|| self.rng.below(5));
        Flags { extras, max_delete, allow_empty: self.one_in(4), dry_run: self.one_in(10) }
    }

    /// An entry of a tree; the root where there is none.
    fn some(&mut self, tree: &Tree) -> Name {
        let at = self.rng.below(tree.len() as u64);
        Name(tree.keys().nth(usize::try_from(at).unwrap_or_default()).cloned().unwrap_or_default())
    }

    /// A path in a directory of a tree, which may be there and may not.
    fn place(&mut self, tree: &Tree) -> Name {
        let directories: Vec<_> = tree
            .iter()
            .filter(|(path, entry)| entry.content.is_directory() && tree::depth(path) < DEPTH_MAX)
            .map(|(path, _)| path)
            .collect();
        let directory = directories[usize::try_from(self.rng.below(directories.len() as u64)).unwrap_or_default()];
        let name = NAMES[usize::try_from(self.rng.below(NAMES.len() as u64)).unwrap_or_default()];
        Name(joined(directory, name))
    }

    fn change(&mut self, side: Side, own: &Tree, other: &Tree) -> Change {
        let fill = u8::try_from(self.rng.below(256)).unwrap_or_default();
        let len = usize::try_from(if self.one_in(12) { 5000 } else { self.rng.below(4) }).unwrap_or_default();
        match self.rng.below(22) {
            0..=3 => Change::Write { path: self.place(own), len, fill },
            4 | 5 => Change::Directory { path: self.place(own) },
            6 => Change::Symlink { path: self.place(own), target: fill % 3 },
            7 if self.one_in(2) => Change::Fifo { path: self.place(own) },
            7 | 8 => Change::Link { from: self.some(own), to: self.place(own) },
            9 => Change::Rename { from: self.not_the_root(own), to: self.place(own) },
            10 => Change::Rename { from: self.not_the_root(own), to: self.some(own) },
            11 | 12 => Change::Remove { path: self.not_the_root(own) },
            13 => self.exchange(side, own),
            14 => Change::Mode {
                path: self.some(own),
                mode: [0o644, 0o600, 0o755, 0o4711, 0o1777][usize::from(fill % 5)],
            },
            15 => Change::Owner { path: self.some(own), owner: (u32::from(fill % 3), u32::from(fill % 2)) },
            16 => {
                Change::Time { path: self.some(own), mtime: (1_700_000_000 + i64::from(fill % 3), i64::from(fill % 2)) }
            }
            17 => Change::Attribute { path: self.some(own), value: (fill % 3 > 0).then_some(fill) },
            18 => Change::Rewrite { path: self.some(own), fill },
            19 => self.exchange(side, own),
            _ => Change::Mirror { path: self.some(other), fill: fill % 2 },
        }
    }

    fn not_the_root(&mut self, tree: &Tree) -> Name {
        let path = self.some(tree);
        // A name that nothing has: the change is none then.
        if path.is_empty() { Name(b"nothing".to_vec()) } else { path }
    }

    /// Something goes, and an entry of another kind comes in its place.
    fn exchange(&mut self, side: Side, tree: &Tree) -> Change {
        let path = self.not_the_root(tree);
        let is_directory = tree.get(&*path).is_some_and(|entry| entry.content == Content::Directory);
        let next = match (is_directory, self.rng.below(3)) {
            (true, 0) => Change::Symlink { path: path.clone(), target: 0 },
            (true, _) => Change::Write { path: path.clone(), len: 2, fill: 7 },
            (false, _) => Change::Directory { path: path.clone() },
        };
        self.then = Some(Step::Change(side, next));
        Change::Remove { path }
    }
}
