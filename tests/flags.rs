//! Immutable and append-only entries that stand at the destination already: replaced, removed,
//! linked and filled like all others, with the source's flags at the end, however the run ends.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::IFlags;
use rustix::process::Signal;

use support::canary::Snapshot;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Volume, volume};
use support::oracle::assert_same;
use support::trees::set_flag;
use support::{Rng, raw, tool};

const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// A source and its copy on one file system.
struct Pair {
    source: PathBuf,
    destination: PathBuf,
    volume: Box<dyn Volume>,
}

impl Pair {
    fn new(kind: FsType) -> Self {
        let volume = volume(kind, 320);
        let source = volume.directory("source");
        Self { source, destination: volume.path().join("destination"), volume }
    }

    fn sync(&self) -> Copyd {
        Copyd::new("sync").arg("--json").arg(&self.source).arg(&self.destination)
    }

    /// Runs it, and judges names, contents and flags.
    fn copies(&self, command: &Copyd) -> Run {
        let run = command.run().expect(0);
        assert_same(&self.source, &self.destination);
        assert_eq!((run.summary().classes("lost"), run.summary().count("failed")), (0, 0), "{run}");
        run
    }
}

fn flags(path: &Path) -> IFlags {
    rustix::fs::ioctl_getflags(File::open(path).unwrap()).unwrap() & LOCKS
}

/// Acts on an entry of the source that its flags would guard.
fn unlocked<T>(path: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> T {
    let file = File::open(path).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    rustix::fs::ioctl_setflags(&file, flags - LOCKS).unwrap();
    let result = act(path).unwrap();
    if file.metadata().unwrap().nlink() > 0 {
        rustix::fs::ioctl_setflags(&file, flags).unwrap();
    }
    result
}

#[test]
fn an_immutable_file_that_changed_is_replaced_and_immutable_again_on_ext4_xfs_and_btrfs() {
    for kind in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let pair = Pair::new(kind);
        let names = ["immutable", "append"].map(|name| pair.source.join(name));
        for (path, flag) in names.iter().zip([IFlags::IMMUTABLE, IFlags::APPEND]) {
            fs::write(path, b"old").unwrap();
            set_flag(path, flag).unwrap();
        }
        let command = pair.sync();
        pair.copies(&command);
        for path in &names {
            unlocked(path, |path| fs::write(path, b"the new content"));
        }
        let run = pair.copies(&command);
        assert_eq!(run.summary().count("files_copied"), 2, "{run}");
        assert_eq!(flags(&pair.destination.join("immutable")), IFlags::IMMUTABLE);
        assert_eq!(flags(&pair.destination.join("append")), IFlags::APPEND);

        // What stands there and is not copyd's own, of another type even.
        unlocked(&names[0], |path| fs::remove_file(path));
        symlink("elsewhere", &names[0]).unwrap();
        unlocked(&names[1], |path| fs::remove_file(path));
        fs::create_dir(&names[1]).unwrap();
        fs::write(names[1].join("below"), b"a directory now").unwrap();
        pair.copies(&command);
    }
}

#[test]
fn immutable_entries_that_are_gone_at_the_source_are_deleted_on_ext4() {
    let pair = Pair::new(FsType::Ext4);
    fs::create_dir_all(pair.source.join("kept")).unwrap();
    fs::write(pair.source.join("kept/file"), b"kept").unwrap();
    let command = pair.sync().arg("--delete");
    pair.copies(&command);
    let doomed = pair.destination.join("kept/doomed");
    fs::create_dir_all(doomed.join("a/b")).unwrap();
    for name in ["kept/file2", "kept/doomed/a/f", "kept/doomed/a/b/g"] {
        fs::write(pair.destination.join(name), b"nobody has it").unwrap();
    }
    for name in ["kept/file2", "kept/doomed/a/b/g", "kept/doomed/a/b", "kept/doomed/a", "kept"] {
        set_flag(&pair.destination.join(name), IFlags::IMMUTABLE).unwrap();
    }
    set_flag(&doomed.join("a/f"), IFlags::APPEND).unwrap();

    // What must not be deleted is not touched either.
    let before = Snapshot::take(&pair.destination).unwrap();
    pair.sync().args(&["--delete", "--max-delete", "5"]).run().expect(25);
    let changes = before.changes(&pair.destination, false).unwrap();
    let touched: Vec<_> = changes.iter().filter(|line| !line.starts_with("\"kept\":")).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(flags(&doomed.join("a/b/g")), IFlags::IMMUTABLE);

    set_flag(&pair.destination.join("kept"), IFlags::IMMUTABLE).unwrap();
    let run = pair.copies(&command);
    assert_eq!(run.summary().count("deleted"), 6, "{run}");
}

/// Changes of every kind in a directory of the source that stays locked by `flag`.
fn changes_in_a_locked_directory(kind: FsType, flag: IFlags, at_root: bool) {
    let pair = Pair::new(kind);
    let at = |root: &Path, name: &str| if at_root { root.join(name) } else { root.join("locked").join(name) };
    let locked = at(&pair.source, "");
    fs::create_dir_all(&locked).unwrap();
    for name in ["same", "changed", "gone", "becomes-a-directory", "linked"] {
        fs::write(locked.join(name), name).unwrap();
    }
    fs::create_dir(locked.join("becomes-a-file")).unwrap();
    set_flag(&locked, flag).unwrap();
    let command = pair.sync();
    pair.copies(&command);
    assert_eq!(flags(&at(&pair.destination, "")), flag);

    let same = fs::metadata(at(&pair.destination, "same")).unwrap();
    unlocked(&locked, |locked| {
        fs::write(locked.join("changed"), b"another content")?;
        fs::write(locked.join("new"), b"new")?;
        fs::remove_file(locked.join("gone"))?;
        fs::remove_file(locked.join("becomes-a-directory"))?;
        fs::create_dir(locked.join("becomes-a-directory"))?;
        fs::write(locked.join("becomes-a-directory/below"), b"below")?;
        fs::remove_dir(locked.join("becomes-a-file"))?;
        fs::write(locked.join("becomes-a-file"), b"a file now")?;
        fs::create_dir(locked.join("new-directory"))?;
        fs::write(locked.join("new-directory/below"), b"below")?;
        symlink("nowhere", locked.join("new-link"))?;
        fs::hard_link(locked.join("linked"), locked.join("second-name"))
    });
    let run = pair.copies(&command);
    assert_eq!(run.summary().count("deleted"), 2, "{run}");
    assert_eq!(flags(&at(&pair.destination, "")), flag, "{run}");
    let still = fs::metadata(at(&pair.destination, "same")).unwrap();
    assert_eq!((same.ino(), same.ctime_nsec()), (still.ino(), still.ctime_nsec()), "it is not touched");

    // It ends as its source, and that is known: nothing is left to do.
    let run = pair.copies(&command);
    let done = ["files_copied", "metadata_updated", "deleted"].map(|field| run.summary().count(field));
    assert_eq!(done, [0; 3], "{run}");
    unlocked(&locked, |_| Ok(()));
    rustix::fs::ioctl_setflags(File::open(&locked).unwrap(), IFlags::empty()).unwrap();
    fs::write(locked.join("one-more"), b"x").unwrap();
    pair.copies(&command);
    assert_eq!(flags(&at(&pair.destination, "")), IFlags::empty(), "as at the source");
}

#[test]
fn an_immutable_directory_follows_all_changes_of_its_source_on_ext4() {
    changes_in_a_locked_directory(FsType::Ext4, IFlags::IMMUTABLE, false);
}

#[test]
fn an_append_only_directory_follows_all_changes_of_its_source_on_ext4() {
    changes_in_a_locked_directory(FsType::Ext4, IFlags::APPEND, false);
}

#[test]
fn an_immutable_root_follows_all_changes_of_its_source_on_ext4() {
    changes_in_a_locked_directory(FsType::Ext4, IFlags::IMMUTABLE, true);
}

#[test]
fn an_immutable_directory_follows_all_changes_of_its_source_on_xfs_and_btrfs() {
    for kind in [FsType::Xfs, FsType::Btrfs] {
        changes_in_a_locked_directory(kind, IFlags::IMMUTABLE, false);
    }
}

#[test]
fn an_immutable_root_follows_all_changes_of_its_source_in_memory() {
    changes_in_a_locked_directory(FsType::Tmpfs, IFlags::IMMUTABLE, true);
}

#[test]
fn the_names_of_an_immutable_inode_stay_links_and_immutable_on_ext4() {
    let pair = Pair::new(FsType::Ext4);
    let names = ["a", "b", "c"].map(|name| pair.source.join(name));
    fs::write(&names[0], b"three names").unwrap();
    names[1..].iter().for_each(|name| fs::hard_link(&names[0], name).unwrap());
    set_flag(&names[0], IFlags::IMMUTABLE).unwrap();
    let command = pair.sync();
    let run = pair.copies(&command);
    assert_eq!(run.summary().count("links_made"), 2, "{run}");
    let there = |name: &str| pair.destination.join(name);

    // Another content, in the same inode.
    unlocked(&names[0], |name| fs::write(name, b"other words"));
    pair.copies(&command);
    assert_eq!(flags(&there("c")), IFlags::IMMUTABLE);

    // A name goes and one comes.
    unlocked(&names[0], |_| {
        fs::remove_file(&names[2])?;
        fs::hard_link(&names[1], pair.source.join("d"))
    });
    pair.copies(&command);
    assert_eq!(flags(&there("d")), IFlags::IMMUTABLE);

    // A name becomes a file of its own: the other two are still immutable.
    unlocked(&names[1], |name| {
        fs::remove_file(name)?;
        fs::write(name, b"of its own")
    });
    pair.copies(&command);
    assert_eq!(flags(&there("a")), IFlags::IMMUTABLE);
}

#[test]
fn a_name_outside_of_the_tree_keeps_the_flag_of_an_inode_that_is_replaced_on_ext4() {
    let pair = Pair::new(FsType::Ext4);
    fs::write(pair.source.join("file"), b"one").unwrap();
    let command = pair.sync();
    pair.copies(&command);
    let outside = pair.volume.path().join("outside");
    fs::hard_link(pair.destination.join("file"), &outside).unwrap();
    set_flag(&outside, IFlags::IMMUTABLE).unwrap();
    fs::write(pair.source.join("file"), b"another").unwrap();
    pair.copies(&command);
    assert_eq!((fs::read(&outside).unwrap(), flags(&outside)), (b"one".to_vec(), IFlags::IMMUTABLE));
}

#[test]
fn an_immutable_special_file_is_replaced_and_removed_on_xfs() {
    let pair = Pair::new(FsType::Xfs);
    let name = |root: &Path, name: &str| root.join(name);
    for fifo in ["gone", "replaced"] {
        tool("coreutils", "mkfifo", &[name(&pair.source, fifo)]);
    }
    let command = pair.sync();
    pair.copies(&command);
    for fifo in ["gone", "replaced"] {
        if !raw::make_immutable(&name(&pair.destination, fifo)).unwrap() {
            eprintln!("before Linux 6.17 no special file can be immutable");
            return;
        }
        fs::remove_file(name(&pair.source, fifo)).unwrap();
    }
    symlink("nowhere", name(&pair.source, "replaced")).unwrap();
    pair.copies(&command);
}

#[test]
fn a_run_that_is_interrupted_leaves_an_immutable_directory_immutable() {
    let pair = Pair::new(FsType::Tmpfs);
    let locked = pair.source.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("old"), b"old").unwrap();
    for path in [&locked, &pair.source] {
        set_flag(path, IFlags::IMMUTABLE).unwrap();
    }
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let command = pair.sync().state_dir(state.path());
    pair.copies(&command);
    unlocked(&locked, |locked| {
        fs::write(locked.join("a"), b"small")?;
        fs::write(locked.join("b"), Rng::new(3).bytes(40 << 20))
    });

    let mut running = pair.sync().state_dir(state.path()).args(&["--bwlimit", "8M", "--jobs", "2"]).spawn();
    let there = pair.destination.join("locked");
    running.until("a new entry has its name", || there.join("a").exists());
    assert_eq!(flags(&there), IFlags::empty(), "it is lifted meanwhile");
    running.signal(Signal::INT);
    let run = running.wait().expect(20);
    assert!(!there.join("b").exists(), "it was not stopped in the middle: {run}");
    assert_eq!((flags(&there), flags(&pair.destination)), (IFlags::IMMUTABLE, IFlags::IMMUTABLE), "{run}");
    pair.copies(&command);
}

#[test]
fn a_killed_run_s_staging_directory_goes_with_an_immutable_file_in_it_on_ext4() {
    let pair = Pair::new(FsType::Ext4);
    fs::write(pair.source.join("file"), b"x").unwrap();
    let command = pair.sync();
    let job = pair.copies(&command).summary().text("job").to_owned();
    let left = pair.destination.join(format!(".copyd-{job}/lane00/0000000000000007"));
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("whole"), b"its directory was never named").unwrap();
    set_flag(&left.join("whole"), IFlags::IMMUTABLE).unwrap();
    pair.copies(&command);
}
