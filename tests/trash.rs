//! The trash: what a replica deletes or replaces can be had back as it was.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::IFlags;

use support::canary::Snapshot;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Volume, volume};
use support::oracle::{Overlook, assert_same_but};
use support::trees::set_flag;
use support::{Rng, tool};

/// A source, its destination, and a copy of the source as it was at first.
struct Stage {
    source: PathBuf,
    destination: PathBuf,
    original: PathBuf,
    state: PathBuf,
    volume: Box<dyn Volume>,
}

impl Stage {
    fn new(kind: FsType, fill: impl FnOnce(&Path)) -> Self {
        let volume = volume(kind, 320);
        let [source, destination, state] = ["source", "destination", "state"].map(|name| volume.directory(name));
        fill(&source);
        let original = volume.path().join("original");
        tool("coreutils", "cp", &["-a".as_ref(), source.as_os_str(), original.as_os_str()]);
        let made = Self { source, destination, original, state, volume };
        made.sync(&[]).run().expect(0);
        made
    }

    fn sync(&self, flags: &[&str]) -> Copyd {
        let command = Copyd::new("sync").arg("--json").arg(&self.source).arg(&self.destination);
        command.state_dir(&self.state).args(flags)
    }

    fn kept(&self) -> Run {
        self.sync(&["--delete", "--trash", "30d"]).run().expect(0)
    }

    fn trash(&self, verb: &str, flags: &[&str]) -> Copyd {
        Copyd::new("trash").arg(verb).arg(&self.destination).args(flags)
    }

    /// Lines of `trash list`, by their fields.
    fn listed(&self) -> Vec<Vec<String>> {
        let run = self.trash("list", &[]).run().expect(0);
        run.out_text().lines().map(|line| line.split('\t').map(ToOwned::to_owned).collect()).collect()
    }

    /// Judges the destination, whatever its trash holds.
    fn is(&self, expected: &Path) {
        let overlook = Overlook { root_names: vec![b".copyd-trash".to_vec()], ..Overlook::default() };
        assert_same_but(expected, &self.destination, &overlook);
    }
}

fn small(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    for name in ["top", "a/one", "a/two", "a/b/three"] {
        fs::write(root.join(name), name).unwrap();
    }
}

/// A tree of directories, files, links of both kinds and attributes. Names may end up in any directory.
fn grow(root: &Path, rng: &mut Rng) {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for i in 0..40 + rng.below(60) {
        let place = &directories[usize::try_from(rng.below(directories.len() as u64)).unwrap()];
        let path = place.join(format!("n{i}"));
        match rng.below(10) {
            0..=2 => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(if rng.below(2) == 0 { 0o750 } else { 0o2775 }))
                    .unwrap();
                directories.push(path);
            }
            3 => symlink(format!("target-{i}"), &path).unwrap(),
            4 | 5 if !files.is_empty() => {
                let from = &files[usize::try_from(rng.below(files.len() as u64)).unwrap()];
                fs::hard_link(from, &path).unwrap();
            }
            _ => {
                let size = usize::try_from(rng.below(20_000)).unwrap();
                fs::write(&path, rng.bytes(size)).unwrap();
                chown(&path, Some(1000 + u32::try_from(i).unwrap()), Some(7)).unwrap();
                rustix::fs::setxattr(&path, "user.tag", &rng.bytes(9), rustix::fs::XattrFlags::empty()).unwrap();
                files.push(path);
            }
        }
    }
}

fn entries(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Deletes, rewrites and exchanges types. No name is new but below what was exchanged.
fn ravage(root: &Path, rng: &mut Rng) {
    for path in entries(root) {
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match rng.below(12) {
            0 | 1 => remove(&path),
            2 => {
                remove(&path);
                fs::write(&path, rng.bytes(300)).unwrap();
            }
            3 => {
                remove(&path);
                symlink("elsewhere", &path).unwrap();
            }
            // Metadata set in place and new names are no deletions: nothing is kept of them.
            4 if !fs::symlink_metadata(&path).unwrap().is_dir() => {
                remove(&path);
                fs::create_dir(&path).unwrap();
                fs::write(path.join("below"), rng.bytes(50)).unwrap();
            }
            // In place: every name of the inode.
            5 if fs::symlink_metadata(&path).unwrap().is_file() => fs::write(&path, rng.bytes(777)).unwrap(),
            _ => {}
        }
    }
    // An empty source deletes nothing.
    if entries(root).is_empty() {
        fs::write(root.join("n0"), b"the last").unwrap();
    }
}

/// How many trees, and the first seed: a person sets the one to thousands.
fn trees(merged: u64) -> (u64, u64) {
    let asked = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    (asked("COPYD_TRASH_TREES", merged), asked("COPYD_SEED", 1))
}

fn restores_random_trees(kind: FsType, merged: u64) {
    let (count, first) = trees(merged);
    for seed in first..first + count {
        let mut rng = Rng::new(seed);
        println!("seed {seed} on {}", kind.word());
        let stage = Stage::new(kind, |source| grow(source, &mut rng));
        ravage(&stage.source, &mut rng);
        stage.kept();
        stage.is(&stage.source);
        let run = stage.trash("restore", &["--overwrite"]).run();
        assert_eq!(run.status.code(), Some(0), "seed {seed}: {run}");
        // What was new at the source stays; here that is a name that only an empty tree got.
        stage.is(&stage.original);
    }
}

#[test]
fn t34_restoring_everything_gives_random_trees_back_as_they_were_on_tmpfs() {
    restores_random_trees(FsType::Tmpfs, 24);
}

#[test]
fn t34_restoring_everything_gives_random_trees_back_as_they_were_on_ext4() {
    restores_random_trees(FsType::Ext4, 4);
}

#[test]
fn t34_restoring_everything_gives_random_trees_back_as_they_were_on_xfs() {
    restores_random_trees(FsType::Xfs, 4);
}

#[test]
fn t34_restoring_everything_gives_random_trees_back_as_they_were_on_btrfs() {
    restores_random_trees(FsType::Btrfs, 4);
}

#[test]
fn t34_what_is_kept_is_the_same_inode_in_a_private_place_and_is_listed() {
    let stage = Stage::new(FsType::Tmpfs, small);
    let inode = |path: &str| fs::symlink_metadata(stage.destination.join(path)).unwrap().ino();
    let (one, two, b) = (inode("a/one"), inode("a/two"), inode("a/b"));
    fs::remove_file(stage.source.join("a/one")).unwrap();
    fs::write(stage.source.join("a/two"), b"another content").unwrap();
    fs::remove_dir_all(stage.source.join("a/b")).unwrap();
    let run = stage.kept();
    assert_eq!(run.summary().count("deleted"), 3, "{run}");
    let trash = stage.destination.join(".copyd-trash");
    assert_eq!(fs::metadata(&trash).unwrap().mode() & 0o7777, 0o700);
    let generation = fs::read_dir(&trash).unwrap().next().unwrap().unwrap().path();
    let kept = |path: &str| fs::symlink_metadata(generation.join("tree").join(path)).unwrap().ino();
    assert_eq!((kept("a/one"), kept("a/two"), kept("a/b")), (one, two, b));
    assert_eq!(fs::read(generation.join("tree/a/b/three")).unwrap(), b"a/b/three");
    let mut listed: Vec<_> = stage.listed().into_iter().map(|line| line[1..].join(" ")).collect();
    listed.sort();
    assert_eq!(listed, ["deleted directory a/b", "deleted file a/one", "replaced file a/two"]);
}

#[test]
fn t34_the_trash_is_no_part_of_the_share_for_guards_verify_digests_and_replication() {
    let stage = Stage::new(FsType::Tmpfs, small);
    fs::remove_file(stage.source.join("a/one")).unwrap();
    let kept = stage.kept();
    let again = stage.sync(&["--delete", "--trash", "30d"]).run().expect(0);
    assert_eq!(again.summary().count("deleted"), 0, "{again}");
    assert_eq!(again.summary().text("share_digest"), kept.summary().text("share_digest"));
    // Without the flags neither the guard nor a deletion sees it.
    stage.sync(&[]).run().expect(0);
    stage.sync(&["--delete"]).run().expect(0);
    assert_eq!(stage.listed().len(), 1);
    Copyd::new("verify").arg(&stage.source).arg(&stage.destination).run().expect(0);
    // A replica of the replica has none, and says so.
    let second = stage.volume.directory("second");
    let command = Copyd::new("sync").arg("--json").arg(&stage.destination).arg(&second).state_dir(&stage.state);
    let run = command.run().expect(0);
    assert!(run.out_text().contains("never replicated"), "{run}");
    assert!(!second.join(".copyd-trash").exists());
}

#[test]
fn t34_restore_overwrites_only_when_told_and_takes_single_paths_and_times() {
    let stage = Stage::new(FsType::Tmpfs, small);
    fs::write(stage.source.join("a/two"), b"second").unwrap();
    stage.kept();
    thread::sleep(Duration::from_millis(5));
    fs::write(stage.source.join("a/two"), b"the third").unwrap();
    fs::remove_dir_all(stage.source.join("a/b")).unwrap();
    stage.kept();
    let two = stage.destination.join("a/two");

    let before = Snapshot::take(&stage.destination).unwrap();
    stage.trash("restore", &["a/two"]).run().expect(23);
    stage.trash("restore", &["no/such"]).run().expect(23);
    stage.trash("restore", &["../source/top"]).run().expect(1);
    stage.trash("restore", &["a/two", "--at", "1999"]).run().expect(1);
    before.assert_unchanged(&stage.destination, "nothing was told to be overwritten");

    stage.trash("restore", &["a/two", "--overwrite"]).run().expect(0);
    assert_eq!(fs::read(&two).unwrap(), b"second", "the newest that is not the present one");
    let times: Vec<String> =
        stage.listed().into_iter().filter(|line| line[3] == "a/two").map(|l| l[0].clone()).collect();
    let [aside, oldest] = times.as_slice() else { panic!("{times:?}") };
    stage.trash("restore", &["a/two", "--overwrite", "--at", oldest]).run().expect(0);
    assert_eq!(fs::read(&two).unwrap(), b"a/two");
    stage.trash("restore", &["a/two", "--overwrite", "--at", aside]).run().expect(0);
    assert_eq!(fs::read(&two).unwrap(), b"the third");

    // A parent that is gone is made as it was.
    fs::remove_dir_all(stage.destination.join("a/b")).ok();
    stage.trash("restore", &["a/b/three"]).run().expect(0);
    assert_eq!(fs::read(stage.destination.join("a/b/three")).unwrap(), b"a/b/three");
    let mode = |root: &Path| fs::metadata(root.join("a/b")).unwrap().mode();
    assert_eq!(mode(&stage.destination), mode(&stage.original));
}

#[test]
fn t34_what_is_older_than_asked_expires_at_the_next_run_and_by_command() {
    let stage = Stage::new(FsType::Tmpfs, small);
    let keep = |time: &str| stage.sync(&["--delete", "--trash", time]).run().expect(0);
    for (name, time) in [("a/one", "1s"), ("a/two", "1h")] {
        fs::remove_file(stage.source.join(name)).unwrap();
        keep(time);
    }
    assert_eq!(stage.listed().len(), 2);
    thread::sleep(Duration::from_millis(1100));
    stage.trash("expire", &[]).run().expect(0);
    assert_eq!(stage.listed().iter().map(|line| &line[3]).collect::<Vec<_>>(), ["a/two"]);
    keep("1s");
    assert_eq!(stage.listed(), Vec::<Vec<String>>::new());
    assert!(!stage.destination.join(".copyd-trash").exists());
    stage.is(&stage.source);
    stage.sync(&["--trash", "0"]).run().expect(1);
}

#[test]
fn t34_immutable_entries_are_kept_with_their_flags_and_come_back_on_ext4_and_xfs() {
    for kind in [FsType::Ext4, FsType::Xfs] {
        let stage = Stage::new(kind, small);
        fs::write(stage.destination.join("a/theirs"), b"immutable").unwrap();
        fs::create_dir(stage.destination.join("a/locked")).unwrap();
        fs::write(stage.destination.join("a/locked/in"), b"in").unwrap();
        for name in ["a/two", "a/theirs", "a/locked/in", "a/locked", "a", ""] {
            set_flag(&stage.destination.join(name), IFlags::IMMUTABLE).unwrap();
        }
        fs::write(stage.source.join("a/two"), b"another content").unwrap();
        stage.kept();
        stage.is(&stage.source);
        stage.trash("restore", &["--overwrite"]).run().expect(0);
        let flags = |name: &str| {
            let file = fs::File::open(stage.destination.join(name)).unwrap();
            rustix::fs::ioctl_getflags(&file).unwrap() & IFlags::IMMUTABLE
        };
        for name in ["a/two", "a/theirs", "a/locked/in", "a/locked"] {
            assert_eq!(flags(name), IFlags::IMMUTABLE, "{name} on {}", kind.word());
        }
        assert_eq!(fs::read(stage.destination.join("a/two")).unwrap(), b"a/two");
        tool("e2fsprogs", "chattr", &["-R".as_ref(), "-i".as_ref(), stage.destination.as_os_str()]);
    }
}

#[test]
fn t34_what_no_rename_can_reach_fails_by_name_and_is_not_deleted_for_good_on_btrfs() {
    let stage = Stage::new(FsType::Btrfs, small);
    let below = stage.destination.join("sub");
    tool("btrfs-progs", "btrfs", &["subvolume".as_ref(), "create".as_ref(), below.as_os_str()]);
    fs::create_dir(stage.source.join("sub")).unwrap();
    fs::write(stage.source.join("sub/changed"), b"new content").unwrap();
    for name in ["changed", "extra"] {
        fs::write(below.join(name), b"old").unwrap();
    }
    let run = stage.sync(&["--delete", "--trash", "30d"]).run().expect(23);
    for name in ["changed", "extra"] {
        assert_eq!(fs::read(below.join(name)).unwrap(), b"old", "{name}: {run}");
        assert!(run.err_text().contains(&format!("sub/{name}: keep it in the trash")), "{run}");
    }
    stage.sync(&["--delete"]).run().expect(0);
    stage.is(&stage.source);
}

#[test]
fn t34_a_trash_that_is_a_tenant_s_own_is_neither_used_nor_restored_from() {
    let stage = Stage::new(FsType::Tmpfs, small);
    let trash = stage.destination.join(".copyd-trash");
    let plant: [&dyn Fn(); 3] = [
        &|| symlink(stage.volume.path(), &trash).unwrap(),
        &|| {
            fs::create_dir(&trash).unwrap();
            fs::set_permissions(&trash, Permissions::from_mode(0o777)).unwrap();
        },
        &|| {
            fs::create_dir(&trash).unwrap();
            fs::set_permissions(&trash, Permissions::from_mode(0o700)).unwrap();
            chown(&trash, Some(1000), None).unwrap();
        },
    ];
    fs::remove_file(stage.source.join("a/one")).unwrap();
    for plant in plant {
        plant();
        stage.sync(&["--delete", "--trash", "30d"]).run().expect(23);
        assert!(stage.destination.join("a/one").exists());
        let run = stage.trash("restore", &[]).run();
        assert!([Some(43), Some(11)].contains(&run.status.code()), "{run}");
        remove(&trash);
    }
}

#[test]
fn the_verbs_print_json_lines_and_a_summary_that_is_the_last() {
    let stage = Stage::new(FsType::Tmpfs, small);
    fs::remove_file(stage.source.join("a/one")).unwrap();
    fs::write(stage.source.join("top"), b"changed").unwrap();
    stage.kept();
    let run = stage.trash("list", &["--json"]).run().expect(0);
    let of =
        |path: &str| run.events().into_iter().find(|e| e["name"] == path).unwrap_or_else(|| panic!("{path}: {run}"));
    assert_eq!((of("a/one")["event"].as_str(), of("a/one")["why"].as_str()), (Some("trashed"), Some("deleted")));
    assert_eq!((of("top")["kind"].as_str(), of("top")["why"].as_str()), (Some("file"), Some("replaced")));
    assert!(of("top")["job"].is_string() && of("top")["time"].is_string(), "{run}");
    assert_eq!((run.summary().text("kind"), run.summary().count("listed")), ("trash_list", 2), "{run}");

    let run = stage.trash("restore", &["--json"]).run().expect(23);
    let summary = run.summary();
    assert_eq!((summary.count("restored"), summary.count("not_restored")), (1, 1), "{run}");
    assert_eq!((summary.text("outcome"), summary.count("exit_code")), ("partial", 23), "{run}");
    let fate = |path: &str| run.events().into_iter().find(|e| e["name"] == path).map(|e| e["fate"].clone());
    assert_eq!((fate("a/one").unwrap(), fate("top").unwrap()), ("restored".into(), "in_the_way".into()), "{run}");

    let run = stage.trash("expire", &["--older-than", "0", "--json"]).run().expect(0);
    assert_eq!((run.summary().text("kind"), run.summary().count("generations")), ("trash_expire", 1), "{run}");
}

#[test]
fn a_destination_that_is_missing_is_named_and_nothing_is_said_of_its_parent() {
    let stage = Stage::new(FsType::Tmpfs, small);
    remove(&stage.destination);
    for verb in ["list", "restore", "expire"] {
        let run = stage.trash(verb, &["--json"]).run().expect(11);
        assert!(run.err_text().contains("no such directory") && !run.err_text().contains("parent"), "{verb}: {run}");
        assert_eq!(run.summary().0["error"]["class"], "root", "{verb}: {run}");
        assert_eq!(run.summary().text("kind"), format!("trash_{verb}"), "{run}");
    }
}

#[test]
fn t34_a_run_that_is_killed_loses_nothing_of_what_it_kept() {
    let stage = Stage::new(FsType::Tmpfs, |source| {
        for i in 0..400 {
            fs::write(source.join(format!("f{i}")), format!("content {i}")).unwrap();
        }
    });
    for i in 0..400 {
        let path = stage.source.join(format!("f{i}"));
        if i % 2 == 0 { fs::remove_file(&path).unwrap() } else { fs::write(&path, b"replaced").unwrap() }
    }
    let mut rng = Rng::new(34);
    for _ in 0..6 {
        let mut running = stage.sync(&["--delete", "--trash", "30d"]).spawn();
        thread::sleep(Duration::from_millis(20 + rng.below(120)));
        if running.runs() {
            running.signal(rustix::process::Signal::KILL);
        }
        drop(running);
    }
    stage.kept();
    stage.is(&stage.source);
    // Each old content is in the trash, in whichever generation; the oldest wins.
    let times: Vec<String> = stage.listed().into_iter().map(|line| line[0].clone()).collect();
    let mut distinct = times.clone();
    distinct.dedup();
    for time in distinct {
        let output = Command::new(env!("CARGO_BIN_EXE_copyd"))
            .args(["trash", "restore", "--overwrite", "--at", &time])
            .arg(&stage.destination)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for i in 0..400 {
        let found = fs::read(stage.destination.join(format!("f{i}"))).unwrap();
        assert_eq!(found, format!("content {i}").as_bytes(), "f{i}");
    }
}
