//! A daemon of the built binary, spoken to over its unix socket by a client of a few lines.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A daemon's place: settings, state, socket, and a directory that jobs may use. Goes with this value, and so does
/// the daemon that runs in it.
#[derive(Debug)]
pub struct Daemon {
    place: tempfile::TempDir,
    roots: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// A place in which jobs may use `roots`, or a directory of the place itself.
    pub fn place(roots: Option<&Path>, settings: &str) -> Self {
        let place = tempfile::tempdir_in("/tmp").expect("/tmp takes a directory");
        let roots = roots.map_or_else(|| place.path().join("shares"), Path::to_owned);
        std::fs::create_dir_all(&roots).expect("it is ours");
        let text = format!(
            "[api]\nsocket = \"{}/run/copyd.sock\"\n[allow]\nlocal_roots = [\"{}\"]\n{settings}\n",
            place.path().display(),
            roots.display()
        );
        std::fs::write(place.path().join("copyd.toml"), text).expect("it is ours");
        Self { place, roots, child: None }
    }

    /// A place with a daemon in it.
    pub fn start(settings: &str) -> Self {
        let mut daemon = Self::place(None, settings);
        daemon.begin();
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn share(&self, name: &str) -> PathBuf {
        self.roots.join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/copyd.sock")
    }

    /// Starts the daemon, and waits until it answers.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("it is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_copyd"));
        command.arg("serve").arg("--config").arg(self.path("copyd.toml")).arg("--state-dir").arg(self.path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/").env_remove("STATE_DIRECTORY");
        self.child = Some(command.spawn().expect("the built binary starts"));
        let begun = Instant::now();
        while self.try_ask("GET", "/healthz", None).is_none() {
            assert!(begun.elapsed() < PATIENCE, "the daemon never answers: {}", self.log());
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("it is ours") {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("it is ours").is_none())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills the daemon's own process, and nothing else.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// Asks the daemon to end; how long it took, and how it went.
    pub fn terminate(&mut self) -> (Duration, ExitStatus) {
        kill_process(self.pid(), Signal::TERM).expect("it is ours");
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> (Duration, ExitStatus) {
        let mut child = self.child.take().expect("it runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("it is ours") {
                return (begun.elapsed(), status);
            }
            if begun.elapsed() > PATIENCE {
                child.kill().expect("it is ours");
                panic!("it does not end: {}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One request on a connection of its own; none where nobody answers.
    pub fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: copyd\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let text = String::from_utf8(answer).expect("an answer is text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.into()
        };
        Some((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer: {}", self.log()))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Makes a job, and gives its id.
    pub fn create(&self, spec: &Value) -> String {
        let (status, answer) = self.ask("POST", "/v1/jobs", Some(spec));
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().expect("a job has an id").to_owned()
    }

    /// A job between two shares, with more fields.
    pub fn create_between(&self, kind: &str, source: &str, destination: &str, more: Value) -> String {
        let mut spec = json!({
            "kind": kind,
            "source": {"export": self.share(source)},
            "destination": {"export": self.share(destination)},
        });
        for (field, value) in more.as_object().cloned().unwrap_or_default() {
            spec[field] = value;
        }
        self.create(&spec)
    }

    pub fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}"))
    }

    pub fn command(&self, id: &str, command: &str) -> (u16, Value) {
        self.ask("POST", &format!("/v1/jobs/{id}/{command}"), None)
    }

    pub fn commanded(&self, id: &str, command: &str) -> Value {
        let (status, answer) = self.command(id, command);
        assert_eq!(status, 202, "{command}: {answer}");
        answer
    }

    /// Waits until the job is as it should be.
    pub fn until(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let job = self.job(id);
            if holds(&job) {
                return job;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {job:#}\n{:#?}\n{}", self.events(id), self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, state, |job| job["state"] == state)
    }

    /// All events of a job.
    pub fn events(&self, id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = format!("/v1/jobs/{id}/events?limit=100");
        loop {
            let page = self.get(&path);
            all.extend(page["events"].as_array().cloned().expect("a list"));
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/jobs/{id}/events?limit=100&marker={next}"),
                None => return all,
            }
        }
    }

    /// The processes that are workers of this daemon, by what the kernel knows of their parents.
    pub fn workers(&self) -> Vec<Pid> {
        let spawners = children(self.pid().as_raw_pid());
        spawners.into_iter().flat_map(children).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A test that failed leaves none behind; its spawner sees the link's end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processes that this one has started and that run.
pub fn children(pid: i32) -> Vec<i32> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in listed {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold anything; what follows it does not.
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if rest.get(1).and_then(|parent| parent.parse().ok()) == Some(pid) && rest.first() != Some(&"Z") {
            found.push(child);
        }
    }
    found
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}
