//! `copyd worker`: what every run is carried out by, and what a program in any language can call.

use std::ffi::OsStr;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::output::log_to_stderr;
use super::panics;
use crate::error::{Error, ExitCode};
use crate::pass::Stop;
use crate::worker::{Specification, Worker, escape_path, forget_the_caller, isolate, read_specification};

/// Carries out the specification in `file`, or the one that is the first line of stdin (`-`). With `isolated` it
/// enters namespaces of its own first, of the network the one that is named.
pub fn run(file: &Path, log: bool, isolated: bool, network: Option<&OsStr>) -> ExitCode {
    // Before anything else: no descriptor is this process's own so far, and no thread.
    let isolation = isolated.then(forget_the_caller);
    let worker = Worker::new(io::stdout());
    panics::speak_through(worker.emitter() as _);
    let mut commands = BufReader::new(io::stdin());
    // The handlers speak through sockets, which an isolated process can't make any more.
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]);
    let mut specification = match file.as_os_str().as_encoded_bytes() {
        b"-" => read_specification(&mut commands),
        _ => read_file(file),
    };
    if let Some(mut isolation) = isolation {
        specification = specification.and_then(|found| isolate(&mut isolation, &found, network).map(|()| found));
        worker.emitter().note_isolation(isolation);
    }
    if log {
        log_to_stderr();
    }
    let specification = watch_signals(signals, worker.stop()).and(specification);
    worker.run(specification, commands)
}

fn read_file(file: &Path) -> Result<Specification, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::Usage {
        what: format!("the specification {} can't be read: {error}", escape_path(file)),
        remedy: "check the path, or write it to stdin",
    })?;
    Specification::parse(&text)
}

/// SIGTERM asks for a stop at a safe point. SIGINT and SIGUSR1 are the supervisor's, and reach the worker
/// only because a terminal sends them to all of a group.
fn watch_signals(signals: io::Result<Signals>, stop: Arc<Stop>) -> Result<(), Error> {
    let failed = |source| Error::Resources { what: "no thread or descriptor to watch for signals", source };
    let mut signals = signals.map_err(failed)?;
    let watching = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGTERM {
                stop.request();
            }
        }
    });
    watching.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    /// Set in the process that a test starts of itself, where the process is to end.
    const CHILD: &str = "COPYD_TEST_CHILD";

    #[test]
    fn a_panic_in_a_data_thread_ends_the_process_with_2_and_a_summary_instead_of_a_hang() {
        if std::env::var_os(CHILD).is_some() {
            panics::install();
            let worker = Worker::new(io::stdout());
            panics::speak_through(worker.emitter() as _);
            let (commands, _open) = io::pipe().expect("a pipe");
            worker.attend(BufReader::new(commands), |_, _, _| {
                let data = std::thread::spawn(|| panic!("a defect with \u{1b}[2J in it"));
                std::thread::sleep(Duration::from_secs(30));
                drop(data);
                Err(Error::Internal { what: "the panic did nothing".into() })
            });
            return;
        }
        let name =
            "cli::worker::tests::a_panic_in_a_data_thread_ends_the_process_with_2_and_a_summary_instead_of_a_hang";
        let own = std::env::current_exe().expect("a running test has a file");
        let output = Command::new(own).args([name, "--exact", "--nocapture"]).env(CHILD, "1").output();
        let output = output.expect("the test starts again");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("internal error: a defect with \\#033[2J in it"), "{said}");
        let out = String::from_utf8_lossy(&output.stdout);
        let line = out.lines().rfind(|line| line.contains(r#""event":"summary""#));
        let summary: Value = serde_json::from_str(line.expect("a summary")).expect("JSON");
        assert_eq!((&summary["outcome"], &summary["error"]["class"]), (&"failed".into(), &"internal".into()));
    }
}
