//! Names and paths that break what is careless: beyond `PATH_MAX`, of every byte, with what blocks
//! or acts when it is opened, with a symbolic link where a directory was, and 1 TiB of holes.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, makedev};
use support::canary::Canary;
use support::copyd::{Copyd, Run};
use support::mounts::{FsType, volume};
use support::oracle::assert_same;
use support::second_opinion;
use support::trees::{self, Kinds, make_node};

fn a_deep_tree_arrives(kind: FsType, levels: usize, name_len: usize) {
    let volume = volume(kind, 512);
    let (source, destination) = (volume.directory("source"), volume.path().join("destination"));
    trees::deep(&source, levels, name_len).unwrap();
    let run = Copyd::migrate(&source, &destination).run().expect(0);
    assert_eq!(run.summary().count("entries"), (levels + levels.div_ceil(100) + 1) as u64, "{run}");
    assert_same(&source, &destination);
    if levels < 500 {
        second_opinion(&source, &destination); // it holds a descriptor for each level
    }
}

#[test]
fn p6_t14_sixty_levels_of_hundred_character_names_arrive_on_tmpfs() {
    a_deep_tree_arrives(FsType::Tmpfs, 60, 100);
}

#[test]
fn p6_t14_sixty_levels_of_hundred_character_names_arrive_on_ext4() {
    a_deep_tree_arrives(FsType::Ext4, 60, 100);
}

#[test]
fn p6_t14_five_thousand_levels_arrive() {
    a_deep_tree_arrives(FsType::Tmpfs, 5000, 3);
}

/// Panics where a control byte of a name reaches a terminal or a log: an escape sequence in it
/// could rewrite what the reader sees.
fn assert_no_control_bytes(what: &str, bytes: &[u8]) {
    let bad = bytes.iter().position(|&b| (b < 0x20 && b != b'\n') || b == 0x7f);
    let around = bad.map(|at| bytes[at.saturating_sub(40)..(at + 20).min(bytes.len())].escape_ascii());
    assert!(around.is_none(), "{what} holds a raw control byte: {}", around.expect("it is some"));
}

#[test]
fn t14_names_of_every_byte_arrive_and_never_reach_a_terminal_raw() {
    let volume = volume(FsType::Tmpfs, 512);
    let source = volume.directory("source");
    trees::every_kind(&source, &Kinds::common());
    for (i, flags) in [&["-v", "-v"][..], &["-i", "-i"], &["--json", "-i"]].iter().enumerate() {
        let (destination, log) = (volume.path().join(format!("d{i}")), volume.path().join(format!("log{i}")));
        let command = Copyd::new("migrate").args(flags).arg(&source).arg(&destination).arg("--log-file").arg(&log);
        let run = command.run().expect(0);
        assert_no_control_bytes("stdout", &run.stdout);
        assert_no_control_bytes("stderr", &run.stderr);
        assert_no_control_bytes("the log", &fs::read(&log).unwrap());
        assert!(std::str::from_utf8(&run.stdout).is_ok(), "stdout is text: {run}");
        if i == 2 {
            let named = run.events().iter().filter(|event| event.get("name_b64").is_some()).count();
            assert!(named > 100, "names that are not UTF-8 come as name_b64: {named}");
        }
        assert_same(&source, &destination);
        fs::remove_dir_all(&destination).unwrap();
    }
}

/// Runs within seconds, or fails: what blocks would block for ever.
fn promptly(command: Copyd) -> Run {
    command.timeout(Duration::from_secs(20)).run()
}

#[test]
fn p7_t18_a_fifo_or_a_device_is_never_opened_on_either_side() {
    let volume = volume(FsType::Tmpfs, 64);
    let (source, destination) = (volume.directory("source"), volume.path().join("destination"));
    let state = volume.directory("state");
    for i in 0..50 {
        make_node(&source.join(format!("fifo-{i}")), FileType::Fifo, 0o666, 0).unwrap();
        make_node(&source.join(format!("socket-{i}")), FileType::Socket, 0o666, 0).unwrap();
    }
    // Opening a terminal may wait for a carrier; the others belong to drivers that are not there.
    for (i, number) in [makedev(5, 0), makedev(4, 64), makedev(240, 1)].into_iter().enumerate() {
        make_node(&source.join(format!("device-{i}")), FileType::CharacterDevice, 0o666, number).unwrap();
    }
    make_node(&source.join("block"), FileType::BlockDevice, 0o666, makedev(240, 1)).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    fs::create_dir(source.join("directory")).unwrap();
    let command = || Copyd::migrate(&source, &destination).state_dir(&state);
    promptly(command()).expect(0);
    assert_same(&source, &destination);

    // And where a file stood, or stands in the source, someone puts what blocks.
    fs::remove_file(destination.join("file")).unwrap();
    make_node(&destination.join("file"), FileType::Fifo, 0o666, 0).unwrap();
    fs::remove_dir(destination.join("directory")).unwrap();
    make_node(&destination.join("directory"), FileType::CharacterDevice, 0o666, makedev(5, 0)).unwrap();
    promptly(command()).expect(0);
    assert_same(&source, &destination);
    promptly(Copyd::new("verify").arg(&source).arg(&destination)).expect(0);
}

#[test]
fn p6_t16_a_symbolic_link_in_the_way_is_replaced_and_never_followed() {
    let volume = volume(FsType::Tmpfs, 64);
    let canary = Canary::plant(volume.path());
    let (source, destination) = (volume.directory("source"), volume.path().join("destination"));
    let state = volume.directory("state");
    fs::create_dir(source.join("directory")).unwrap();
    for name in ["secret", "deeper", "file"] {
        fs::write(source.join("directory").join(name), b"first").unwrap();
        fs::write(source.join(name), b"first").unwrap();
    }
    let command = || Copyd::migrate(&source, &destination).arg("--delete").state_dir(&state);
    command().run().expect(0);

    fs::remove_dir_all(destination.join("directory")).unwrap();
    symlink(canary.path(), destination.join("directory")).unwrap();
    fs::remove_file(destination.join("secret")).unwrap();
    symlink(canary.path().join("secret"), destination.join("secret")).unwrap();
    fs::remove_file(destination.join("file")).unwrap();
    fs::hard_link(canary.path().join("directory/deeper"), destination.join("file")).unwrap();
    for name in ["directory/secret", "directory/deeper", "secret", "file"] {
        fs::write(source.join(name), b"second, longer").unwrap();
    }
    command().run().expect(0);
    assert_same(&source, &destination);
    let changes = canary.changes().unwrap();
    // Making and removing the extra link moved the ctime of that one file; its bytes stay.
    let others: Vec<_> = changes.iter().filter(|c| !c.contains("deeper\": ctime")).collect();
    assert!(others.is_empty(), "{others:?}");
    std::mem::forget(canary); // the ctime above would fail its last look
}

fn a_tebibyte_of_holes_takes_seconds(kind: FsType) {
    const PIECES: u64 = 100;
    let volume = volume(kind, 512);
    let (source, destination) = (volume.directory("source"), volume.path().join("destination"));
    let image = source.join("disk.img");
    sparse_image(&image, 1 << 40, PIECES);
    let command = Copyd::migrate(&source, &destination).timeout(Duration::from_mins(1));
    let run = command.run().expect(0);
    let allocated = fs::metadata(destination.join("disk.img")).unwrap().blocks() * 512;
    assert!(allocated < (PIECES + 8) << 20, "{allocated} bytes are allocated: {run}");
    assert!(run.summary().count("bytes_copied") < (PIECES + 8) << 20, "{run}");
    assert_same(&source, &destination);
    second_opinion(&source, &destination);
}

/// A file of `size` bytes with `pieces` of data, 1 MiB each, far apart.
fn sparse_image(path: &Path, size: u64, pieces: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut rng = support::Rng::new(3);
    for i in 0..pieces {
        file.write_all_at(&rng.bytes(1 << 20), i * (size / pieces) / 4096 * 4096).unwrap();
    }
}

#[test]
fn t20_a_tebibyte_of_holes_takes_seconds_on_tmpfs() {
    a_tebibyte_of_holes_takes_seconds(FsType::Tmpfs);
}

#[test]
fn t20_a_tebibyte_of_holes_takes_seconds_on_ext4() {
    a_tebibyte_of_holes_takes_seconds(FsType::Ext4);
}

#[test]
fn t20_a_tebibyte_of_holes_takes_seconds_on_xfs() {
    a_tebibyte_of_holes_takes_seconds(FsType::Xfs);
}
