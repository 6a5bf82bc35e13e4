//! Deletions at the destination: what bars them, what they leave alone, and what is kept of them.
//!
//! The guards that a refused command shows at once are in `refusals.rs`; here are those that need a
//! destination with a history.

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use support::canary::Snapshot;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Volume, volume};
use support::oracle::{Overlook, assert_same, assert_same_but};
use support::tool;

/// A source with two directories of five files each, and its destination.
struct Stage {
    source: PathBuf,
    destination: PathBuf,
    state: PathBuf,
    volume: Box<dyn Volume>,
}

impl Stage {
    fn new(kind: FsType) -> Self {
        let volume = volume(kind, 320);
        let [source, destination, state] = ["source", "destination", "state"].map(|name| volume.directory(name));
        fill(&source);
        Self { source, destination, state, volume }
    }

    fn verb(&self, verb: &str) -> Copyd {
        Copyd::new(verb).arg("--json").arg(&self.source).arg(&self.destination).state_dir(&self.state)
    }

    fn sync(&self) -> Copyd {
        self.verb("sync")
    }
}

fn fill(root: &Path) {
    for directory in ["one", "two"] {
        fs::create_dir(root.join(directory)).unwrap();
        for i in 0..5 {
            fs::write(root.join(directory).join(format!("file-{i}")), format!("{directory} {i}\n")).unwrap();
        }
    }
}

/// A run that must end with `code` and leave the destination as it is.
fn moves_nothing(command: &Copyd, code: i32, destination: &Path) -> Run {
    let before = Snapshot::take(destination).unwrap();
    let run = command.run().expect(code);
    before.assert_unchanged(destination, "nothing was to be deleted");
    run
}

fn assert_said(run: &Run, words: &[&str]) {
    let said = run.words();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "it does not say {word:?}: {run}");
    }
}

fn bind(from: &Path, to: &Path) {
    tool("mount", "mount", &["--bind".as_ref(), from.as_os_str(), to.as_os_str()]);
}

#[test]
fn p4_t23_a_source_whose_mount_is_missing_deletes_nothing_whatever_lies_below_it() {
    let stage = Stage::new(FsType::Tmpfs);
    let point = stage.volume.directory("point");
    for (verb, flags) in [("sync", &["--delete"][..]), ("migrate", &["--delete"]), ("migrate", &[])] {
        let command = |verb: &str| {
            Copyd::new(verb).arg("--json").arg(&point).arg(&stage.destination).args(flags).state_dir(&stage.state)
        };
        bind(&stage.source, &point);
        Copyd::new("sync").arg(&point).arg(&stage.destination).arg("--delete").state_dir(&stage.state).run().expect(0);
        tool("mount", "umount", &[&point]);
        moves_nothing(&command(verb), 43, &stage.destination);
        fs::write(point.join("not mounted here"), b"left by somebody").unwrap();
        let run = moves_nothing(&command(verb), 43, &stage.destination);
        assert_said(&run, &["another share", "mounted"]);
        let run = moves_nothing(&command(verb).args(&["--allow-empty-source", "-n"]), 43, &stage.destination);
        assert_said(&run, &["another share"]);
        fs::remove_file(point.join("not mounted here")).unwrap();
    }
    // Another job's state knows nothing of it: whoever means it says so.
    bind(&stage.source, &point);
    fs::remove_file(stage.source.join("one/file-0")).unwrap();
    Copyd::new("sync").arg(&point).arg(&stage.destination).arg("--delete").state_dir(&stage.state).run().expect(0);
    assert_same(&stage.source, &stage.destination);
    tool("mount", "umount", &[&point]);
}

#[test]
fn a_destination_whose_mount_is_missing_is_not_taken_for_a_new_one() {
    let stage = Stage::new(FsType::Tmpfs);
    let share = volume(FsType::Tmpfs, 64);
    let (point, share) = (stage.volume.directory("point"), share.directory("share"));
    // The mount itself, and a directory below it that goes with it.
    for destination in [point.clone(), point.join("below")] {
        let command = |verb: &str, flags: &[&str]| {
            Copyd::new(verb).arg("--json").arg(&stage.source).arg(&destination).args(flags).state_dir(&stage.state)
        };
        bind(&share, &point);
        for verb in ["sync", "migrate"] {
            command(verb, &["--delete"]).run().expect(0);
        }
        tool("mount", "umount", &[&point]);
        for (verb, flags) in
            [("sync", &[][..]), ("sync", &["--delete"]), ("migrate", &["--keep-extra"]), ("migrate", &["-n"])]
        {
            let run = moves_nothing(&command(verb, flags), 43, &point);
            assert_said(&run, &["another file system", "mounted", "--new-destination"]);
        }
        // With what others left there it is no better, unless extras are to stay.
        fs::create_dir_all(&destination).unwrap();
        fs::write(destination.join("not mounted here"), b"left by somebody").unwrap();
        moves_nothing(&command("sync", &["--delete"]), 43, &point);
        fs::remove_file(destination.join("not mounted here")).unwrap();
        // Mounted again, it is the same job.
        bind(&share, &point);
        let run = command("sync", &["--delete"]).run().expect(0);
        assert_eq!(run.events()[0]["resumed"], true, "{run}");
        // Made again where it was, it is a fresh start.
        if destination != point {
            fs::rename(&destination, point.join("aside")).unwrap();
            command("sync", &[]).run().expect(0);
            fs::remove_dir_all(share.join("aside")).unwrap();
        }
        tool("mount", "umount", &[&point]);
        // Replaced on purpose: said once, and known from then on.
        command("sync", &["--new-destination"]).run().expect(0);
        assert_same(&stage.source, &destination);
        command("sync", &["--delete"]).run().expect(0);
        for entry in fs::read_dir(&point).unwrap().chain(fs::read_dir(&share).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        fs::remove_dir_all(&stage.state).unwrap();
        fs::create_dir(&stage.state).unwrap();
    }
}

#[test]
fn p4_t23_a_source_without_its_marker_or_with_another_one_deletes_nothing() {
    let stage = Stage::new(FsType::Tmpfs);
    let marker = stage.source.join("share-id");
    fs::write(&marker, b"0190b3c4-7d5e-7c3a-9f00-123456789abc\n").unwrap();
    let command = |flags: &[&str]| stage.sync().args(&["--delete", "--source-marker", "share-id"]).args(flags);
    command(&[]).run().expect(0);
    assert_same(&stage.source, &stage.destination);
    fs::remove_file(stage.source.join("one/file-0")).unwrap();

    let aside = stage.volume.path().join("aside");
    fs::rename(&marker, &aside).unwrap();
    for flags in [&[][..], &["-n"], &["--allow-empty-source"]] {
        let run = moves_nothing(&command(flags), 43, &stage.destination);
        assert_said(&run, &["does not have the marker share-id", "mounted"]);
    }
    for content in [&b"another share"[..], b""] {
        fs::write(&marker, content).unwrap();
        let run = moves_nothing(&command(&[]), 43, &stage.destination);
        assert_said(&run, &[if content.is_empty() { "no file of 1 to 4096 bytes" } else { "another share" }]);
    }
    std::os::unix::fs::symlink(&aside, stage.source.join("link")).unwrap();
    let linked = stage.sync().args(&["--delete", "--source-marker", "link"]);
    moves_nothing(&linked, 43, &stage.destination);
    fs::remove_file(stage.source.join("link")).unwrap();

    fs::rename(&aside, &marker).unwrap();
    let run = command(&[]).run().expect(0);
    assert_eq!((run.events()[0]["resumed"].clone(), run.summary().count("deleted")), (true.into(), 1), "{run}");
    assert_same(&stage.source, &stage.destination);
    stage.sync().args(&["--source-marker", "one/file-1"]).run().expect(1);
}

#[test]
fn p4_t22_a_source_that_is_exchanged_while_it_is_read_deletes_nothing() {
    let stage = Stage::new(FsType::Tmpfs);
    stage.sync().run().expect(0);
    fs::remove_file(stage.source.join("one/file-0")).unwrap();
    fs::write(stage.source.join("large"), vec![7; 3 << 20]).unwrap();
    let mut running = stage.sync().args(&["--bwlimit", "1M"]).spawn();
    let staged = |name: &str| name.starts_with(".copyd-");
    let begun = || fs::read_dir(&stage.destination).unwrap().any(|e| staged(&e.unwrap().file_name().to_string_lossy()));
    running.until("it copies", begun);
    let aside = stage.volume.path().join("aside");
    fs::rename(&stage.source, &aside).unwrap();
    fs::create_dir(&stage.source).unwrap();
    let run = running.wait().expect(43);
    assert_said(&run, &["no longer the directory", "nothing was deleted"]);
    assert!(stage.destination.join("one/file-0").exists(), "{run}");
}

#[test]
fn p4_a_directory_that_becomes_a_file_counts_as_deletions_and_stands_under_the_limit() {
    for flags in [&["--delete"][..], &[]] {
        let stage = Stage::new(FsType::Tmpfs);
        stage.sync().run().expect(0);
        fs::remove_dir_all(stage.source.join("two")).unwrap();
        fs::write(stage.source.join("two"), b"a file now").unwrap();
        let run = stage.sync().args(flags).args(&["--max-delete", "5"]).run().expect(25);
        assert_eq!(fs::read_dir(stage.destination.join("two")).unwrap().count(), 5, "{run}");
        let run = stage.sync().args(flags).args(&["--max-delete", "6"]).run().expect(0);
        assert_eq!(run.summary().count("deleted"), 6, "{run}");
        assert_same(&stage.source, &stage.destination);
    }
}

#[test]
fn p4_files_of_others_in_a_directory_that_the_source_lost_are_never_deleted_unasked() {
    let stage = Stage::new(FsType::Tmpfs);
    fs::create_dir_all(stage.source.join("two/deep/deeper")).unwrap();
    fs::write(stage.source.join("two/deep/deeper/own"), b"own").unwrap();
    stage.verb("migrate").run().expect(0);
    fs::write(stage.destination.join("two/deep/theirs"), b"theirs").unwrap();
    fs::remove_dir_all(stage.source.join("two")).unwrap();
    let run = moves_nothing(&stage.verb("migrate"), 43, &stage.destination);
    assert_said(&run, &["two/deep/theirs", "--keep-extra"]);

    let run = stage.verb("migrate").arg("--keep-extra").run().expect(0);
    assert_eq!(run.summary().count("deleted"), 7, "five files, and deeper/own with its directory: {run}");
    assert_eq!(fs::read(stage.destination.join("two/deep/theirs")).unwrap(), b"theirs");
    let left: Vec<_> = fs::read_dir(stage.destination.join("two")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["deep"], "{run}");
    let run = stage.verb("migrate").arg("--keep-extra").run().expect(0);
    assert_eq!(run.summary().count("deleted"), 0, "{run}");
    stage.verb("migrate").arg("--delete").run().expect(0);
    assert_same(&stage.source, &stage.destination);
}

#[test]
fn p4_a_directory_of_others_in_the_place_of_a_file_that_the_source_lost_stays() {
    for filter in [&[][..], &["--exclude", "*.keep"]] {
        let stage = Stage::new(FsType::Tmpfs);
        let sync = |flags: &[&str]| stage.sync().args(filter).args(flags);
        sync(&[]).run().expect(0);
        fs::remove_file(stage.destination.join("one/file-0")).unwrap();
        fs::create_dir(stage.destination.join("one/file-0")).unwrap();
        let theirs = stage.destination.join("one/file-0/theirs.keep");
        fs::write(&theirs, b"theirs").unwrap();
        fs::remove_file(stage.source.join("one/file-0")).unwrap();
        moves_nothing(&sync(&[]), 43, &stage.destination);
        let run = sync(&["--keep-extra"]).run().expect(0);
        assert_eq!(run.summary().count("deleted"), 0, "{run}");
        sync(&["--keep-extra"]).run().expect(0);
        assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
        let run = sync(&["--delete"]).run().expect(0);
        assert_eq!(theirs.exists(), !filter.is_empty(), "what the filters leave out stays: {run}");
    }
}

#[test]
fn p4_a_directory_of_the_jobs_own_that_holds_only_what_the_filters_leave_out_stays() {
    for replaced in [false, true] {
        let stage = Stage::new(FsType::Tmpfs);
        fs::create_dir(stage.source.join("three")).unwrap();
        let command = stage.sync().args(&["--exclude", "*.keep"]);
        command.run().expect(0);
        let theirs = stage.destination.join("three/local.keep");
        fs::write(&theirs, b"excluded").unwrap();
        fs::remove_dir(stage.source.join("three")).unwrap();
        if replaced {
            fs::write(stage.source.join("three"), b"a file now").unwrap();
        }
        let run = command.run().expect(if replaced { 23 } else { 0 });
        assert_eq!(fs::read(&theirs).unwrap(), b"excluded", "{run}");
        assert_eq!(run.summary().count("deleted"), 0, "{run}");
    }
}

#[test]
fn a_dry_run_forgets_nothing() {
    let stage = Stage::new(FsType::Tmpfs);
    stage.sync().run().expect(0);
    fs::write(stage.destination.join("two/theirs"), b"theirs").unwrap();
    fs::remove_dir_all(stage.source.join("two")).unwrap();
    fs::remove_file(stage.source.join("one/file-0")).unwrap();
    fs::remove_file(stage.destination.join("one/file-0")).unwrap();
    fs::create_dir_all(stage.destination.join("one/file-0/theirs")).unwrap();
    fs::write(stage.source.join("one/file-0"), b"one 0\n").unwrap();
    let keep = || stage.sync().arg("--keep-extra");
    let planned = moves_nothing(&keep().arg("-n"), 23, &stage.destination);
    let run = keep().run().expect(23);
    for field in ["deleted", "failed"] {
        assert_eq!(planned.summary().count(field), run.summary().count(field), "{planned}{run}");
    }
    assert_eq!(run.summary().count("deleted"), 5, "{run}");
    // Nor does it take anything off the list of what failed, or add to it.
    fs::remove_dir_all(stage.destination.join("one/file-0")).unwrap();
    keep().arg("-n").run().expect(0);
    let run = keep().arg("--retry-failed").run().expect(0);
    assert_eq!(run.summary().count("files_copied"), 1, "{run}");
}

#[test]
fn p4_what_neither_side_has_any_more_is_forgotten() {
    let stage = Stage::new(FsType::Tmpfs);
    fs::create_dir(stage.source.join("two/deep")).unwrap();
    fs::write(stage.source.join("two/deep/file"), b"own").unwrap();
    stage.sync().run().expect(0);
    for root in [&stage.source, &stage.destination] {
        fs::remove_file(root.join("one/file-0")).unwrap();
        fs::remove_file(root.join("two/deep/file")).unwrap();
    }
    // A directory that is made anew holds nothing that the job made before.
    fs::remove_dir_all(stage.destination.join("two")).unwrap();
    let run = stage.sync().run().expect(0);
    let verified = stage.verb("verify").run().expect(0);
    for digest in ["share_digest", "metadata_digest"] {
        assert_eq!(run.summary().text(digest), verified.summary().text(digest), "{run}{verified}");
    }
    for name in ["one/file-0", "two/deep/file"] {
        fs::write(stage.destination.join(name), b"theirs").unwrap();
        // The times of the directories that were changed above may be set by then.
        let run = stage.sync().run().expect(43);
        assert_said(&run, &[name, "no earlier run"]);
        stage.sync().arg("--keep-extra").run().expect(0);
        assert_eq!(fs::read(stage.destination.join(name)).unwrap(), b"theirs");
        fs::remove_file(stage.destination.join(name)).unwrap();
    }
}

/// More entries than the rows of one directory that a run holds at a time.
const CROWD: usize = 10_000;

#[test]
fn p4_in_a_crowded_directory_each_entry_meets_what_the_catalog_knows_of_it() {
    let stage = Stage::new(FsType::Tmpfs);
    let name = |number: usize| format!("crowd/{number:05}");
    fs::create_dir(stage.source.join("crowd")).unwrap();
    for number in 0..CROWD {
        fs::write(stage.source.join(name(number)), number.to_le_bytes()).unwrap();
    }
    stage.sync().run().expect(0);
    let run = stage.sync().run().expect(0);
    assert_eq!((run.summary().count("files_copied"), run.summary().count("deleted")), (0, 0), "{run}");
    let everywhere = |of: usize| (of..CROWD).step_by(1000);
    for number in everywhere(1) {
        fs::write(stage.source.join(name(number)), b"changed").unwrap();
    }
    for (of, roots) in [
        (2, &[&stage.source, &stage.destination][..]),
        (3, &[&stage.source]),
        (4, &[&stage.destination]),
        (5, &[&stage.destination]),
    ] {
        for (number, root) in everywhere(of).flat_map(|number| roots.iter().map(move |root| (number, root))) {
            fs::remove_file(root.join(name(number))).unwrap();
        }
    }
    // What the job made is gone there; what stands in its place is not the job's.
    for number in everywhere(5) {
        fs::write(stage.destination.join(name(number)), b"theirs").unwrap();
    }
    let run = stage.sync().run().expect(0);
    assert_eq!((run.summary().count("files_copied"), run.summary().count("deleted")), (30, 10), "{run}");
    assert_same(&stage.source, &stage.destination);
    let verified = stage.verb("verify").run().expect(0);
    for digest in ["share_digest", "metadata_digest"] {
        assert_eq!(run.summary().text(digest), verified.summary().text(digest), "{run}{verified}");
    }
    // A name that was forgotten is anybody's; so is one that never was the job's.
    for theirs in [name(2), name(9002), "crowd/!".into(), "crowd/~".into(), "crowd/04999x".into()] {
        fs::write(stage.destination.join(&theirs), b"theirs").unwrap();
        let run = moves_nothing(&stage.sync(), 43, &stage.destination);
        assert_said(&run, &[&theirs, "no earlier run"]);
        fs::remove_file(stage.destination.join(&theirs)).unwrap();
    }
    // The whole directory goes, entry by entry where others have put something into it.
    fs::write(stage.destination.join("crowd/05000x"), b"theirs").unwrap();
    fs::remove_dir_all(stage.source.join("crowd")).unwrap();
    let run = moves_nothing(&stage.sync(), 43, &stage.destination);
    assert_said(&run, &["crowd/05000x"]);
    let run = stage.sync().arg("--keep-extra").run().expect(0);
    assert_eq!(run.summary().count("deleted"), CROWD as u64 - 20, "{run}");
    let left: Vec<_> = fs::read_dir(stage.destination.join("crowd")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["05000x"]);
}

#[test]
fn p4_a_directory_of_others_in_the_place_of_a_file_is_replaced_only_with_delete() {
    let stage = Stage::new(FsType::Tmpfs);
    stage.sync().run().expect(0);
    fs::remove_file(stage.destination.join("one/file-0")).unwrap();
    fs::create_dir(stage.destination.join("one/file-0")).unwrap();
    fs::write(stage.destination.join("one/file-0/theirs"), b"theirs").unwrap();
    moves_nothing(&stage.sync(), 43, &stage.destination);
    let run = stage.sync().arg("--keep-extra").run().expect(23);
    assert_eq!(fs::read(stage.destination.join("one/file-0/theirs")).unwrap(), b"theirs", "{run}");
    stage.sync().arg("--delete").run().expect(0);
    assert_same(&stage.source, &stage.destination);
}

#[test]
fn p4_what_the_filters_leave_out_survives_below_a_directory_that_is_deleted() {
    let stage = Stage::new(FsType::Tmpfs);
    let command = stage.sync().args(&["--delete", "--exclude", "*.keep"]);
    command.run().expect(0);
    fs::write(stage.destination.join("two/local.keep"), b"excluded").unwrap();
    fs::remove_dir_all(stage.source.join("two")).unwrap();
    let run = command.run().expect(0);
    assert_eq!(fs::read(stage.destination.join("two/local.keep")).unwrap(), b"excluded", "{run}");
    assert_eq!(fs::read_dir(stage.destination.join("two")).unwrap().count(), 1, "{run}");
    let overlook = Overlook { root_names: vec![b"two".to_vec()], ..Overlook::default() };
    assert_same_but(&stage.source, &stage.destination, &overlook);
}

#[test]
fn entries_whose_source_goes_while_a_migration_runs_are_removed_in_its_next_pass() {
    let stage = Stage::new(FsType::Tmpfs);
    for i in 0..3 {
        fs::write(stage.source.join(format!("large-{i}")), vec![i; 2 << 20]).unwrap();
    }
    let running = stage.verb("migrate").args(&["--bwlimit", "2M", "--jobs", "1"]).spawn();
    thread::sleep(Duration::from_millis(1200));
    fs::remove_dir_all(stage.source.join("two")).unwrap();
    fs::write(stage.source.join("large-2"), vec![9; 2 << 20]).unwrap();
    let run = running.wait().expect(0);
    assert!(run.summary().count("passes") > 1, "{run}");
    assert_same(&stage.source, &stage.destination);
}

#[test]
fn a_retry_looks_only_at_what_failed_takes_off_what_succeeds_and_deletes_nothing() {
    let stage = Stage::new(FsType::Tmpfs);
    fs::write(stage.source.join("free"), b"free").unwrap();
    let blocked = stage.destination.join("blocked");
    for name in ["blocked", "blocked/deep"] {
        fs::create_dir(stage.source.join(name)).unwrap();
    }
    for name in ["first", "second", "deep/third"] {
        fs::write(stage.source.join("blocked").join(name), name).unwrap();
    }
    fs::hard_link(stage.source.join("free"), stage.source.join("blocked/link")).unwrap();
    let refused = Copyd::new("sync").arg(&stage.source).arg(&stage.destination).arg("--retry-failed");
    let run = refused.state_dir(&stage.state).run().expect(43);
    assert_said(&run, &["no earlier run"]);

    // Directories of others stand where the files are to come, and stay.
    for name in ["first", "link", "deep/third"] {
        fs::create_dir_all(blocked.join(name).join("theirs")).unwrap();
    }
    let run = stage.sync().arg("--keep-extra").run().expect(23);
    assert_eq!(run.summary().count("failed"), 3, "{run}");
    let retry = || stage.sync().args(&["--keep-extra", "--retry-failed"]).run();
    let run = retry().expect(23);
    assert_eq!(run.summary().count("failed"), 3, "{run}");

    // What is not on the list is left alone, and gone entries are not deleted.
    fs::write(stage.source.join("one/file-0"), b"changed, but never failed").unwrap();
    fs::remove_file(stage.source.join("two/file-0")).unwrap();
    fs::remove_dir_all(blocked.join("first")).unwrap();
    fs::remove_dir_all(blocked.join("link")).unwrap();
    let run = retry().expect(23);
    assert_eq!((run.summary().count("failed"), run.summary().count("files_copied")), (1, 1), "{run}");
    assert_eq!(fs::read(stage.destination.join("one/file-0")).unwrap(), b"one 0\n", "{run}");
    assert!(stage.destination.join("two/file-0").exists(), "{run}");
    assert_eq!(fs::read(blocked.join("first")).unwrap(), b"first");
    let inode = |name: &str| fs::metadata(stage.destination.join(name)).unwrap().ino();
    assert_eq!(inode("free"), inode("blocked/link"), "a name is only as good as its link");

    // Gone on both sides is settled too.
    fs::remove_dir_all(stage.source.join("blocked/deep")).unwrap();
    fs::remove_dir_all(blocked.join("deep")).unwrap();
    let run = retry().expect(0);
    assert_eq!(run.summary().count("failed"), 0, "{run}");
    let run = retry().expect(0);
    assert_eq!(run.summary().count("entries"), 1, "nothing is left on the list: {run}");
    stage.sync().arg("--delete").run().expect(0);
    assert_same(&stage.source, &stage.destination);
}

#[test]
fn a_retry_copies_what_was_hot() {
    let stage = Stage::new(FsType::Tmpfs);
    let hot = stage.source.join("hot");
    fs::write(&hot, vec![1; 3 << 20]).unwrap();
    let writer = {
        let (hot, stop) = (hot.clone(), stage.volume.path().join("stop"));
        thread::spawn(move || {
            let file = fs::File::options().write(true).open(hot).unwrap();
            while !stop.exists() {
                file.write_at(b"on", 5).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let run = stage.sync().args(&["--bwlimit", "8M"]).run().expect(23);
    fs::write(stage.volume.path().join("stop"), b"").unwrap();
    writer.join().unwrap();
    assert_eq!(run.summary().count("hot"), 1, "{run}");
    let named = run.events().iter().any(|e| e["event"] == "entry_failed" && e["class"] == "hot" && e["name"] == "hot");
    assert!(named, "{run}");
    let run = stage.sync().arg("--retry-failed").run().expect(0);
    assert_eq!((run.summary().count("files_copied"), run.summary().count("hot")), (1, 0), "{run}");
    assert_same(&stage.source, &stage.destination);
}
