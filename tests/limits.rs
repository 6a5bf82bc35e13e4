//! T35: the machine gives less than copyd would like. Memory, descriptors, threads and locked memory are
//! limited, with both backends.
//!
//! Each run is held to this: it completes, or it ends with an exit code of `docs/cli.md` that is no
//! internal error and with words about what was short; nothing panics; no name holds a torn file; and the
//! same command without the limit completes with no difference, and leaves nothing over.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use rustix::process::Resource;

use support::copyd::{Copyd, Run};
use support::crash::{Field, mixed_tree, number, seed};
use support::oracle::assert_same;
use support::trees;

/// Other users, whom limits on threads and on locked memory bind: root is free of them. A test has its
/// own, because threads are counted by user.
const USERS: [u32; 3] = [54_321, 54_322, 54_323];

/// What a message about something that is short may say.
const SHORT: [&str; 5] = ["too many open files", "no memory", "cannot allocate", "resource temporarily", "resources"];

/// A share with small files, two large ones, many directories at once, and a deep chain of them.
struct Share {
    room: tempfile::TempDir,
    source: PathBuf,
    user: Option<u32>,
}

impl Share {
    fn new() -> Self {
        let room = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::set_permissions(room.path(), Permissions::from_mode(0o755)).unwrap();
        let source = room.path().join("source");
        mixed_tree(&source, seed(), 10, [17, 2]);
        let chain = source.join("chain");
        fs::create_dir(&chain).unwrap();
        trees::deep(&chain, 200, 5).unwrap();
        for i in 0..200 {
            let directory = source.join(format!("wide-{i}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("file"), format!("{i}")).unwrap();
        }
        println!("COPYD_SEED={}", seed());
        Self { room, source, user: None }
    }

    /// A share of the other user's, who runs the commands.
    fn of_user(user: u32) -> Self {
        let share = Self { user: Some(user), ..Self::new() };
        let status = std::process::Command::new("chown")
            .args(["-hR", &format!("{user}:{user}")])
            .arg(share.room.path())
            .status();
        assert!(status.expect("chown is there").success());
        share
    }

    /// Runs under limits and then without them, each held to what the head of this file says. Gives the
    /// limited run.
    fn hold(&self, name: &str, backend: &str, limited: impl FnOnce(Copyd) -> Copyd) -> Run {
        let name = format!("{name}-{backend}");
        let field = Field {
            source: self.source.clone(),
            destination: self.room.path().join(&name),
            state: self.room.path().join(format!("{name}-state")),
            arguments: vec![],
        };
        fs::create_dir(&field.state).unwrap();
        chown(&field.state, self.user, self.user).unwrap();
        let command = || {
            let command = Copyd::migrate(&field.source, &field.destination).args(&["--backend", backend]);
            let command = command.args(&["--jobs", "4"]).state_dir(&field.state);
            if let Some(user) = self.user { command.user(user) } else { command }
        };
        let run = limited(command()).run();
        let code = run.status.code().unwrap_or_else(|| panic!("{name}: ended by a signal: {run}"));
        println!("{name}: exit {code} after {:.1} s", run.elapsed.as_secs_f64());
        assert!([0, 11, 23].contains(&code), "{name}: {run}");
        let words = run.words();
        assert!(!words.contains("panicked") && !words.contains("internal error"), "{name}: {run}");
        assert!(code == 0 || SHORT.iter().any(|word| words.contains(word)), "{name}: does not say why: {run}");
        field.assert_nothing_torn(&name);
        if code == 0 {
            assert_same(&field.source, &field.destination);
        }
        let then = command().run().expect(0);
        assert_same(&field.source, &field.destination);
        for entry in fs::read_dir(&field.destination).unwrap() {
            let entry = entry.unwrap().file_name();
            assert!(!entry.as_encoded_bytes().starts_with(b".copyd-"), "{} is left: {then}", entry.display());
        }
        fs::remove_dir_all(&field.destination).unwrap();
        run
    }
}

/// Every fourth limit of a sweep, or with `COPYD_T35_ALL=1` all of them.
fn steps(all: &[u64]) -> Vec<u64> {
    let every = if number("COPYD_T35_ALL", 0) == 0 { 4 } else { 1 };
    println!("COPYD_T35_ALL={}", u64::from(every == 1));
    all.iter().copied().step_by(every).collect()
}

const BACKENDS: [&str; 2] = ["threads", "uring"];

#[test]
fn t35_few_descriptors() {
    let share = Share::new();
    for backend in BACKENDS {
        for most in steps(&[64, 16, 24, 32, 48, 96, 128, 256, 512]) {
            let run = share.hold(&format!("descriptors-{most}"), backend, |c| c.limit(Resource::Nofile, most));
            // Sixty-four are enough, with fewer threads and by plain calls.
            assert!(most < 64 || run.status.success(), "{most}: {run}");
        }
    }
}

#[test]
fn t35_little_memory() {
    let share = Share::new();
    let mib = 1 << 20;
    for backend in BACKENDS {
        for most in steps(&[64, 24, 40, 48, 56, 80, 96, 128, 256]) {
            share.hold(&format!("addresses-{most}"), backend, |c| c.limit(Resource::As, most * mib));
        }
        for most in steps(&[16, 4, 8, 24, 32, 40, 48, 64, 96]) {
            share.hold(&format!("data-{most}"), backend, |c| c.limit(Resource::Data, most * mib));
        }
    }
}

#[test]
fn t35_few_threads() {
    let share = Share::of_user(USERS[0]);
    for backend in BACKENDS {
        for most in steps(&[12, 3, 1, 2, 6, 4, 8, 10, 16]) {
            let run = share.hold(&format!("threads-{most}"), backend, |c| c.limit(Resource::Nproc, most));
            // The supervisor has six, the worker as many: its main thread, commands, signals, the watch, the
            // catalog's writer, and one for data.
            assert!(most < 12 || run.status.success(), "{most}: {run}");
        }
    }
}

#[test]
fn t35_no_locked_memory() {
    let share = Share::of_user(USERS[1]);
    for most in steps(&[0, 4096, 1 << 16, 1 << 20]) {
        let run = share.hold(&format!("locked-{most}"), "uring", |c| c.limit(Resource::Memlock, most));
        // A ring without registered buffers, or plain calls: complete in any case.
        run.expect(0);
    }
}

#[test]
fn t35_a_ring_that_has_no_room_is_replaced_by_plain_calls_and_one_line() {
    let share = Share::new();
    for (name, error) in [("memory", libc::ENOMEM), ("descriptors", libc::EMFILE), ("container", libc::EPERM)] {
        // As Linux before 5.12 answers where RLIMIT_MEMLOCK is used up.
        let run = share.hold(name, "uring", |c| c.refused(libc::SYS_io_uring_setup, error)).expect(0);
        assert_eq!(run.summary().text("backend"), "threads", "{run}");
        assert_eq!(run.out_text().matches("io_uring is refused here").count(), 1, "{run}");
    }
}

#[test]
fn t35_all_at_once() {
    let share = Share::of_user(USERS[2]);
    for backend in BACKENDS {
        share.hold("all", backend, |c| {
            let c = c.limit(Resource::Nofile, 64).limit(Resource::Nproc, 12).limit(Resource::Memlock, 0);
            c.limit(Resource::As, 256 << 20)
        });
    }
}
