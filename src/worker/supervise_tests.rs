//! Against workers that keep to nothing.

use super::*;
use crate::error::ExitCode;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn text(&self) -> String {
        lock(&self.0).join("\n")
    }
}

impl Listener for Heard {
    fn heard(&self, line: &str, _: &Report<'static>) {
        lock(&self.0).push(line.into());
    }
    fn said(&self, line: &[u8]) {
        lock(&self.0).push(String::from_utf8_lossy(line).into_owned());
    }
    fn remark(&self, text: &str) {
        lock(&self.0).push(text.into());
    }
    fn tick(&self) {}
    fn give_up(&self, error: &Error) {
        panic!("nobody holds up the printing: {error}");
    }
}

/// A worker that is a shell, with the specification in `$spec`.
fn shell(script: &str, timeout: Option<Duration>) -> Supervisor {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("read -r spec; {script}")]);
    Supervisor::spawn(command, "the specification".into(), timeout, None).unwrap()
}

fn verdict(supervisor: Supervisor) -> (Verdict, String) {
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn Listener> = Arc::clone(&heard) as _;
    let verdict = supervisor.attend(&listener);
    (verdict, heard.text())
}

fn forced(verdict: Verdict) -> Error {
    match verdict {
        Verdict::Forced(error) => error,
        Verdict::Ended(word) => panic!("{word:?}"),
    }
}

fn summary() -> String {
    let identity = super::super::Identity::of("sync", "none", false);
    let standing = super::super::Standing::default();
    Report::Summary(Box::new(LastWord::counted(&identity, &standing, ExitCode::SomeFailed, None))).line()
}

#[test]
fn a_last_word_is_the_verdict_and_everything_before_it_is_heard() {
    let script =
        format!("echo \"$spec\" >&2; echo '{{\"event\":\"pass_started\",\"pass\":1}}'; echo '{}'; exit 23", summary());
    let (found, heard) = verdict(shell(&script, None));
    let Verdict::Ended(word) = found else { panic!("{found:?}") };
    assert_eq!(word.exit(), ExitCode::SomeFailed);
    assert!(heard.contains("the specification") && heard.contains("pass_started"), "{heard}");
}

#[test]
fn a_worker_that_dies_without_a_last_word_is_said_to_have_died_and_how() {
    for (script, how) in
        [("kill -9 $$", "was killed (signal 9)"), ("exit 7", "ended with code 7"), ("kill -11 $$", "by signal 11")]
    {
        let error = forced(verdict(shell(script, None)).0);
        assert_eq!(error.exit_code(), ExitCode::Internal);
        assert!(error.to_string().contains(how), "{error}");
        assert!(error.remedy().contains("run the same command again"));
    }
}

#[test]
fn a_worker_that_does_not_stop_when_asked_is_ended_within_five_seconds() {
    let supervisor = shell("trap '' INT TERM; while :; do sleep 0.2; done", None);
    let handle = supervisor.handle();
    assert!(!handle.cancelling());
    handle.cancel();
    let begun = Instant::now();
    let error = forced(verdict(supervisor).0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(error.exit_code(), ExitCode::Stopped);
    assert!(handle.cancelling());
}

#[test]
fn a_cancel_reaches_a_worker_that_listens_and_its_own_end_counts() {
    let script = format!("read -r command; echo \"$command\" >&2; echo '{}'", summary());
    let supervisor = shell(&script, None);
    supervisor.handle().cancel();
    let (found, heard) = verdict(supervisor);
    assert!(matches!(found, Verdict::Ended(_)));
    assert!(heard.contains(r#"{"command":"cancel"}"#), "{heard}");
}

#[test]
fn an_end_at_once_does_not_wait_for_a_safe_point() {
    let supervisor = shell("exec sleep 60", None);
    supervisor.handle().end_at_once();
    let begun = Instant::now();
    assert_eq!(forced(verdict(supervisor).0).exit_code(), ExitCode::Stopped);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_stall_as_long_as_the_timeout_ends_the_run_and_is_named() {
    let stall = r#"{"event":"stall","side":"source","operation":"read","seconds":9}"#;
    let standing = super::super::Standing { still_s: 9, ..Default::default() };
    let script = format!("echo '{stall}'; echo '{}'; exec sleep 60", Report::Progress(standing).line());
    let error = forced(verdict(shell(&script, Some(Duration::from_secs(8)))).0);
    assert_eq!(error.exit_code(), ExitCode::Timeout);
    assert_eq!(error.to_string(), "no answer from source for 9 s (read)");
}

#[test]
fn silence_is_noticed_and_counts_as_a_stall_and_a_full_pipe_does_not() {
    let second = Duration::from_secs(1);
    let start = Instant::now();
    let mut seen = Seen::new();
    seen.heard = start;
    assert_eq!(seen.due(start + second * 60, None), None, "without a timeout it may last");
    assert_eq!(seen.due(start + second * 4, Some(second)), None, "shorter than a heartbeat may be late");
    assert_eq!(seen.due(start + second * 6, Some(second)), Some(Due::Silent(second * 6)));
    seen.clogged = true;
    assert_eq!(seen.due(start + second * 6, Some(second)), None);
    let (found, heard) = verdict(shell(&format!("sleep 6; echo '{}'", summary()), None));
    assert!(matches!(found, Verdict::Ended(_)) && heard.contains("no sign of life"), "{heard}");
}
