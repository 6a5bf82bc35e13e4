//! Trees made to break a copier: mounts and loops in them, names linked to what lies outside, crowds of
//! links, entries and attributes, holes as large as a file can be, files that never end. The numbers
//! are those of `docs/reliability.md`.

mod rig;
mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;

use rig::plan::{Fault, Kind};
use rig::stage::{Stage, names};
use support::canary::{Canary, Snapshot};
use support::copyd::{Copyd, Run};
use support::crash::number;
use support::mounts::{FsType, Volume, volume};
use support::oracle::assert_same;
use support::{Rng, tool, trees};

/// A source and a destination on file systems of their own, and a canary beside the source.
struct Pair {
    source: PathBuf,
    destination: PathBuf,
    canary: Canary,
    volumes: [Box<dyn Volume>; 2],
}

impl Pair {
    fn new(from: FsType, to: FsType, size_mib: u64) -> Self {
        let volumes = [volume(from, size_mib), volume(to, size_mib)];
        let (source, destination) = (volumes[0].directory("source"), volumes[1].directory("destination"));
        let canary = Canary::plant(volumes[0].path());
        Self { source, destination, canary, volumes }
    }

    fn migrate(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination)
    }
}

/// The entries that failed with a class.
fn failed_as(run: &Run, class: &str) -> Vec<String> {
    let failed = |event: &&Value| event["event"] == "entry_failed" && event["class"] == class;
    run.events().iter().filter(failed).map(|event| event["name"].as_str().unwrap_or("?").to_owned()).collect()
}

fn bind(what: &Path, at: &Path) {
    tool("mount", "mount", &["--bind".as_ref(), what.as_os_str(), at.as_os_str()]);
}

// ---------------------------------------------------------------------------------------------
// T15: a mount or a loop appears in the tree.

#[test]
fn t15_a_tree_that_is_mounted_in_itself_ends_and_the_mount_is_named() {
    for one_file_system in [false, true] {
        let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 64);
        for name in ["loop", "outside", "dir"] {
            fs::create_dir(pair.source.join(name)).unwrap();
        }
        fs::write(pair.source.join("dir/file"), b"file").unwrap();
        fs::write(pair.source.join("over-file"), b"").unwrap();
        bind(&pair.source, &pair.source.join("loop"));
        bind(pair.canary.path(), &pair.source.join("outside"));
        bind(&pair.canary.path().join("secret"), &pair.source.join("over-file"));
        let command = pair.migrate();
        let command = if one_file_system { command.arg("-x") } else { command };
        let run = command.run().expect(23);
        let mut named = failed_as(&run, "mountpoint");
        named.sort_unstable();
        assert_eq!(named, ["loop", "outside", "over-file"], "{run}");
        assert_eq!(run.summary().count("failed"), 3, "{run}");
        assert_eq!(fs::read(pair.destination.join("dir/file")).unwrap(), b"file");
        let excluded = ["--exclude=/loop", "--exclude=/outside", "--exclude=/over-file"];
        command.args(&excluded).state_dir(&pair.volumes[1].directory("state")).arg("--keep-extra").run().expect(0);
        pair.canary.assert_untouched();
    }
}

#[test]
fn t15_a_subvolume_is_entered_or_with_x_left_out() {
    let pair = Pair::new(FsType::Btrfs, FsType::Tmpfs, 128);
    let inner = pair.source.join("inner");
    tool("btrfs-progs", "btrfs", &["subvolume", "create", &inner.to_string_lossy()]);
    fs::write(inner.join("file"), b"file").unwrap();
    pair.migrate().run().expect(0);
    assert_same(&pair.source, &pair.destination);
    let other = pair.volumes[1].directory("other");
    let run = Copyd::migrate(&pair.source, &other).arg("-x").run().expect(0);
    assert_eq!(run.summary().count("ignored"), 1, "{run}");
    assert!(!other.join("inner").exists(), "{run}");
}

#[test]
fn t15_a_mount_that_appears_while_it_runs_is_not_entered_on_either_side() {
    for at_source in [true, false] {
        let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 128);
        fs::create_dir_all(pair.source.join("late/directory")).unwrap();
        fs::write(pair.source.join("late/file"), b"file").unwrap();
        fs::write(pair.source.join("busy"), Rng::new(5).bytes(8 << 20)).unwrap();
        if !at_source {
            // The directory stands there already.
            fs::create_dir(pair.destination.join("late")).unwrap();
        }
        let command = pair.migrate().args(&["--bwlimit", "16M", "--delete"]);
        let mut running = command.spawn();
        let growing = || {
            let staging = support::crash::staging(&pair.destination);
            staging.is_some_and(|staging| staging.join("lane00").exists())
        };
        running.until("the staging directory stands", growing);
        bind(pair.canary.path(), &(if at_source { &pair.source } else { &pair.destination }).join("late"));
        // What it has read by now has changed: so it makes another pass.
        File::options().write(true).open(pair.source.join("busy")).unwrap().write_all_at(b"again", 0).unwrap();
        fs::write(pair.source.join(if at_source { "new" } else { "busy-too" }), b"new").unwrap();
        let run = running.wait();
        assert!(matches!(run.status.code(), Some(0 | 23)), "{run}");
        pair.canary.assert_untouched();
        assert!(!pair.destination.join("late/secret").exists() || !at_source, "{run}");
        let run = command.run().expect(23);
        let class = failed_as(&run, "mountpoint");
        assert!(class.iter().any(|name| name == "late"), "{run}");
        pair.canary.assert_untouched();
    }
}

#[test]
fn t15_a_server_whose_directory_holds_itself_is_not_followed_for_ever() {
    let stage = Stage::new();
    fs::create_dir_all(stage.source_backing.join("dir/inner")).unwrap();
    fs::write(stage.source_backing.join("dir/file"), b"file").unwrap();
    let [outer, inner] = ["dir", "dir/inner"].map(|path| fs::metadata(stage.source_backing.join(path)).unwrap().ino());
    stage.source.plan().on(move |call| {
        let turns = call.kind == Kind::Lookup && call.inode == outer && call.name == b"inner" && inner != outer;
        turns.then_some(Fault::Becomes(outer))
    });
    let run = stage.command("sync", "threads").run().expect(23);
    assert_eq!(names(&run.events(), "entry_failed"), [b"dir/inner".to_vec()], "{run}");
    assert_eq!(fs::read(stage.destination_backing.join("dir/file")).unwrap(), b"file", "{run}");
}

// ---------------------------------------------------------------------------------------------
// T16: a name at the destination is linked to a victim outside.

#[test]
fn t16_what_is_linked_to_a_name_at_the_destination_stays_as_it_is() {
    for kind in [FsType::Tmpfs, FsType::Ext4] {
        let pair = Pair::new(FsType::Tmpfs, kind, 64);
        let outside = pair.volumes[1].directory("outside");
        for name in ["replaced", "shrunk", "retimed", "rechmoded", "annotated", "deleted", "becomes-directory"] {
            fs::write(pair.source.join(name), format!("{name}: the same on both sides")).unwrap();
        }
        let command = pair.migrate().arg("--delete");
        command.run().expect(0);
        for entry in fs::read_dir(&pair.destination).unwrap().flatten() {
            fs::hard_link(entry.path(), outside.join(entry.file_name())).unwrap();
        }
        fs::write(pair.source.join("replaced"), b"other content").unwrap();
        fs::write(pair.source.join("shrunk"), b"").unwrap();
        File::open(pair.source.join("retimed")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::set_permissions(pair.source.join("rechmoded"), fs::Permissions::from_mode(0o4711)).unwrap();
        trees::set_xattr(&pair.source.join("annotated"), "user.note", b"new").unwrap();
        fs::remove_file(pair.source.join("deleted")).unwrap();
        fs::remove_file(pair.source.join("becomes-directory")).unwrap();
        fs::create_dir(pair.source.join("becomes-directory")).unwrap();
        let victims = Snapshot::take(&outside).unwrap();
        let run = command.run().expect(0);
        assert_same(&pair.source, &pair.destination);
        // A link that goes moves the links and the change time of the inode, and nothing else.
        let changes = victims.changes(&outside, false).unwrap();
        assert_eq!(changes.len(), 7, "each name was replaced or removed: {changes:?} {run}");
        let others: Vec<_> = changes.iter().filter(|line| !line.ends_with(": links, ctime")).collect();
        assert!(others.is_empty(), "{others:?} {run}");
        assert_eq!(tool("attr", "getfattr", &[outside.join("annotated")]).stdout, b"", "no attribute reached it");
    }
}

// ---------------------------------------------------------------------------------------------
// T17, T19: crowds.

/// What a run may use beside what grows with the tree, in KiB: buffers, caches, an unoptimized build.
const MEMORY_KIB: u64 = 160 << 10;

fn assert_memory(what: &str, entries: u64, bytes_each: u64, most_kib: u64, run: &Run) {
    println!("{what}: {entries} entries, at most {} MiB", most_kib >> 10);
    let allowed = MEMORY_KIB + entries * bytes_each / 1024;
    assert!(most_kib <= allowed, "{most_kib} KiB for {entries} entries, {allowed} are allowed: {run}");
}

#[test]
fn t17_a_crowd_of_link_groups_stays_together_in_bounded_memory() {
    let (files, groups) = (number("COPYD_T17_FILES", 20_000), number("COPYD_T17_GROUPS", 2000));
    println!("T17: {files} files in {groups} groups");
    let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 2048);
    for directory in 0..100 {
        fs::create_dir(pair.source.join(format!("d{directory:02}"))).unwrap();
    }
    let path = |number: u64| pair.source.join(format!("d{:02}/f{number:07}", number % 100));
    for number in 0..files {
        if number < groups {
            fs::write(path(number), number.to_le_bytes()).unwrap();
        } else {
            fs::hard_link(path(number % groups), path(number)).unwrap();
        }
    }
    let (run, most) = pair.migrate().timeout(Duration::from_hours(1)).spawn().wait_measured();
    let run = run.expect(0);
    assert_eq!(run.summary().count("links_made"), files - groups, "{run}");
    assert_same(&pair.source, &pair.destination);
    assert_memory("T17", files, 1024, most, &run);
}

#[test]
fn t17_more_links_than_ext4_takes_arrive_as_files_and_are_named() {
    const NAMES: u64 = 65_100;
    const EXT4_LINKS: u64 = 65_000;
    let pair = Pair::new(FsType::Tmpfs, FsType::Ext4, 256);
    fs::write(pair.source.join("00000"), b"one inode").unwrap();
    for number in 1..NAMES {
        fs::hard_link(pair.source.join("00000"), pair.source.join(format!("{number:05}"))).unwrap();
    }
    let run = pair.migrate().run().expect(41);
    assert_eq!(run.summary().0["lost"]["link"], NAMES - EXT4_LINKS, "{run}");
    let mut inodes = std::collections::BTreeMap::<u64, u64>::new();
    for number in 0..NAMES {
        let path = pair.destination.join(format!("{number:05}"));
        *inodes.entry(fs::metadata(&path).unwrap().ino()).or_default() += 1;
    }
    let most = inodes.values().max().copied();
    assert_eq!((most, inodes.len() as u64), (Some(EXT4_LINKS), NAMES - EXT4_LINKS + 1), "{run}");
    assert_eq!(fs::read(pair.destination.join("65099")).unwrap(), b"one inode");
}

#[test]
fn t19_a_crowded_directory_is_copied_in_bounded_memory() {
    let entries = number("COPYD_T19_ENTRIES", 20_000);
    println!("T19: {entries} entries in one directory");
    let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 4096);
    let crowded = pair.source.join("crowded");
    fs::create_dir(&crowded).unwrap();
    trees::wide(&crowded, usize::try_from(entries).unwrap()).unwrap();
    let command = pair.migrate().timeout(Duration::from_hours(1));
    // The second run holds the names of both sides against each other.
    for copied in [entries, 0] {
        let (run, most) = command.spawn().wait_measured();
        let run = run.expect(0);
        assert_eq!(run.summary().count("files_copied"), copied, "{run}");
        assert_memory("T19", entries, 128, most, &run);
    }
    assert_same(&pair.source, &pair.destination);
}

/// Entries at which the endless listings below are given up.
const DIR_ENTRIES: &str = "3000";

#[test]
fn t19_a_listing_without_end_is_given_up_and_named_on_either_side() {
    for side in [rig::stage::Side::Source, rig::stage::Side::Destination] {
        let stage = Stage::new();
        for root in [&stage.source_backing, &stage.destination_backing] {
            fs::create_dir(root.join("endless")).unwrap();
            fs::write(root.join("endless/real"), b"real").unwrap();
        }
        fs::write(stage.source_backing.join("beside"), b"beside").unwrap();
        fs::write(stage.destination_backing.join("stale"), b"to go").unwrap();
        let backing = if side == rig::stage::Side::Source { &stage.source_backing } else { &stage.destination_backing };
        let endless = fs::metadata(backing.join("endless")).unwrap().ino();
        stage
            .plan(side)
            .on(move |call| (call.kind == Kind::Readdir && call.inode == endless).then_some(Fault::NeverEnds));
        let command = stage.command("sync", "threads").args(&["--delete", "--max-dir-entries", DIR_ENTRIES]);
        let run = command.run().expect(23);
        assert_eq!(failed_as(&run, "over_limit"), ["endless"], "{run}");
        assert!(run.words().contains("without end"), "{run}");
        assert!(stage.destination_backing.join("stale").exists(), "nothing is deleted after half a listing: {run}");
        assert_eq!(fs::read(stage.destination_backing.join("beside")).unwrap(), b"beside", "{run}");
        let verify = Copyd::new("verify").args(&["--json", "--max-dir-entries", DIR_ENTRIES]);
        let run = verify.arg(stage.source.path()).arg(stage.destination.path()).run();
        let compared = run.events();
        let named = compared.iter().any(|event| event["sign"] == "!" && event["name"] == "endless");
        assert!(named && run.status.code() != Some(0), "{run}");
        assert_eq!(stage.completes(&command), Ok(()));
    }
}

// ---------------------------------------------------------------------------------------------
// T20: holes.

fn t20_the_largest_hole(kind: FsType) {
    const SIZE: u64 = i64::MAX.cast_unsigned();
    let pair = Pair::new(kind, kind, 512);
    let image = pair.source.join("image");
    let file = File::create(&image).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(b"at the start", 0).unwrap();
    file.write_all_at(b"in the middle of nowhere", SIZE / 3).unwrap();
    File::create(pair.source.join("nothing")).unwrap().set_len(SIZE).unwrap();
    let run = pair.migrate().timeout(Duration::from_mins(1)).run().expect(0);
    for name in ["image", "nothing"] {
        let arrived = fs::metadata(pair.destination.join(name)).unwrap();
        assert_eq!(arrived.len(), SIZE, "{run}");
        assert!(arrived.blocks() * 512 < 4 << 20, "{run}");
    }
    let mut found = [0; 24];
    File::open(pair.destination.join("image")).unwrap().read_exact_at(&mut found, SIZE / 3).unwrap();
    assert_eq!(&found, b"in the middle of nowhere");
    let verify = Copyd::new("verify").arg(&pair.source).arg(&pair.destination).timeout(Duration::from_mins(1));
    verify.run().expect(0);
    file.write_all_at(b"I", SIZE / 3).unwrap();
    verify.run().expect(40);
}

#[test]
fn t20_a_hole_of_8_eib_takes_seconds_on_tmpfs() {
    t20_the_largest_hole(FsType::Tmpfs);
}

#[test]
fn t20_a_hole_of_8_eib_takes_seconds_on_xfs() {
    t20_the_largest_hole(FsType::Xfs);
}

/// A source with a file of data and holes whose file system says it is all one hole.
fn t20_stage(bytes: usize) -> Stage {
    let stage = Stage::new();
    let file = File::create(stage.source_backing.join("sparse")).unwrap();
    file.set_len(2 * bytes as u64).unwrap();
    file.write_all_at(&Rng::new(20).bytes(bytes), 4096).unwrap();
    stage.source.plan().every(Kind::Lseek, Fault::Fails(Errno::NXIO));
    stage
}

#[test]
fn t20_a_lie_about_where_data_lies_is_found_by_verify_and_healed_by_full() {
    for bytes in [100_000, 20 << 20] {
        let stage = t20_stage(bytes);
        let run = stage.command("sync", "threads").run().expect(0);
        assert!(!stage.differences().is_empty(), "the lie is a lie: {run}");
        let verify = Copyd::new("verify").arg("--json").arg(stage.source.path()).arg(stage.destination.path());
        let run = verify.run().expect(40);
        let told = run.events().iter().any(|event| event["sign"] == "*" && event["name"] == "sparse");
        assert!(told, "{run}");

        let mut stage = t20_stage(bytes);
        for backend in ["threads", "uring"] {
            stage.begin_again();
            stage.source.plan().every(Kind::Lseek, Fault::Fails(Errno::NXIO));
            let run = stage.command("sync", backend).args(&["--verify", "full"]).run().expect(0);
            assert!(stage.differences().is_empty(), "{run}");
        }
    }
}

#[test]
fn t20_an_answer_that_leads_backwards_is_not_asked_for_ever() {
    for claim in [0, 1, 4096] {
        let mut stage = t20_stage(20 << 20);
        for backend in ["threads", "uring"] {
            stage.begin_again();
            stage.source.plan().every(Kind::Lseek, Fault::Claims(claim));
            let run = stage.command("sync", backend).run();
            assert!(matches!(run.status.code(), Some(0 | 23)), "{run}");
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Sizes that were not asked for.

#[test]
fn t20_a_file_beyond_the_limits_fails_by_name_and_costs_nothing() {
    let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 64);
    File::create(pair.source.join("bomb")).unwrap().set_len(1 << 50).unwrap();
    fs::write(pair.source.join("heavy"), vec![7; 3 << 20]).unwrap();
    fs::write(pair.source.join("light"), vec![7; 1 << 20]).unwrap();
    fs::write(pair.destination.join("heavy"), b"an older one stays").unwrap();
    let command = pair.migrate().args(&["--max-size", "1G", "--max-allocated", "2M", "--delete"]);
    let run = command.run().expect(23);
    let mut named = failed_as(&run, "over_limit");
    named.sort_unstable();
    assert_eq!(named, ["bomb", "heavy"], "{run}");
    assert!(run.words().contains("--max-size"), "the remedy names the flags: {run}");
    assert_eq!(fs::read(pair.destination.join("heavy")).unwrap(), b"an older one stays");
    assert_eq!(run.summary().count("bytes_copied"), 1 << 20, "{run}");
    pair.migrate().arg("--delete").state_dir(&pair.volumes[1].directory("state")).run().expect(0);
    assert_same(&pair.source, &pair.destination);
}

#[test]
fn t21_a_file_that_grows_without_end_is_hot_and_does_not_keep_the_run() {
    const BYTES: u64 = 1 << 20;
    const PASSES: u64 = 3;
    let pair = Pair::new(FsType::Tmpfs, FsType::Tmpfs, 1024);
    let path = pair.source.join("log");
    fs::write(&path, vec![1; usize::try_from(BYTES).unwrap()]).unwrap();
    fs::write(pair.source.join("quiet"), b"quiet").unwrap();
    let enough = AtomicBool::new(false);
    let command = pair.migrate().args(&["--max-passes", "3", "--bwlimit", "16M"]);
    let (run, grown) = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut file, line) = (File::options().append(true).open(&path).unwrap(), [b'l'; 4096]);
            while !enough.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, &line).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
        });
        let run = command.run();
        enough.store(true, Ordering::Relaxed);
        (run, fs::metadata(&path).unwrap().len())
    });
    let run = run.expect(23);
    assert_eq!((run.summary().count("hot"), run.summary().count("failed")), (1, 0), "{run}");
    // Three attempts a pass, each as far as the file reached when it began.
    assert!(run.summary().count("bytes_copied") <= 3 * PASSES * grown, "{run}");
    assert_eq!(fs::read(pair.destination.join("quiet")).unwrap(), b"quiet");
    command.run().expect(0);
    assert_same(&pair.source, &pair.destination);
}

// ---------------------------------------------------------------------------------------------
// T18: floods of attributes.

/// An ACL with so many named users: `struct posix_acl_xattr_header` and its entries.
fn acl_of(users: u32) -> Vec<u8> {
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &5u16.to_le_bytes(), &id.to_le_bytes()].concat();
    let mut bytes = 2u32.to_le_bytes().to_vec();
    bytes.extend(entry(0x01, u32::MAX));
    bytes.extend((0..users).flat_map(|user| entry(0x02, 10_000 + user)));
    for tag in [0x04, 0x10, 0x20] {
        bytes.extend(entry(tag, u32::MAX));
    }
    bytes
}

#[test]
fn t18_the_largest_attributes_and_thousands_of_them_arrive_on_xfs() {
    let pair = Pair::new(FsType::Xfs, FsType::Xfs, 512);
    for name in ["file", "directory"] {
        let path = pair.source.join(name);
        if name == "file" {
            fs::write(&path, b"content").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        // All names together are what the kernel can list, 64 KiB less a little.
        for number in 0..5000 {
            trees::set_xattr(&path, format!("user.{number:06}"), &[7; 20]).unwrap();
        }
        for number in 0..40 {
            trees::set_xattr(&path, format!("user.l{number}"), &Rng::new(number).bytes(65_536)).unwrap();
        }
        trees::set_xattr(&path, "system.posix_acl_access", &acl_of(5000)).unwrap();
    }
    trees::set_xattr(&pair.source.join("directory"), "system.posix_acl_default", &acl_of(5000)).unwrap();
    let (run, most) = pair.migrate().spawn().wait_measured();
    let run = run.expect(0);
    assert_same(&pair.source, &pair.destination);
    assert_memory("T18", 2, 8 << 20, most, &run);
    Copyd::new("verify").arg(&pair.source).arg(&pair.destination).run().expect(0);
}

#[test]
fn t18_a_flood_of_attributes_beyond_the_bounds_is_named_as_lost() {
    let pair = Pair::new(FsType::Xfs, FsType::Xfs, 512);
    for name in ["heavy", "many"] {
        fs::write(pair.source.join(name), b"content").unwrap();
    }
    for number in 0..400 {
        let value = Rng::new(number).bytes(65_536);
        trees::set_xattr(&pair.source.join("heavy"), format!("user.{number:06}"), &value).unwrap();
    }
    // More names than the kernel can list at all.
    for number in 0..7000 {
        trees::set_xattr(&pair.source.join("many"), format!("user.{number:06}"), b"v").unwrap();
    }
    let (run, most) = pair.migrate().spawn().wait_measured();
    let run = run.expect(41);
    assert_eq!(run.summary().0["lost"]["xattr"], 2, "{run}");
    for name in ["heavy", "many"] {
        assert_eq!(fs::read(pair.destination.join(name)).unwrap(), b"content", "{run}");
    }
    assert_memory("T18", 2, 8 << 20, most, &run);
}

#[test]
fn t18_dates_beyond_what_ext4_holds_are_named_as_lost_and_all_others_arrive() {
    let pair = Pair::new(FsType::Tmpfs, FsType::Ext4, 64);
    // 1800, 1901 less a day, the first and the last moment of ext4's 34 bits, 2446 and a bit, 2500.
    let times = [
        ("year-1800", -5_364_662_400, false),
        ("before-1901", -2_147_570_048, false),
        ("first", -2_147_483_648, true),
        ("last", 15_032_385_535, true),
        ("after-2446", 15_032_385_536, false),
        ("year-2500", 16_725_225_600, false),
    ];
    for (name, seconds, _) in times {
        fs::write(pair.source.join(name), name).unwrap();
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, pair.source.join(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    let command = pair.migrate();
    let run = command.run().expect(41);
    let mut lost = names(&run.events(), "loss");
    lost.sort_unstable();
    let mut expected: Vec<_> =
        times.iter().filter(|(.., held)| !held).map(|(name, ..)| name.as_bytes().to_vec()).collect();
    expected.sort_unstable();
    assert_eq!(lost, expected, "{run}");
    for (name, seconds, held) in times {
        let arrived = fs::metadata(pair.destination.join(name)).unwrap();
        assert_eq!(fs::read(pair.destination.join(name)).unwrap(), name.as_bytes());
        assert!(!held || arrived.mtime() == seconds, "{name}: {run}");
    }
    command.arg("--accept-loss=times").run().expect(0);
}
