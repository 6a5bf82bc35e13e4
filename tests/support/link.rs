//! Speaks to a spawner as the daemon does, or as somebody who has taken the daemon over.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running spawner and our end of its link.
#[derive(Debug)]
pub struct Spawner {
    pub child: Child,
    input: BufReader<UnixStream>,
    output: UnixStream,
    pub hello: Value,
}

impl Spawner {
    /// Starts one that may touch what lies below `root`, with its state below `state`.
    pub fn start(root: &Path, state: &Path) -> Self {
        let config = settings(root, state);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).expect("it is open");
        let mut command = Command::new(env!("CARGO_BIN_EXE_copyd"));
        command.args(["spawner", "--link", &theirs.as_raw_fd().to_string(), "--config"]).arg(&config);
        command.arg("--engine-dir").arg(state.join("engine"));
        let child = command.stdin(Stdio::null()).spawn().expect("the built binary starts");
        drop(theirs);
        Self::greeted(child, ours)
    }

    /// Starts one that listens at a socket, as the service manager does.
    pub fn listen(socket: &Path, root: &Path, state: &Path) -> Child {
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("a fresh place");
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("it is ours");
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 0</dev/null"#, "sh", env!("CARGO_BIN_EXE_copyd"), "spawner", "--config"]);
        command.arg(settings(root, state)).arg("--engine-dir").arg(state.join("engine"));
        command.env("LISTEN_FDS", "1").stdin(std::os::fd::OwnedFd::from(listener));
        command.spawn().expect("the built binary starts")
    }

    /// Connects to one that listens.
    pub fn connect(child: Child, socket: &Path) -> Self {
        Self::greeted(child, UnixStream::connect(socket).expect("it listens"))
    }

    fn greeted(child: Child, ours: UnixStream) -> Self {
        ours.set_read_timeout(Some(Duration::from_mins(1))).expect("a timeout");
        let input = BufReader::new(ours.try_clone().expect("a descriptor"));
        let mut spawner = Self { child, input, output: ours, hello: Value::Null };
        spawner.hello = spawner.line().expect("it says hello");
        spawner
    }

    /// Closes the link, and gives the process back.
    pub fn disconnect(self) -> Child {
        self.output.shutdown(std::net::Shutdown::Both).expect("it is connected");
        self.child
    }

    pub fn say(&mut self, line: &Value) {
        self.raw(&format!("{line}\n"));
    }

    pub fn raw(&mut self, text: &str) {
        self.output.write_all(text.as_bytes()).expect("it listens");
    }

    /// The next line; none when the link is closed.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))),
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// Asks for a copy.
    pub fn start_copy(&mut self, run: &str, kind: &str, source: &Path, destination: &Path) {
        self.start_with(run, "default", &specification(kind, source, destination), None);
    }

    pub fn start_with(&mut self, run: &str, project: &str, specification: &Value, namespace: Option<&str>) {
        self.say(&json!({
            "do": "start", "run": run, "project": project, "specification": specification,
            "network_namespace": namespace,
        }));
    }

    /// The lines of one run up to its last.
    pub fn until_end_of(&mut self, run: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().unwrap_or_else(|| panic!("the link ended: {lines:#?}"));
            if line["run"] != run {
                continue;
            }
            let last = line.get("ended").is_some();
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// The daemon is gone. Gives the time until its spawner is, and how it went.
    pub fn leave(self) -> (Duration, std::process::ExitStatus) {
        let Self { mut child, input, output, .. } = self;
        output.shutdown(std::net::Shutdown::Both).expect("it is connected");
        drop((input, output));
        let begun = Instant::now();
        let status = child.wait().expect("it is ours");
        (begun.elapsed(), status)
    }
}

fn settings(root: &Path, state: &Path) -> std::path::PathBuf {
    let config = state.join("copyd.toml");
    let root = root.display();
    let text =
        format!("[allow]\nlocal_roots = [\"{root}\"]\nnetwork_namespaces = [\"tenant\"]\nprojects = [\"default\"]\n");
    std::fs::write(&config, text).expect("the settings can be written");
    config
}

pub fn specification(kind: &str, source: &Path, destination: &Path) -> Value {
    json!({
        "schema": 1, "kind": kind,
        "source": {"export": source}, "destination": {"export": destination},
    })
}
