//! One run of the engine, with everything around it: log, signals, progress, last words.
//!
//! Order matters: the log is opened before anything starts, signals are watched before the engine
//! is, and the ticker has ended before the summary is printed, so that the summary is the last line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::output::{Console, Reporter, Ticker, View, open_log};
use super::{panics, signals};
use crate::error::{Error, ExitCode};
use crate::pass::{Observer, Progress, Stop, Summary};

/// A request after parsing: the first line to print, and the work.
pub struct Request<W> {
    pub headline: String,
    pub work: W,
}

/// Carries out `prepared` and prints how it went. A request that could not be prepared ends with
/// the same last words as a run that the engine refused.
pub fn conduct<W>(view: &View, prepared: Result<Request<W>, Error>) -> ExitCode
where
    W: FnOnce(&dyn Observer, &Progress, &Arc<Stop>) -> Result<Summary, Error>,
{
    let progress = Arc::new(Progress::default());
    let stop = Arc::new(Stop::default());
    let (log, prepared) = match (&view.log_file, prepared) {
        (Some(path), Ok(request)) => match open_log(path) {
            Ok(log) => (Some(log), Ok(request)),
            Err(error) => (None, Err(error)),
        },
        (_, prepared) => (None, prepared),
    };
    let reporter = Arc::new(Reporter::new(view.clone(), Console::new(view.json), Arc::clone(&progress), log));
    let result = prepared.and_then(|request| {
        reporter.headline(&request.headline);
        let watch = signals::Watch::start(Arc::clone(&stop), Arc::clone(&reporter))?;
        panics::speak_through(Arc::clone(&reporter));
        let ticker = Ticker::start(Arc::clone(&reporter));
        let result = catch_unwind(AssertUnwindSafe(|| (request.work)(&*reporter, &progress, &stop)));
        drop(ticker);
        drop(watch);
        result.unwrap_or_else(|_| Err(Error::Internal { what: "a part of copyd panicked, see above".into() }))
    });
    reporter.finish(result, stop.requested())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};
    use std::time::{Duration, Instant};

    use rustix::process::{Signal, getpid, kill_process};
    use serde_json::Value;

    use super::*;
    use crate::cli::output::Detail;

    /// Set in the process that a test starts of itself, where the process is to end.
    const CHILD: &str = "COPYD_TEST_CHILD";

    fn view(json: bool) -> View {
        View {
            kind: "sync",
            verify: "readback",
            dry_run: false,
            json,
            stats: false,
            detail: Detail::default(),
            log_file: None,
            timeout: None,
        }
    }

    fn conducted(
        json: bool,
        work: impl FnOnce(&dyn Observer, &Progress, &Arc<Stop>) -> Result<Summary, Error> + 'static,
    ) -> ExitCode {
        conduct(&view(json), Ok(Request { headline: "a/x -> b/x".into(), work }))
    }

    fn signal(signal: Signal) {
        kill_process(getpid(), signal).expect("a process may signal itself");
    }

    fn wait_for(what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs the calling test once more in a process of its own; `None` is that process.
    fn child_of(test: &str) -> Option<Output> {
        if std::env::var_os(CHILD).is_some() {
            return None;
        }
        let name = format!("{}::{test}", module_path!().split_once("::").expect("below the crate").1);
        let own = std::env::current_exe().expect("a running test has a file");
        let output = Command::new(own).args([&name, "--exact", "--nocapture"]).env(CHILD, "1").output();
        Some(output.expect("the test starts again"))
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn summary_line(output: &Output) -> Value {
        let out = text(&output.stdout);
        let line = out.lines().rfind(|line| line.contains(r#""event":"summary""#));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no summary in {out}"))).expect("JSON")
    }

    #[test]
    fn a_panic_of_the_engine_is_an_internal_error() {
        assert_eq!(conducted(false, |_, _, _| panic!("a defect")), ExitCode::Internal);
    }

    #[test]
    fn an_error_of_the_engine_gives_its_own_exit_code() {
        let exit = conducted(false, |_, _, _| Err(Error::DeletionLimit { wanted: 2, limit: 1 }));
        assert_eq!(exit, ExitCode::DeletionLimit);
    }

    #[test]
    fn sigterm_asks_the_engine_to_stop_and_the_run_ends_with_20() {
        let exit = conducted(false, |_, _, stop| {
            signal(Signal::TERM);
            wait_for("the signal reaches the engine", || stop.requested());
            Err(Error::Guard { what: "ended early".into(), remedy: "none" })
        });
        assert_eq!(exit, ExitCode::Stopped);
    }

    #[test]
    fn a_second_sigint_ends_the_process_at_once_with_20_and_a_summary() {
        let Some(output) = child_of("a_second_sigint_ends_the_process_at_once_with_20_and_a_summary") else {
            conducted(true, |_, _, stop| {
                signal(Signal::INT);
                wait_for("the first signal asks for a stop", || stop.requested());
                signal(Signal::INT);
                std::thread::sleep(Duration::from_secs(30));
                Err(Error::Internal { what: "the second signal did nothing".into() })
            });
            return;
        };
        assert_eq!(output.status.code(), Some(20), "{output:?}");
        assert!(text(&output.stderr).contains("temporaries are left to the next run"));
        let summary = summary_line(&output);
        assert_eq!(summary["outcome"], "cancelled");
        assert_eq!(summary["exit_code"], 20);
    }

    #[test]
    fn a_panic_in_a_data_thread_ends_the_process_with_2_and_a_summary_instead_of_a_hang() {
        let name = "a_panic_in_a_data_thread_ends_the_process_with_2_and_a_summary_instead_of_a_hang";
        let Some(output) = child_of(name) else {
            panics::install();
            conducted(true, |_, _, _| {
                let data = std::thread::spawn(|| panic!("a defect with \u{1b}[2J in it"));
                std::thread::sleep(Duration::from_secs(30));
                drop(data);
                Err(Error::Internal { what: "the panic did nothing".into() })
            });
            return;
        };
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("internal error: a defect with \\#033[2J in it"), "{said}");
        assert_eq!(summary_line(&output)["outcome"], "failed");
    }

    #[test]
    fn sigusr1_prints_where_the_run_stands_and_the_run_goes_on() {
        let Some(output) = child_of("sigusr1_prints_where_the_run_stands_and_the_run_goes_on") else {
            let exit = conducted(false, |_, progress, _| {
                progress.entries_scanned.add(1234);
                signal(Signal::USR1);
                std::thread::sleep(Duration::from_millis(500));
                Err(Error::DeletionLimit { wanted: 2, limit: 1 })
            });
            assert_eq!(exit, ExitCode::DeletionLimit);
            return;
        };
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("copyd: scanning and working: 0%"), "{said}");
        assert!(said.contains("0 of 1,234 entries so far"), "{said}");
    }
}
