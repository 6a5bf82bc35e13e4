//! `copyd serve` as a test has it: a configuration and a state of its own, gone with the value.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A daemon, or the place of one.
#[derive(Debug)]
pub struct Service {
    room: tempfile::TempDir,
    child: Option<Child>,
    /// The service manager opens this port of 127.0.0.1 for it, and it has no network of its own.
    pub handed: Option<u16>,
    /// Variables that it is started with.
    pub environment: Vec<(&'static str, std::ffi::OsString)>,
}

impl Service {
    /// A place with this configuration, in which `{room}` stands for the place itself. The socket is `{room}/sock`.
    pub fn prepared(configuration: &str) -> Self {
        // Short: the path of a socket has room for 107 bytes.
        let room = tempfile::Builder::new().prefix("copyd-d-").tempdir_in("/tmp").expect("/tmp takes a directory");
        let daemon = Self { room, child: None, handed: None, environment: Vec::new() };
        let text = configuration.replace("{room}", &daemon.room.path().display().to_string());
        fs::write(daemon.configuration(), text).expect("it is ours");
        fs::set_permissions(daemon.configuration(), Permissions::from_mode(0o600)).expect("it is ours");
        daemon
    }

    /// As [`Self::prepared`], and it runs and answers.
    pub fn start(configuration: &str) -> Self {
        let mut daemon = Self::prepared(configuration);
        daemon.run();
        daemon
    }

    pub fn path(&self) -> &Path {
        self.room.path()
    }

    pub fn configuration(&self) -> PathBuf {
        self.path().join("copyd.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("sock")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// The process of the API, while it runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self) {
        use std::os::unix::process::CommandExt;
        let log = File::options().append(true).create(true).open(self.log()).expect("it is ours");
        let mut command = match self.handed {
            None => Command::new(env!("CARGO_BIN_EXE_copyd")),
            Some(port) => {
                let mut command = Command::new("systemd-socket-activate");
                command.args(["--listen", &format!("127.0.0.1:{port}"), "unshare", "--net"]);
                command.arg(env!("CARGO_BIN_EXE_copyd"));
                command
            }
        };
        command.arg("serve").arg("--config").arg(self.configuration()).arg("--state-dir").arg(self.state());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log).process_group(0);
        command.env_remove("STATE_DIRECTORY").env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("it starts: install the packages systemd and util-linux"));
        let began = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            // The first who calls is what it is started for.
            let _ = self.handed.map(|port| std::net::TcpStream::connect(("127.0.0.1", port)));
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("it is ours");
            assert!(ended.is_none(), "it ended ({ended:?}): {}", self.said());
            assert!(began.elapsed() < Duration::from_secs(30), "it does not listen: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).expect("it is ours");
    }

    /// Asks it to end, and gives its exit code and how long that took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.child.take().expect("it runs").wait().expect("it is ours");
        (status.code(), began.elapsed())
    }

    /// Its processes: itself, its spawner, the workers.
    pub fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.id()];
        let mut next = 0;
        while let Some(id) = found.get(next) {
            let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            let children: Vec<u32> = children
                .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
                .collect();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// Runs a scenario of tests/api against it.
    pub fn scenario(&self, script: &str, arguments: &[&str]) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        command.arg("-B").arg(root.join("tests/api").join(script));
        command.arg("--openapi").arg(root.join("docs/openapi/v1.0.json")).args(arguments);
        let output = command.output().expect("python3 is there: install the package python3");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}: {}\n{out}\n{err}\nThe daemon:\n{}", output.status, self.said());
        println!("{out}");
        output
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its spawner and the workers are of its group, or end with it.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }
}
