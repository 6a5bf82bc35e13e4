//! What a process may still do once it is confined: nothing outside of its job, in no thread; and
//! everything that a job needs, with the same result as before.
//!
//! Confining can't be taken back, so each test that confines itself runs once more as a process of its
//! own. There it makes each attempt twice, before and after: a refusal that was there before proves
//! nothing.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;

use copyd::pass::{Confined, Confinement, confine};
use serde_json::Value;

use support::copyd::{Copyd, Run};
use support::mounts::{self, FsType};
use support::oracle::assert_same;
use support::raw::error_of;
use support::trees::{self, Kinds};

/// Set in the process that a test starts of itself: the room with its directories.
const ROOM: &str = "COPYD_TEST_ROOM";

/// The room of the process that is to confine itself. In the test itself `None`, after that process has
/// come to its end without a panic.
fn room_of_child(test: &str) -> Option<PathBuf> {
    if let Some(room) = std::env::var_os(ROOM) {
        return Some(room.into());
    }
    let room = tempfile::tempdir_in("/dev/shm").unwrap();
    for name in ["source", "source/below", "destination", "destination/below", "state", "outside"] {
        fs::create_dir(room.path().join(name)).unwrap();
    }
    for name in ["source", "destination", "state", "outside"] {
        fs::write(room.path().join(name).join("file"), name).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args([test, "--exact", "--nocapture"]).env(ROOM, room.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test} in its own process:\n{out}\n{err}");
    None
}

/// Confines the calling process to the room's directories.
fn confined_to(room: &Path) -> Confined {
    let (source, destination) = (File::open(room.join("source")), File::open(room.join("destination")));
    let (source, destination) = (source.unwrap(), destination.unwrap());
    let confined = confine(&Confinement {
        read: vec![source.as_fd()],
        written: Some(destination.as_fd()),
        state: Some(room.join("state")),
        ..Confinement::default()
    });
    assert_eq!(confined.missing, Vec::<String>::new(), "this kernel has all of it");
    confined
}

fn write(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

#[test]
fn nothing_opens_outside_of_the_job_and_nothing_is_written_in_the_source() {
    let name = "nothing_opens_outside_of_the_job_and_nothing_is_written_in_the_source";
    let Some(room) = room_of_child(name) else { return };
    let at = |path: &str| room.join(path);
    let refused = [at("outside/file"), "/etc/passwd".into(), "/etc/hostname".into(), "/dev/null".into()];
    for path in &refused {
        File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    drop(write(&at("source/made")).expect("root may"));
    fs::remove_file(at("source/made")).unwrap();

    let confined = confined_to(&room);
    assert!(confined.landlock.is_some_and(|version| version >= 4), "{confined:?}");
    let denied = |result: std::io::Result<()>, what: &str| {
        assert_eq!(result.map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied), "{what}");
    };
    for path in &refused {
        denied(File::open(path).map(drop), &path.display().to_string());
    }
    for path in ["source/file", "source/made", "source/below/made", "outside/made", "made"] {
        denied(write(&at(path)).map(drop), path);
    }
    denied(fs::remove_file(at("source/file")), "remove at the source");
    denied(fs::create_dir(at("source/directory")), "a directory at the source");
    denied(fs::read_dir(at("outside")).map(drop), "list outside");
    // A link would give the source's inode the rights of another place.
    for (from, to) in [("source/file", "destination/stolen"), ("destination/file", "outside/given")] {
        assert!(fs::hard_link(at(from), at(to)).is_err(), "link {from} to {to}");
        assert!(fs::rename(at(from), at(to)).is_err(), "move {from} to {to}");
    }

    assert_eq!(fs::read(at("source/file")).unwrap(), b"source");
    fs::write(at("destination/made"), "x").unwrap();
    fs::rename(at("destination/made"), at("destination/below/moved")).unwrap();
    fs::hard_link(at("destination/below/moved"), at("destination/name")).unwrap();
    fs::remove_file(at("destination/name")).unwrap();
    fs::create_dir(at("destination/directory")).unwrap();
    std::os::unix::fs::symlink("x", at("destination/link")).unwrap();
    fs::write(at("state/file"), "more").unwrap();
    fs::read_dir("/proc/self/fd").expect("its own descriptors");
}

#[test]
fn threads_that_ran_before_are_confined_too() {
    let Some(room) = room_of_child("threads_that_ran_before_are_confined_too") else { return };
    let outside = room.join("outside/file");
    let ((ask, asked), (say, answers)) = (channel::<()>(), channel());
    let threads: Vec<_> = [asked]
        .into_iter()
        .map(|asked| {
            let (say, outside) = (say.clone(), outside.clone());
            std::thread::spawn(move || {
                for () in asked {
                    say.send(File::open(&outside).map(drop).map_err(|e| e.kind())).unwrap();
                }
            })
        })
        .collect();
    let answer = || {
        ask.send(()).unwrap();
        answers.recv().unwrap()
    };
    assert_eq!(answer(), Ok(()));
    confined_to(&room);
    assert_eq!(answer(), Err(ErrorKind::PermissionDenied));
    let threads_of_all = fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads_of_all >= 3, "the harness's, this one, and the other");
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{status}"));
            line.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        assert_eq!(field("Seccomp:"), "2", "{status}");
        // CAP_NET_ADMIN (12), CAP_SYS_MODULE (16), CAP_SYS_PTRACE (19), CAP_SETUID (7).
        let gone = 1u64 << 12 | 1 << 16 | 1 << 19 | 1 << 7;
        for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:", "CapAmb:"] {
            let bits = u64::from_str_radix(&field(set), 16).unwrap();
            assert_eq!(bits & gone, 0, "{set} {status}");
        }
        assert_eq!(field("CapEff:"), field("CapPrm:"), "{status}");
    }
    drop(ask);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn calls_that_no_copy_needs_are_refused() {
    let Some(room) = room_of_child("calls_that_no_copy_needs_are_refused") else { return };
    // With arguments that the kernel finds wrong, or that change nothing: only the filter says EPERM.
    let calls = [
        ("mount", libc::SYS_mount, [0, 0, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [0, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [-1, 0, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [-1, 0, -1, 0, -1]),
        ("fsopen", libc::SYS_fsopen, [0, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::c_long::from(libc::PTRACE_PEEKDATA), 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [-1, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
        ("socket", libc::SYS_socket, [-1, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [-1, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0, 0, 0, 0, 0]),
    ];
    for (name, call, arguments) in calls {
        assert_ne!(error_of(call, arguments), Some(libc::EPERM), "{name} is refused before");
    }
    confined_to(&room);
    for (name, call, arguments) in calls {
        assert_eq!(error_of(call, arguments), Some(libc::EPERM), "{name}");
    }
    // The newer call hides its flags in memory, so it is not there at all; the old one makes threads only.
    assert_eq!(error_of(libc::SYS_clone3, [0; 5]), Some(libc::ENOSYS));
    for flags in [libc::CLONE_NEWNS, libc::CLONE_NEWUSER, libc::CLONE_THREAD | libc::CLONE_NEWNET, libc::SIGCHLD] {
        assert_eq!(error_of(libc::SYS_clone, [flags.into(), 0, 0, 0, 0]), Some(libc::EPERM), "{flags:x}");
    }
    std::thread::spawn(|| ()).join().expect("threads still start");
    std::thread::scope(|scope| scope.spawn(|| 7).join()).expect("threads still start");
}

#[test]
fn no_program_starts_not_even_a_set_id_one() {
    let Some(room) = room_of_child("no_program_starts_not_even_a_set_id_one") else { return };
    let program = room.join("destination/id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    assert!(Command::new(&program).output().unwrap().status.success(), "it starts before");
    confined_to(&room);
    for program in [program.as_path(), Path::new("/usr/bin/id")] {
        assert_eq!(Command::new(program).output().map_err(|e| e.kind()).unwrap_err(), ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_socket_from_before_connects_nowhere() {
    let Some(room) = room_of_child("a_socket_from_before_connects_nowhere") else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    kept.connect(address).expect("it connects before");
    let waiting = std::net::TcpStream::connect(address).expect("it connects before");
    confined_to(&room);
    let denied = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
    denied(kept.connect(address));
    denied(std::net::TcpStream::connect(address).map(drop));
    denied(listener.accept().map(drop));
    drop(waiting);
}

/// The `confined` event of a run.
fn level(run: &Run) -> Value {
    let events = run.events();
    let found = events.iter().find(|event| event["event"] == "confined");
    found.unwrap_or_else(|| panic!("it does not say how far it is confined: {run}")).clone()
}

fn share(room: &Path) -> (PathBuf, PathBuf) {
    let (source, destination) = (room.join("source"), room.join("destination"));
    fs::create_dir(&source).unwrap();
    trees::every_kind(&source, &Kinds::common());
    (source, destination)
}

#[test]
fn every_command_is_confined_and_does_its_work() {
    let room = mounts::volume(FsType::Ext4, 1024);
    let (source, destination) = share(room.path());
    let (manifest, log) = (room.path().join("manifest"), room.path().join("log"));
    let state = room.path().join("state");
    for (number, backend) in ["uring", "threads"].into_iter().enumerate() {
        let destination = destination.with_extension(backend);
        let manifest = manifest.with_extension(backend);
        let copy = |verb: &str| {
            let copy = Copyd::new(verb).args(&["--json", "--backend", backend]).arg(&source).arg(&destination);
            copy.state_dir(&state.with_extension(backend))
        };
        let dry = copy("migrate").arg("-n").run().expect(0);
        let migrated = copy("migrate").arg("--manifest").arg(&manifest).arg("--log-file").arg(&log).run().expect(0);
        assert_eq!(migrated.summary().text("backend"), backend, "{migrated}");
        assert_same(&source, &destination);
        let read = Copyd::new("verify").args(&["--json", "--manifest"]).arg(&manifest).arg(&destination);
        let read = read.run().expect(0);
        let gone = source.join(format!("gone-{number}"));
        fs::write(&gone, "kept in the trash").unwrap();
        copy("sync").arg("--delete").run().expect(0);
        fs::remove_file(&gone).unwrap();
        let synced = copy("sync").args(&["--delete", "--trash", "1d"]).run().expect(0);
        assert_eq!(synced.summary().count("deleted"), 1, "{synced}");
        assert_same_but_trash(&source, &destination);
        let compared = Copyd::new("verify").arg("--json").arg(&source).arg(&destination).run().expect(0);
        for run in [&dry, &migrated, &read, &synced, &compared] {
            let level = level(run);
            assert_eq!(level["missing"], Value::Array(Vec::new()), "{run}");
            assert!(level["landlock"].as_u64() >= Some(2), "{run}");
            assert_eq!((&level["seccomp"], &level["no_new_privileges"]), (&true.into(), &true.into()), "{run}");
            let kept = level["capabilities"].as_array().unwrap();
            for capability in ["SETUID", "NET_ADMIN", "SYS_MODULE", "SYS_PTRACE"] {
                assert!(!kept.contains(&capability.into()), "{run}");
            }
        }
        assert!(!level(&compared)["capabilities"].as_array().unwrap().contains(&"CHOWN".into()), "{compared}");
    }
    assert!(fs::read_to_string(&log).unwrap().contains("confined"));
}

fn assert_same_but_trash(source: &Path, destination: &Path) {
    fs::remove_dir_all(destination.join(".copyd-trash")).expect("there is a trash");
    let time = fs::metadata(source).unwrap().modified().unwrap();
    File::open(destination).unwrap().set_modified(time).unwrap();
    assert_same(source, destination);
}

#[test]
fn where_the_kernel_refuses_a_run_goes_on_and_says_so_once() {
    let room = mounts::volume(FsType::Ext4, 64);
    let (source, destination) = (room.path().join("source"), room.path().join("destination"));
    fs::create_dir(&source).unwrap();
    trees::small_files(&source, 20, 5).unwrap();
    for (number, (call, error, word)) in [
        (libc::SYS_landlock_create_ruleset, libc::ENOSYS, "Landlock"),
        (libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP, "Landlock"),
        (libc::SYS_landlock_restrict_self, libc::EPERM, "Landlock"),
        (libc::SYS_seccomp, libc::ENOSYS, "seccomp"),
        (libc::SYS_capset, libc::EPERM, "capabilities"),
    ]
    .into_iter()
    .enumerate()
    {
        let destination = destination.with_extension(number.to_string());
        let run = Copyd::migrate(&source, &destination).refused(call, error).run().expect(0);
        let level = level(&run);
        let missing = level["missing"].as_array().unwrap();
        assert!(missing.len() == 1 && missing[0].as_str().unwrap().contains(word), "{run}");
        assert_eq!(level["landlock"].is_null(), word == "Landlock", "{run}");
        assert_eq!(level["seccomp"], word != "seccomp", "{run}");
        let said = run.err_text();
        assert_eq!(said.matches("keeps rights that it does not need").count(), 1, "{said}");
        assert_same(&source, &destination);
    }
}

#[test]
fn a_user_without_rights_is_confined_as_well() {
    let room = mounts::volume(FsType::Ext4, 64);
    let (source, destination) = (room.path().join("source"), room.path().join("destination"));
    fs::create_dir(&source).unwrap();
    fs::set_permissions(room.path(), fs::Permissions::from_mode(0o777)).unwrap();
    trees::small_files(&source, 20, 5).unwrap();
    let run = Copyd::migrate(&source, &destination).args(&["--accept-loss", "owner,group"]).user(12345).run().expect(0);
    let level = level(&run);
    assert_eq!(level["missing"], Value::Array(Vec::new()), "{run}");
    assert_eq!(level["capabilities"], Value::Array(Vec::new()), "{run}");
    assert!(level["landlock"].as_u64() >= Some(2), "{run}");
}

#[test]
fn in_memory_all_but_landlock_holds_and_nothing_is_said_to_be_missing() {
    let room = mounts::volume(FsType::Tmpfs, 64);
    let (source, destination) = (room.path().join("source"), room.path().join("destination"));
    fs::create_dir(&source).unwrap();
    trees::small_files(&source, 20, 5).unwrap();
    let copied = Copyd::migrate(&source, &destination).run().expect(0);
    let compared = Copyd::new("verify").arg("--json").arg(&source).arg(&destination).run().expect(0);
    for run in [&copied, &compared] {
        let level = level(run);
        assert!(level["landlock"].is_null() && level["missing"] == Value::Array(Vec::new()), "{run}");
        assert_eq!((&level["seccomp"], &level["no_new_privileges"]), (&true.into(), &true.into()), "{run}");
    }
    // One side that is not in memory is enough.
    let disk = mounts::volume(FsType::Ext4, 64);
    let mixed = Copyd::migrate(&source, &disk.path().join("destination")).run().expect(0);
    assert!(level(&mixed)["landlock"].as_u64() >= Some(2), "{mixed}");
}
