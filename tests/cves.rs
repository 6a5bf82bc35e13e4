//! What went wrong in rsync from 2024 on, tried on copyd: each CVE about paths, links, races or escapes
//! that a copier between mounted directories could have is a test that carries its number. The table in
//! `docs/reliability.md` names all of them, and says of the others why they can't exist here.

mod rig;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, RenameFlags, renameat_with};

use rig::plan::{Fault, Kind};
use rig::stage::{Side, Stage, names};
use support::canary::Canary;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, Volume, volume};
use support::oracle::assert_same;
use support::{Rng, trees};

/// Both roots and a canary on one file system, so that a link or a rename could reach it.
struct House {
    source: PathBuf,
    destination: PathBuf,
    state: PathBuf,
    canary: Canary,
    volume: Box<dyn Volume>,
}

impl House {
    fn new() -> Self {
        let volume = volume(FsType::Tmpfs, 128);
        let [source, destination, state] = ["source", "destination", "state"].map(|name| volume.directory(name));
        let canary = Canary::plant(volume.path());
        Self { source, destination, state, canary, volume }
    }

    fn migrate(&self) -> Copyd {
        Copyd::migrate(&self.source, &self.destination).state_dir(&self.state)
    }

    /// Runs it to this code; nothing of the canary may have moved or arrived.
    fn assert_safe(&self, command: &Copyd, code: i32) -> Run {
        let run = command.run().expect(code);
        self.canary.assert_untouched();
        let arrived = fs::symlink_metadata(self.destination.join("second-name"));
        assert!(arrived.is_err(), "a name of the canary arrived: {run}");
        run
    }
}

/// Names that a server makes up, which lead out of its directory.
const WAYS_OUT: [&str; 4] = ["../secret", "..", "/etc/passwd", "a/../../secret"];

/// rsync's server asked a client for files outside the tree, and wrote files under names with paths.
#[test]
fn cve_2024_12086_a_listing_that_names_paths_leads_to_nothing_outside() {
    for name in WAYS_OUT {
        for side in [Side::Source, Side::Destination] {
            let stage = Stage::new();
            for root in [&stage.source_backing, &stage.destination_backing] {
                fs::create_dir(root.join("dir")).unwrap();
                fs::write(root.join("dir/file"), b"file").unwrap();
            }
            fs::write(stage.source_backing.join("beside"), b"beside").unwrap();
            let root = if side == Side::Source { &stage.source_backing } else { &stage.destination_backing };
            let directory = fs::metadata(root.join("dir")).unwrap().ino();
            stage
                .plan(side)
                .on(move |call| (call.kind == Kind::Readdir && call.inode == directory).then_some(Fault::Lists(name)));
            let command = stage.command("sync", "threads").arg("--delete");
            let run = command.run();
            stage.canary().assert_untouched();
            // The kernel refuses a listing with a slash in a name; the directory above itself is no entry.
            let refused = name.contains('/');
            assert_eq!(run.status.code(), Some(if refused { 23 } else { 0 }), "{name}: {run}");
            let failed = names(&run.events(), "entry_failed");
            assert_eq!(failed, if refused { vec![b"dir".to_vec()] } else { vec![] }, "{name}: {run}");
            assert_eq!(fs::read(stage.destination_backing.join("beside")).unwrap(), b"beside", "{run}");
            assert_eq!(stage.completes(&command), Ok(()));
        }
    }
}

/// A server first sent a symbolic link, and then a directory of its name: the client wrote through it.
#[test]
fn cve_2024_12087_a_link_that_becomes_a_directory_is_not_written_through() {
    let house = House::new();
    symlink(house.canary.path(), house.source.join("dir")).unwrap();
    symlink("../canary/directory", house.source.join("relative")).unwrap();
    house.assert_safe(&house.migrate(), 0);
    assert!(fs::symlink_metadata(house.destination.join("dir")).unwrap().is_symlink());
    for name in ["dir", "relative"] {
        fs::remove_file(house.source.join(name)).unwrap();
        fs::create_dir(house.source.join(name)).unwrap();
        fs::write(house.source.join(name).join("secret"), b"of the share").unwrap();
        fs::write(house.source.join(name).join("deeper"), b"of the share").unwrap();
    }
    house.assert_safe(&house.migrate().arg("--delete"), 0);
    assert_same(&house.source, &house.destination);
}

/// `--safe-links` believed a link whose target leads through another link.
#[test]
fn cve_2024_12088_links_that_lead_out_are_copied_as_they_are_and_never_followed() {
    let house = House::new();
    fs::create_dir_all(house.source.join("a/b")).unwrap();
    symlink("b", house.source.join("a/into")).unwrap();
    symlink("into/../../../canary/secret", house.source.join("a/through")).unwrap();
    symlink("../../../canary", house.source.join("a/b/up")).unwrap();
    symlink(house.canary.path().join("secret"), house.source.join("absolute")).unwrap();
    symlink("/proc/self/root", house.source.join("magic")).unwrap();
    house.assert_safe(&house.migrate(), 0);
    assert_same(&house.source, &house.destination);
    house.assert_safe(&Copyd::new("verify").arg(&house.source).arg(&house.destination), 0);
    // The flag is not there, and says why.
    let run = house.migrate().arg("--safe-links").run().expect(1);
    assert!(run.words().contains("never followed"), "{run}");
}

/// Swaps a name for a link to the canary at one of its lookups, by turns all of them.
fn swapped_at_each_look(side: Side, victim: &'static str, to_directory: bool, prepare: impl Fn(&Stage)) -> u64 {
    let mut looks = 0;
    for nth in 1.. {
        let stage = Stage::new();
        prepare(&stage);
        let aside = stage.aside();
        let root = if side == Side::Source { &stage.source_backing } else { &stage.destination_backing };
        let (from, to) = (root.join(victim), aside.path().join("link"));
        let target = if to_directory { stage.canary().path().to_owned() } else { stage.canary().path().join("secret") };
        symlink(target, &to).unwrap();
        let (mut seen, mut swapped) = (0, false);
        let name = victim.rsplit('/').next().unwrap().as_bytes();
        let struck = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let hit = std::sync::Arc::clone(&struck);
        stage.plan(side).on(move |call| {
            seen += u64::from(call.kind == Kind::Lookup && call.name == name);
            if seen == nth && !swapped {
                swapped = renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).is_ok();
                hit.store(swapped, std::sync::atomic::Ordering::Relaxed);
            }
            None
        });
        let run = stage.command("sync", "threads").arg("--delete").run();
        stage.canary().assert_untouched();
        assert!(matches!(run.status.code(), Some(0 | 23 | 40 | 41)), "{victim} at look {nth}: {run}");
        if !struck.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        looks = nth;
    }
    println!("{victim}: swapped at each of {looks} looks");
    looks
}

/// A file was opened by its name after it was looked at, and a link was put there meanwhile.
#[test]
fn cve_2024_12747_a_file_that_becomes_a_link_after_it_was_looked_at_is_not_followed() {
    let looks = swapped_at_each_look(Side::Source, "secret", false, |stage| {
        fs::write(stage.source_backing.join("secret"), b"of the share").unwrap();
    });
    assert!(looks >= 2, "it is looked at and then opened");
}

/// The parent of what was opened was exchanged after the check, at the sender (content and listing).
#[test]
fn cve_2026_29518_53797_53801_a_parent_that_becomes_a_link_is_neither_listed_nor_read_through() {
    let looks = swapped_at_each_look(Side::Source, "dir", true, |stage| {
        fs::create_dir(stage.source_backing.join("dir")).unwrap();
        fs::write(stage.source_backing.join("dir/secret"), b"of the share").unwrap();
    });
    assert!(looks >= 2, "it is looked at and then opened");
}

/// chmod, chown, utimes, rename, unlink, mkdir, symlink, mknod, link and rmdir by path at the receiver,
/// and attributes and ACLs set by path.
#[test]
fn cve_2026_43619_53799_metadata_of_an_entry_that_becomes_a_link_goes_nowhere() {
    let plant = |stage: &Stage| {
        for (root, mode, owner) in [(&stage.source_backing, 0o600, 1234), (&stage.destination_backing, 0o666, 0)] {
            trees::make_node(&root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
            fs::create_dir(root.join("dir")).unwrap();
            fs::write(root.join("dir/secret"), b"equal").unwrap();
            fs::File::open(root.join("dir/secret")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            for path in ["fifo", "dir/secret"] {
                std::os::unix::fs::lchown(root.join(path), Some(owner), Some(owner)).unwrap();
                trees::set_xattr(&root.join(path), "trusted.note", &owner.to_le_bytes()).unwrap();
            }
            fs::set_permissions(root.join("dir/secret"), fs::Permissions::from_mode(mode)).unwrap();
        }
        for path in ["fifo", "dir/secret"] {
            trees::set_xattr(&stage.destination_backing.join(path), "trusted.gone", b"to be removed").unwrap();
            trees::set_xattr(&stage.source_backing.join(path), "system.posix_acl_access", &trees::acl(77)).unwrap();
        }
    };
    for (victim, to_directory) in [("fifo", false), ("dir/secret", false), ("dir", true)] {
        let looks = swapped_at_each_look(Side::Destination, victim, to_directory, plant);
        assert!(looks >= 1, "{victim} is looked at");
    }
}

/// The parents of a listed file were made along a path, through a link that stood there.
#[test]
fn cve_2026_53785_parents_of_a_listed_file_are_not_made_through_a_link() {
    let house = House::new();
    fs::create_dir_all(house.source.join("dir/directory")).unwrap();
    fs::write(house.source.join("dir/directory/new"), b"new").unwrap();
    symlink(house.canary.path(), house.destination.join("dir")).unwrap();
    let list = house.volume.path().join("list");
    fs::write(&list, "dir/directory/new\n").unwrap();
    let command = house.migrate().arg("--keep-extra").arg("--files-from").arg(&list);
    house.assert_safe(&command, 0);
    assert_eq!(fs::read(house.destination.join("dir/directory/new")).unwrap(), b"new");
    assert!(fs::symlink_metadata(house.destination.join("dir")).unwrap().is_dir(), "the link is replaced");
}

/// Paths of a list that lead out.
#[test]
fn cve_2026_53802_a_list_or_a_manifest_that_leads_out_reads_nothing_outside() {
    let house = House::new();
    fs::write(house.source.join("secret"), b"of the share").unwrap();
    let list = house.volume.path().join("list");
    for path in ["../canary/secret", "dir/../../canary/secret"] {
        fs::write(&list, format!("{path}\n")).unwrap();
        let run = house.migrate().arg("--files-from").arg(&list).run();
        assert!(matches!(run.status.code(), Some(0 | 1 | 23)), "{run}");
        house.canary.assert_untouched();
        let hash = "0".repeat(64);
        fs::write(&list, format!("{hash}  {path}\n")).unwrap();
        let run = Copyd::new("verify").arg("--manifest").arg(&list).arg(&house.source).run();
        assert!(matches!(run.status.code(), Some(1 | 11 | 23 | 40)), "{run}");
        house.canary.assert_untouched();
    }
}

/// Filter files that a tenant put into the tree were read as rules, links among them.
#[test]
fn cve_2026_53802_filter_files_of_the_tenant_are_data() {
    let house = House::new();
    symlink(house.canary.path().join("secret"), house.source.join(".rsync-filter")).unwrap();
    fs::write(house.source.join(".cvsignore"), b"*\n").unwrap();
    fs::write(house.source.join("file"), b"file").unwrap();
    house.assert_safe(&house.migrate(), 0);
    assert_same(&house.source, &house.destination);
}

/// An absolute temporary directory was reached by its path, and so was where its files went.
#[test]
fn cve_2026_53795_a_link_in_place_of_the_staging_directory_is_not_followed() {
    let house = House::new();
    fs::write(house.source.join("secret"), b"of the share").unwrap();
    let run = house.assert_safe(&house.migrate(), 0);
    let job = run.summary().text("job").to_owned();
    symlink(house.canary.path(), house.destination.join(format!(".copyd-{job}"))).unwrap();
    fs::write(house.source.join("secret"), b"of the share, and longer").unwrap();
    house.assert_safe(&house.migrate(), 0);
    assert_same(&house.source, &house.destination);
}

/// The root that was named became a link after it was looked at.
#[test]
fn cve_2026_53796_a_root_that_becomes_a_link_meanwhile_is_still_the_old_one() {
    for at_source in [true, false] {
        let house = House::new();
        fs::write(house.source.join("large"), Rng::new(9).bytes(6 << 20)).unwrap();
        for i in 0..50 {
            fs::write(house.source.join(format!("f{i:02}")), Rng::new(i).bytes(20_000)).unwrap();
        }
        let (root, away) =
            (if at_source { &house.source } else { &house.destination }, house.volume.path().join("away"));
        let mut running = house.migrate().args(&["--bwlimit", "8M"]).spawn();
        running.until("it copies", || support::crash::staging(&house.destination).is_some());
        fs::rename(root, &away).unwrap();
        symlink(house.canary.path(), root).unwrap();
        let run = running.wait();
        assert!(matches!(run.status.code(), Some(0 | 11 | 23 | 43)), "{run}");
        house.canary.assert_untouched();
        fs::remove_file(root).unwrap();
        fs::rename(&away, root).unwrap();
        house.assert_safe(&house.migrate(), 0);
        assert_same(&house.source, &house.destination);
    }
}

/// A name that nobody has was mapped to root.
#[test]
fn cve_2026_53798_an_owner_that_nobody_knows_is_refused_and_never_becomes_root() {
    let house = House::new();
    fs::write(house.source.join("file"), b"file").unwrap();
    for map in
        ["--chown=nobody-has-this-name:0", "--usermap=*:nobody-has-this-name", "--groupmap=0:nobody-has-this-name"]
    {
        house.migrate().arg(map).run().expect(1);
        assert!(!house.destination.join("file").exists(), "{map}");
    }
}

/// Parents that are only on the way to a listed file were taken for listed whole, and cleaned.
#[test]
fn cve_2026_53789_parents_of_a_listed_file_lose_nothing_to_delete() {
    let house = House::new();
    for root in [&house.source, &house.destination] {
        fs::create_dir_all(root.join("dir/sub")).unwrap();
        fs::write(root.join("dir/sub/listed"), root.as_os_str().as_encoded_bytes()).unwrap();
    }
    for name in ["dir/beside", "dir/sub/beside", "beside"] {
        fs::write(house.destination.join(name), b"not in the list").unwrap();
    }
    let list = house.volume.path().join("list");
    fs::write(&list, "dir/sub/listed\n").unwrap();
    let run = house.assert_safe(&house.migrate().arg("--delete").arg("--files-from").arg(&list), 0);
    assert_eq!(run.summary().count("deleted"), 0, "{run}");
    for name in ["dir/beside", "dir/sub/beside", "beside"] {
        assert_eq!(fs::read(house.destination.join(name)).unwrap(), b"not in the list", "{run}");
    }
}

/// A backup directory that is a link of the tenant's.
#[test]
fn cve_2026_70460_a_trash_that_is_a_link_takes_nothing_outside() {
    for target in ["canary", "canary/directory"] {
        let house = House::new();
        fs::write(house.source.join("kept"), b"kept").unwrap();
        for name in ["kept", "gone"] {
            fs::write(house.destination.join(name), b"old").unwrap();
        }
        symlink(house.volume.path().join(target), house.destination.join(".copyd-trash")).unwrap();
        let command = house.migrate().args(&["--delete", "--trash", "30d"]);
        let run = command.run();
        house.canary.assert_untouched();
        assert!(matches!(run.status.code(), Some(11 | 23 | 43)), "{run}");
        assert_eq!(fs::read(house.destination.join("gone")).unwrap(), b"old", "what can't be kept stays: {run}");
    }
}

/// Names with control bytes were written as they are into logs and line protocols.
#[test]
fn cve_2026_53788_a_name_with_a_line_break_is_one_line_of_a_log_and_of_a_manifest() {
    let house = House::new();
    let name = "line\nmigrate: all done\r\x1b[2K\u{9b}31m";
    fs::write(house.source.join(name), b"content").unwrap();
    let [log, manifest] = ["log", "manifest"].map(|name| house.volume.path().join(name));
    let command = house.migrate().arg("-v").arg("--log-file").arg(&log).arg("--manifest").arg(&manifest);
    house.assert_safe(&command, 0);
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&manifest).len(), 1, "{:?}", lines(&manifest));
    let text = fs::read(&log).unwrap();
    assert!(!text.iter().any(|byte| (*byte < 0x20 && *byte != b'\n') || *byte == 0x7f), "the log holds a control byte");
    assert!(lines(&log).iter().all(|line| !line.starts_with("migrate: all done")), "{:?}", lines(&log));
    Copyd::new("verify").arg("--manifest").arg(&manifest).arg(&house.destination).run().expect(0);
}
