//! `copyd worker --isolated`: what a live worker still sees and may do, and that it does the same work.
//!
//! Everything is looked at from outside, in `/proc/PID` of the worker: what it says of itself proves nothing.

mod rig;
mod support;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use rig::Rig;
use rig::plan::{Fault, Kind};
use support::isolated::{Room, Worker};
use support::mounts::FsType;
use support::oracle::assert_same;
use support::tool;
use support::trees::{self, Kinds};

#[test]
fn a_live_worker_has_namespaces_capabilities_and_a_filter_of_its_own() {
    let room = Room::new(FsType::Ext4);
    let (leak, _other) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let (worker, confined) = room.live(&[]);
    let own = |name: &str| fs::read_link(Path::new("/proc/thread-self/ns").join(name)).unwrap();
    for name in ["mnt", "net", "ipc", "uts"] {
        assert_ne!(worker.namespace(name), own(name), "{name}");
        assert!(confined["namespaces"].as_array().unwrap().contains(&name.into()), "{confined}");
    }
    assert_eq!(confined["missing"], json!([]), "{confined}");
    // Threads are many by now, and each of them counts.
    let threads = fs::read_dir(worker.of_process("task")).unwrap();
    let mut count = 0;
    for thread in threads.flatten() {
        count += 1;
        assert_eq!(fs::read_link(thread.path().join("ns/mnt")).unwrap(), worker.namespace("mnt"));
        assert_eq!(fs::read_link(thread.path().join("ns/net")).unwrap(), worker.namespace("net"));
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert!(count > 3, "data threads, the watch, the commands");
    let bounding = u64::from_str_radix(&worker.status("CapBnd:"), 16).unwrap();
    assert_eq!(worker.status("CapEff:"), worker.status("CapBnd:"), "what can be used is all that can ever be had");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, IPC_LOCK, SYS_ADMIN, SYS_RESOURCE,
    // MKNOD, SETFCAP, MAC_ADMIN of capabilities(7), and no other.
    let engine = [0, 1, 2, 3, 4, 9, 14, 21, 24, 27, 31, 33].iter().fold(0u64, |bits, bit| bits | 1 << bit);
    assert_eq!(bounding & !engine, 0, "{bounding:x}");
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(worker.status(set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!((worker.status("Groups:"), worker.status("Umask:")), (String::new(), "0077".into()));

    let environment = fs::read(worker.of_process("environ")).unwrap();
    assert!(!environment.windows(7).any(|part| part == b"hunter2"), "{}", String::from_utf8_lossy(&environment));
    let inherited = worker.of_process("fd").join(leak.as_raw_fd().to_string());
    let pipe = fs::read_link(format!("/proc/self/fd/{}", leak.as_raw_fd())).unwrap();
    assert_ne!(fs::read_link(inherited).ok(), Some(pipe), "a descriptor that was left open");
    let limits = fs::read_to_string(worker.of_process("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // Nobody of the same user attaches to it: its files are root's whoever it runs as.
    let owner = fs::metadata(worker.of_process("environ")).unwrap().uid();
    assert_eq!(owner, 0);
}

#[test]
fn nothing_but_the_jobs_places_is_in_view_and_the_source_is_read_only() {
    for kind in [FsType::Ext4, FsType::Tmpfs] {
        let room = Room::new(kind);
        let (mut worker, _) = room.live(&[]);
        let seen = |path: &Path| {
            worker.of_process("root").join(path.strip_prefix("/").expect("absolute")).symlink_metadata().is_ok()
        };
        assert!(seen(&room.at("source/large")) && seen(&room.at("destination")) && seen(&room.at("state")));
        for path in ["/etc/passwd", "/dev/null", "/usr/bin/id", "/run", "/home", "/etc"] {
            assert!(!seen(Path::new(path)), "{path}");
        }
        assert!(!seen(&room.at("outside")), "{kind:?}");
        let mounts = fs::read_to_string(worker.of_process("mountinfo")).unwrap();
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let options: Vec<&str> = words[5].split(',').collect();
            for option in ["nosuid", "nodev", "noexec"] {
                assert!(options.contains(&option), "{option}: {line}");
            }
            let written = [room.at("destination"), room.at("state")].iter().any(|path| Path::new(words[4]) == path);
            assert_eq!(options.contains(&"rw"), written, "{line}");
            assert!(!line.contains("shared:") && !line.contains("master:"), "nothing comes in or out: {line}");
        }
        worker.cancel();
        assert_eq!(worker.end()["outcome"], "cancelled");
    }
}

#[test]
fn no_address_outside_answers_from_where_a_worker_is() {
    let room = Room::new(FsType::Ext4);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let connect = "import socket, sys\ntry:\n socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)\n\
                   except OSError as e:\n print(e.errno)\nelse:\n print('connected')";
    let outside = tool("python3", "python3", &["-c", connect, &port]);
    assert_eq!(String::from_utf8_lossy(&outside.stdout).trim(), "connected");
    let (worker, _) = room.live(&[]);
    let id = worker.child.id().to_string();
    let inside = tool("util-linux", "nsenter", &["--target", &id, "--net", "python3", "-c", connect, &port]);
    assert_eq!(String::from_utf8_lossy(&inside.stdout).trim(), libc::ENETUNREACH.to_string());
    let devices = fs::read_to_string(worker.of_process("net/dev")).unwrap();
    assert_eq!(devices.lines().filter(|line| line.contains(':')).count(), 1, "only its own loopback: {devices}");
    let routes = fs::read_to_string(worker.of_process("net/route")).unwrap();
    assert_eq!(routes.lines().skip(1).count(), 0, "no route: {routes}");
}

#[test]
fn the_network_that_a_job_names_is_entered_and_one_that_is_not_there_ends_it() {
    /// Removed also where the test fails.
    struct Named(String);
    impl Drop for Named {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
        }
    }
    let room = Room::new(FsType::Ext4);
    let name = Named(format!("copyd-test-{}", std::process::id()));
    tool("iproute2", "ip", &["netns", "add", &name.0]);
    let (mut worker, confined) = room.live(&["--network-namespace", &name.0]);
    let wanted = fs::metadata(Path::new("/run/netns").join(&name.0)).unwrap().ino();
    assert_eq!(worker.namespace("net"), PathBuf::from(format!("net:[{wanted}]")));
    assert!(confined["namespaces"].as_array().unwrap().contains(&"net".into()), "{confined}");
    worker.cancel();
    worker.end();
    for wrong in ["copyd-test-there-is-none", "../../proc/1/ns/net", ".", ""] {
        let mut worker = Worker::start(&room.sync("destination"), &["--network-namespace", wrong]);
        let summary = worker.end();
        assert_eq!((&summary["exit_code"], &summary["error"]["class"]), (&json!(43), &json!("guard")), "{wrong}");
        assert!(summary["error"]["message"].as_str().unwrap().contains("network namespace"), "{summary}");
    }
}

#[test]
fn an_isolated_worker_copies_the_same_with_both_backends_and_again() {
    let room = Room::new(FsType::Ext4);
    trees::every_kind(&room.at("source"), &Kinds::common());
    for backend in ["uring", "threads"] {
        // Missing before, so it is made, in a parent that comes into view for that.
        let mut specification = room.sync(backend);
        specification["backend"] = json!(backend);
        specification["delete"] = json!(true);
        for deleted in [0, 1] {
            // Made before the first run, gone before the second.
            let changing = room.at("source/changing");
            if deleted == 0 {
                fs::write(&changing, backend).unwrap();
            } else {
                fs::remove_file(&changing).unwrap();
            }
            let summary = Worker::start(&specification, &[]).end();
            assert_eq!((&summary["outcome"], &summary["backend"]), (&json!("completed"), &json!(backend)), "{summary}");
            assert_eq!(summary["deleted"], deleted, "{summary}");
            assert_same(&room.at("source"), &room.at(backend));
        }
    }
    let verify = json!({"schema": 1, "kind": "verify", "source": {"export": room.at("source")},
        "destination": {"export": room.at("threads")}, "manifest": room.at("outside/manifest")});
    let summary = Worker::start(&verify, &[]).end();
    assert_eq!(summary["outcome"], "completed", "{summary}");
    assert!(fs::metadata(room.at("outside/manifest")).unwrap().len() > 0);
}

#[test]
fn a_symlink_below_what_is_allowed_is_refused_and_one_above_it_is_the_operators() {
    let room = Room::new(FsType::Ext4);
    fs::write(room.at("source/file"), "x").unwrap();
    symlink(room.at("outside"), room.at("source-link")).unwrap();
    symlink(room.volume.path(), room.at("state/all")).unwrap();
    let mut specification = room.sync("destination");
    specification["within"] = json!([room.volume.path()]);
    specification["source"]["export"] = json!(room.at("source-link"));
    let summary = Worker::start(&specification, &[]).end();
    assert_eq!((&summary["exit_code"], &summary["error"]["class"]), (&json!(43), &json!("guard")), "{summary}");
    assert!(summary["error"]["message"].as_str().unwrap().contains("symlink"), "{summary}");
    assert!(!room.at("destination").exists());

    let door = tempfile::tempdir_in("/tmp").unwrap();
    symlink(room.volume.path(), door.path().join("shares")).unwrap();
    let through = |name: &str| door.path().join("shares").join(name);
    specification["within"] = json!([door.path().join("shares")]);
    specification["source"]["export"] = json!(through("source"));
    specification["destination"]["export"] = json!(through("destination"));
    let summary = Worker::start(&specification, &[]).end();
    assert_eq!(summary["outcome"], "completed", "{summary}");
    assert_eq!(fs::read(room.at("destination/file")).unwrap(), b"x");
}

#[test]
fn paths_that_are_not_absolute_are_refused() {
    let room = Room::new(FsType::Tmpfs);
    for wrong in ["source", "/tmp/../etc"] {
        let mut specification = room.sync("destination");
        specification["source"]["export"] = json!(wrong);
        let summary = Worker::start(&specification, &[]).end();
        assert_eq!((&summary["exit_code"], &summary["error"]["class"]), (&json!(1), &json!("usage")), "{summary}");
    }
}

#[test]
fn who_hangs_is_still_named_and_a_cancelled_worker_still_ends() {
    let room = Room::new(FsType::Ext4);
    let rig = Rig::over(&room.at("source"));
    fs::write(room.at("source/file"), vec![1; 1 << 20]).unwrap();
    rig.plan().every(Kind::Read, Fault::Hangs);
    let mut specification = room.sync("destination");
    specification["source"]["export"] = json!(rig.path());
    specification["backend"] = json!("threads");
    let mut worker = Worker::start(&specification, &[]);
    let stall = worker.until("stall");
    assert_eq!((&stall["side"], &stall["operation"]), (&json!("source"), &json!("read")), "{stall}");
    drop(rig);
    worker.end();
}

#[test]
fn a_user_without_rights_is_isolated_as_far_as_he_can_be_and_is_told_the_rest() {
    const USER: u32 = 12345;
    let room = Room::new(FsType::Ext4);
    fs::write(room.at("source/file"), "x").unwrap();
    // Where any user may come, and there is room for a program with all that a debugger wants.
    let bin = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(bin.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_copyd"), bin.path().join("copyd")).unwrap();
    for name in ["source", "source/file", "state", "."] {
        std::os::unix::fs::chown(room.at(name), Some(USER), Some(USER)).unwrap();
    }
    let mut specification = room.sync("destination");
    specification["limits"] = json!({"bytes_per_s": 200_000});
    let mut command = Command::new(bin.path().join("copyd"));
    std::os::unix::process::CommandExt::uid(&mut command, USER);
    std::os::unix::process::CommandExt::gid(&mut command, USER);
    let mut worker = Worker::begin(command.args(["worker", "--isolated"]), &specification);
    let confined = worker.until("confined");
    let missing: Vec<&str> = confined["missing"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for word in ["(mnt)", "(net)", "(ipc)", "(uts)", "same user"] {
        assert_eq!(missing.iter().filter(|text| text.contains(word)).count(), 1, "{word} in {missing:?}");
    }
    assert_eq!(missing.len(), 5, "{missing:?}");
    assert_eq!((&confined["namespaces"], &confined["seccomp"]), (&json!([]), &json!(true)), "{confined}");
    assert_eq!(worker.end()["outcome"], "completed");
}

#[test]
fn a_worker_that_is_isolated_goes_when_its_caller_goes() {
    let room = Room::new(FsType::Ext4);
    let (mut worker, _) = room.live(&[]);
    let (mut child, commands) = {
        let placeholder = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let child = std::mem::replace(&mut worker.child, placeholder);
        let commands = std::mem::replace(&mut worker.commands, worker.child.stdin.take().expect("a pipe"));
        (child, commands)
    };
    let began = Instant::now();
    drop(commands);
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(20));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let rest: Vec<String> = worker.lines.by_ref().map(|line| line.expect("a line")).collect();
    assert!(rest.last().is_some_and(|line| line.contains(r#""outcome":"cancelled""#)), "{rest:?}");
}
