//! Runs the built binary: a state directory of its own, a limit on its time, its output in parts.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// No run of a test takes longer than this, unless it says so.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A command line under construction.
#[derive(Debug)]
pub struct Copyd {
    arguments: Vec<OsString>,
    state_dir: StateDir,
    timeout: Duration,
    user: Option<u32>,
    refused: Vec<(i64, i32)>,
    limits: Vec<(Resource, u64)>,
}

#[derive(Debug)]
enum StateDir {
    Private(tempfile::TempDir),
    Given(PathBuf),
}

impl Copyd {
    /// A verb with its state in a fresh directory that goes with this value. A second run of the
    /// same value is a second run of the same job.
    pub fn new(verb: &str) -> Self {
        let state = tempfile::Builder::new().prefix("copyd-state-").tempdir_in("/tmp").expect("/tmp takes a directory");
        let (arguments, state_dir) = (vec![verb.into()], StateDir::Private(state));
        Self { arguments, state_dir, timeout: TIMEOUT, user: None, refused: Vec::new(), limits: Vec::new() }
    }

    /// `copyd migrate --json SRC DST`.
    pub fn migrate(source: &Path, destination: &Path) -> Self {
        Self::new("migrate").arg("--json").arg(source).arg(destination)
    }

    /// `copyd migrate SRC DST`, which speaks to people.
    pub fn migrate_plainly(source: &Path, destination: &Path) -> Self {
        Self::new("migrate").arg(source).arg(destination)
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn state_dir(mut self, path: &Path) -> Self {
        self.state_dir = StateDir::Given(path.to_owned());
        self
    }

    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs as this user and group instead of root.
    pub const fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Runs where the kernel refuses io_uring, as in many containers.
    pub fn ring_refused(self) -> Self {
        self.refused(libc::SYS_io_uring_setup, libc::EPERM)
    }

    /// Runs where the kernel answers this system call with an error.
    pub fn refused(mut self, call: i64, error: i32) -> Self {
        self.refused.push((call, error));
        self
    }

    /// Runs with at most so much of a resource.
    pub fn limit(mut self, resource: Resource, value: u64) -> Self {
        self.limits.push((resource, value));
        self
    }

    /// Runs it to its end. A run over its time is killed and fails the test.
    pub fn run(&self) -> Run {
        self.spawn().wait()
    }

    /// Starts it, for a test that acts meanwhile.
    pub fn spawn(&self) -> Running {
        let state = match &self.state_dir {
            StateDir::Private(directory) => directory.path(),
            StateDir::Given(path) => path,
        };
        // Another user may not reach the build directory, so the binary comes to where it can.
        let copied = self.user.map(|id| {
            std::os::unix::fs::chown(state, Some(id), Some(id)).expect("root gives the state directory away");
            let place = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
            std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
            std::fs::copy(env!("CARGO_BIN_EXE_copyd"), place.path().join("copyd")).expect("the binary is built");
            place
        });
        let binary = copied.as_ref().map_or_else(|| env!("CARGO_BIN_EXE_copyd").into(), |p| p.path().join("copyd"));
        let mut command = Command::new(binary);
        command.args(&self.arguments);
        if self.arguments.iter().any(|a| a == "migrate" || a == "sync") {
            command.arg("--state-dir").arg(state);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The worker stays in the group of its supervisor, so that one call reaches both.
        command.process_group(0);
        command.current_dir("/").env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env("NO_COLOR", "1");
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        for (resource, value) in &self.limits {
            super::raw::limit(&mut command, *resource, *value);
        }
        for (call, error) in &self.refused {
            super::raw::refuse(&mut command, *call, *error);
        }
        let started = Instant::now();
        let mut child = command.spawn().expect("the built binary starts");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        Running {
            command: format!("copyd {}", self.shown()),
            child,
            out: Some(thread::spawn(|| drained(out))),
            err: Some(thread::spawn(|| drained(err))),
            started,
            timeout: self.timeout,
            _binary: copied,
        }
    }

    fn shown(&self) -> String {
        let shown: Vec<_> = self.arguments.iter().map(|a| a.to_string_lossy()).collect();
        shown.join(" ")
    }
}

/// A run that has not ended yet. Killed when dropped, so that a test which fails leaves none behind.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
    timeout: Duration,
    /// Where another user's binary lies.
    _binary: Option<tempfile::TempDir>,
}

impl Running {
    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Since it was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What ends or stops a run at once goes to all of it, as from a crash or a machine that stands still; what
    /// asks for something goes to the supervisor, which answers.
    pub fn signal(&self, signal: Signal) {
        if [Signal::KILL, Signal::STOP, Signal::CONT].contains(&signal) {
            let worker = self.worker();
            kill_process_group(Pid::from_child(&self.child), signal).expect("the group is ours");
            if signal == Signal::KILL {
                // Whoever waits for the supervisor must not meet what its worker still holds open.
                worker.inspect(|worker| gone(*worker));
            }
        } else {
            self.signal_supervisor(signal);
        }
    }

    pub fn signal_supervisor(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child is ours and was not waited for");
    }

    /// The process that does the work, once there is one.
    pub fn worker(&self) -> Option<Pid> {
        let id = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).ok()?.flatten();
        let mut children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        children.find_map(|text| Pid::from_raw(text.split_whitespace().next()?.parse().ok()?))
    }

    pub fn signal_worker(&self, signal: Signal) {
        kill_process(self.worker().expect("there is a worker"), signal).expect("the worker is there");
    }

    /// Waits until `reached`, and panics with all the run said where it ends before.
    pub fn until(&mut self, what: &str, mut reached: impl FnMut() -> bool) {
        while !reached() {
            let on_its_way = self.runs() && self.started.elapsed() <= self.timeout;
            assert!(on_its_way, "never came to where {what}: {}", self.end());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end, and says how much memory supervisor and worker had at most, together, in KiB
    /// (`VmHWM` of proc(5)).
    pub fn wait_measured(mut self) -> (Run, u64) {
        let (mut supervisor, mut worker) = (0, 0);
        let id = Pid::from_child(&self.child);
        while self.runs() {
            supervisor = peak_kib(id).unwrap_or(supervisor);
            worker = self.worker().and_then(peak_kib).unwrap_or(worker);
            assert!(
                self.started.elapsed() <= self.timeout,
                "killed after {} s: {}",
                self.timeout.as_secs(),
                self.end()
            );
            thread::sleep(Duration::from_millis(2));
        }
        assert!(worker > 0, "it was too fast to be measured: {}", self.end());
        (self.end(), supervisor + worker)
    }

    /// Waits for its end. A run over its time is killed and fails the test.
    pub fn wait(mut self) -> Run {
        while self.runs() {
            let in_time = self.started.elapsed() <= self.timeout;
            assert!(in_time, "killed after {} s: {}", self.timeout.as_secs(), self.end());
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    /// Ends it where it runs, and takes what it said.
    fn end(&mut self) -> Run {
        if self.runs() {
            self.signal(Signal::KILL);
        }
        let read = |reader: Option<JoinHandle<Vec<u8>>>| {
            reader.map(|r| r.join().expect("the reader ends with the pipe")).unwrap_or_default()
        };
        Run {
            command: self.command.clone(),
            status: self.child.wait().expect("the child is ours"),
            stdout: read(self.out.take()),
            stderr: read(self.err.take()),
            elapsed: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it has ended, and was waited for; the group may have gone with it.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a process that was killed holds nothing open any more: each of its threads has gone, and at most
/// its entry waits for whoever is to reap it.
fn gone(process: Pid) {
    let start = Instant::now();
    let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
    // "1234 (copyd) Z 1 …"
    let dead = |stat: String| stat.contains(") Z ") || stat.contains(") X ");
    let runs = || {
        let tasks: Vec<_> = std::fs::read_dir(&tasks).into_iter().flatten().flatten().collect();
        let alive = |task: &std::fs::DirEntry| !std::fs::read_to_string(task.path().join("stat")).is_ok_and(dead);
        tasks.len() > 1 || tasks.iter().any(alive)
    };
    while runs() && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn drained(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("a pipe can be read to its end");
    bytes
}

/// The end of a text, which tells most, where it is long.
fn ending(text: &str) -> String {
    const SHOWN: usize = 4000;
    let skipped = text.chars().count().saturating_sub(SHOWN);
    let mark = if skipped > 0 { "…" } else { "" };
    format!("{mark}{}", text.chars().skip(skipped).collect::<String>())
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    command: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub elapsed: Duration,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} ({}, {:.1} s)", self.command, self.status, self.elapsed.as_secs_f64())?;
        writeln!(f, "stdout:\n{}", ending(&self.out_text()))?;
        write!(f, "stderr:\n{}", ending(&self.err_text()))
    }
}

impl Run {
    pub fn out_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// All that it said, in small letters, for a look at its words.
    pub fn words(&self) -> String {
        format!("{}\n{}", self.out_text(), self.err_text()).to_lowercase()
    }

    /// Panics with all the run said unless it ended with this code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.signal(), None, "ended by a signal: {self}");
        assert_eq!(self.status.code(), Some(code), "expected exit code {code}: {self}");
        self
    }

    /// The events of a run with `--json`: every line of stdout is one.
    pub fn events(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.stdout).expect("JSON is UTF-8");
        text.lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(event) => event,
                Err(e) => panic!("not a JSON line ({e}): {line}\n{self}"),
            })
            .collect()
    }

    /// The event that names the job.
    pub fn started(&self) -> Value {
        let started = self.events().into_iter().find(|event| event["event"] == "started");
        started.unwrap_or_else(|| panic!("it never started: {self}"))
    }

    /// The summary, which is the last event.
    pub fn summary(&self) -> Summary {
        let last = self.events().pop();
        match last {
            Some(value) if value["event"] == "summary" => Summary(value),
            _ => panic!("the last line is not a summary: {self}"),
        }
    }
}

/// The JSON summary of `docs/cli.md`.
#[derive(Debug)]
pub struct Summary(pub Value);

impl Summary {
    pub fn count(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_else(|| panic!("{field} is not a count in {}", self.0))
    }

    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field} is not text in {}", self.0))
    }

    /// The sum over the classes of `lost` or `degraded`.
    pub fn classes(&self, field: &str) -> u64 {
        let classes = self.0[field].as_object().unwrap_or_else(|| panic!("{field} is not an object in {}", self.0));
        classes.values().map(|count| count.as_u64().expect("a class has a count")).sum()
    }
}

/// The most memory that a process has had so far; none where it has gone.
fn peak_kib(process: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}
