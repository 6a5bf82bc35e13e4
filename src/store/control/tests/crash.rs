//! A daemon that is killed has forgotten nothing that it had been told was stored.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::*;
use crate::store::tests::{child_of, handed_over};

const CHILD: &str = "COPYD_TEST_KILLED_DAEMON";

/// Makes jobs and steps them until it is killed, and says what was stored after each verb.
fn write_until_killed(directory: &Path) {
    let mut control = open(directory).expect("open");
    for n in 1.. {
        let key = Idempotency { scope: "s".into(), key: n.to_string(), fingerprint: [1; 32] };
        let mut job = job(n, migrate());
        control.create(&job, &created(&job), Some((&key, "made"))).expect("create");
        println!("\nsafe {n} {}", job.generation);
        for command in [Command::Start, Command::Pause, Command::Resume, Command::Restarted] {
            job = commit(&mut control, &job, command);
            control.append(job.id, &[note("a"), note("b")]).expect("append");
            println!("\nsafe {n} {}", job.generation);
            std::io::stdout().flush().expect("stdout");
        }
    }
}

#[test]
fn a_killed_daemon_has_every_step_that_it_was_told_of_and_events_without_a_gap() {
    if let Some(directory) = handed_over(CHILD) {
        return write_until_killed(&directory);
    }
    let name =
        "store::control::tests::crash::a_killed_daemon_has_every_step_that_it_was_told_of_and_events_without_a_gap";
    for round in 0..5 {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut child = child_of(name, CHILD, scratch.path());
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let safe = |line: std::io::Result<String>| {
            let line = line.ok()?;
            let (n, generation) = line.strip_prefix("safe ")?.split_once(' ')?;
            Some((n.parse::<u128>().ok()?, generation.parse::<u64>().ok()?))
        };
        let mut last = lines.by_ref().find_map(safe).expect("a first job");
        let id = child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30 + 17 * round));
            let pid = rustix::process::Pid::from_raw(id.cast_signed()).expect("pid");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        });
        last = lines.filter_map(safe).last().unwrap_or(last);
        killer.join().expect("killer");
        assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));

        let mut control = open(scratch.path()).expect("open after the kill");
        let reader = control.reader().expect("reader");
        let (n, generation) = last;
        let found = reader.job(job(n, migrate()).id).expect("job").expect("what was told is there");
        assert!(found.generation >= generation, "{} is before {generation}", found.generation);
        let jobs = reader.jobs(&JobFilter::default(), Sort::default(), 100_000, None).expect("jobs").items;
        assert!(jobs.len() as u128 == n || jobs.len() as u128 == n + 1, "{} jobs after {n}", jobs.len());
        for job in &jobs {
            let ids = ids(&control, job);
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "a gap");
        }
        // Who asks for the same once more gets the same, and no second job.
        let key = Idempotency { scope: "s".into(), key: n.to_string(), fingerprint: [1; 32] };
        let again = control.create(&job(n + 7, migrate()), &[], Some((&key, "made"))).expect("create");
        assert_eq!(again, Created::Replay("made".into()));
    }
}
