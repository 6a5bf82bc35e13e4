//! An isolated worker to be looked at from outside, and a room for its work.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::mounts::{self, FsType, Volume};

/// An isolated worker with its pipes. Killed when dropped.
pub struct Worker {
    pub child: Child,
    pub commands: ChildStdin,
    pub lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub fn start(specification: &Value, more: &[&str]) -> Self {
        Self::begin(Command::new(env!("CARGO_BIN_EXE_copyd")).args(["worker", "--isolated"]).args(more), specification)
    }

    pub fn begin(command: &mut Command, specification: &Value) -> Self {
        command.current_dir("/").env("SECRET_OF_THE_CALLER", "hunter2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("copyd starts");
        let mut commands = child.stdin.take().expect("a pipe");
        writeln!(commands, "{specification}").expect("it listens");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, commands, lines }
    }

    pub fn next(&mut self) -> Option<Value> {
        self.lines.next().map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
    }

    /// The next event of that kind.
    pub fn until(&mut self, event: &str) -> Value {
        let mut seen = Vec::new();
        while let Some(next) = self.next() {
            if next["event"] == event {
                return next;
            }
            seen.push(next);
        }
        panic!("no {event} in {seen:#?}")
    }

    pub fn cancel(&mut self) {
        writeln!(self.commands, "{}", json!({"command": "cancel"})).expect("it listens");
    }

    /// The summary at its end.
    pub fn end(&mut self) -> Value {
        let summary = self.until("summary");
        let code = self.child.wait().expect("it ends").code();
        assert_eq!(summary["exit_code"].as_i64(), code.map(i64::from), "{summary}");
        summary
    }

    /// A file of `/proc/PID`.
    pub fn of_process(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }

    pub fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(self.of_process("status")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.trim().to_owned()
    }

    pub fn namespace(&self, name: &str) -> PathBuf {
        fs::read_link(self.of_process("ns").join(name)).expect("it runs")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A room on a disk of its own: source, an outside neighbour, state.
pub struct Room {
    pub volume: Box<dyn Volume>,
}

impl Room {
    pub fn new(kind: FsType) -> Self {
        let volume = mounts::volume(kind, 256);
        for name in ["source", "outside", "state"] {
            fs::create_dir(volume.path().join(name)).unwrap();
        }
        fs::write(volume.path().join("outside/file"), "not the job's").unwrap();
        fs::set_permissions(volume.path().join("state"), fs::Permissions::from_mode(0o700)).unwrap();
        Self { volume }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }

    pub fn sync(&self, destination: &str) -> Value {
        json!({"schema": 1, "kind": "sync", "source": {"export": self.at("source")},
            "destination": {"export": self.at(destination)}, "state_dir": self.at("state")})
    }

    /// A worker in the middle of its work, slow enough to be looked at.
    pub fn live(&self, more: &[&str]) -> (Worker, Value) {
        self.begin(Command::new(env!("CARGO_BIN_EXE_copyd")).args(["worker", "--isolated"]).args(more))
    }

    pub fn begin(&self, command: &mut Command) -> (Worker, Value) {
        fs::write(self.at("source/large"), vec![7; 8 << 20]).unwrap();
        fs::create_dir_all(self.at("destination")).unwrap();
        let mut specification = self.sync("destination");
        specification["limits"] = json!({"bytes_per_s": 200_000});
        let mut worker = Worker::begin(command, &specification);
        let confined = worker.until("confined");
        worker.until("pass_started");
        (worker, confined)
    }
}
