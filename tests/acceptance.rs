//! What the daemon promises to whoever writes a client: a program that knows the description of the API alone makes
//! migrations through the unix socket and through TLS, and the oracle finds no difference (tests/api/*.py). T26, T29,
//! T30: secrets, crowds, and calls that are repeated over a daemon that was killed.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::mounts::{self, FsType, Volume};
use support::oracle::assert_same;
use support::service::Service;
use support::tool;
use support::trees::{self, Kinds};

/// A share with something that tenants change, and room for its copy.
fn share() -> (Box<dyn Volume>, PathBuf, PathBuf) {
    let volume = mounts::volume(FsType::Ext4, 512);
    let [source, destination] = ["source", "destination"].map(|name| volume.path().join(name));
    fs::create_dir(&source).unwrap();
    trees::every_kind(&source, &Kinds::common());
    trees::small_files(&source, 300, 11).unwrap();
    for name in ["grows", "moves", "goes", "stays"] {
        fs::write(source.join(name), name.repeat(1000)).unwrap();
    }
    (volume, source, destination)
}

fn configuration(allowed: &Path, api: &str) -> String {
    format!("[api]\nsocket = \"{{room}}/sock\"\n{api}\n[allow]\nlocal_roots = [\"{}\"]\n", allowed.display())
}

#[test]
fn a_client_of_the_description_migrates_a_tree_through_the_unix_socket() {
    let (volume, source, destination) = share();
    let daemon = Service::start(&configuration(volume.path(), ""));
    let socket = daemon.socket();
    let arguments = ["--socket", text(&socket), text(&source), text(&destination)];
    daemon.scenario("migrate.py", &arguments);
    assert!(destination.join("made-meanwhile/moved").exists() && !destination.join("goes").exists());
    assert_same(&source, &destination);
}

#[test]
fn a_client_of_the_description_migrates_a_tree_through_tls_with_its_certificate() {
    let port = free_port();
    through_tls(port, &format!("listen = [\"127.0.0.1:{port}\"]"), None);
}

#[test]
fn a_daemon_without_a_network_serves_the_tls_socket_that_the_service_manager_hands_over() {
    let port = free_port();
    let daemon = through_tls(port, "", Some(port));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", daemon.id())).unwrap(), own);
    let devices = fs::read_to_string(format!("/proc/{}/net/dev", daemon.id())).unwrap();
    assert_eq!(devices.lines().filter(|line| line.contains(':')).count(), 1, "{devices}");
}

/// The migration of a tree by a client with a certificate.
fn through_tls(port: u16, listen: &str, handed: Option<u16>) -> Service {
    let (volume, source, destination) = share();
    let mut daemon = Service::prepared("");
    daemon.handed = handed;
    certificates(daemon.path());
    let api = format!(
        "{listen}\ntls_certificate = \"{{room}}/server.pem\"\ntls_key = \"{{room}}/server.key\"\n\
         client_ca = \"{{room}}/ca.pem\""
    );
    let access = "[[access]]\nname = \"cn:acceptance\"\nrole = \"admin\"\nprojects = [\"default\"]\n";
    let whole = configuration(volume.path(), &api) + access;
    fs::write(daemon.configuration(), whole.replace("{room}", text(daemon.path()))).unwrap();
    daemon.run();
    let address = format!("127.0.0.1:{port}");
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| daemon.path().join(name));
    let arguments =
        ["--address", &address, "--ca", text(&ca), "--certificate", text(&certificate), "--key", text(&key)];
    daemon.scenario("migrate.py", &[&arguments[..], &[text(&source), text(&destination)]].concat());
    assert_same(&source, &destination);
    daemon
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An authority, a server's and a client's certificate, as an administrator makes them with openssl.
fn certificates(at: &Path) {
    let file = |name: &str| at.join(name).display().to_string();
    let openssl = |arguments: &[&str]| drop(tool("openssl", "openssl", arguments));
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let authority = ["-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE"];
    let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
    openssl(&[&new[..], &authority, &["-keyout", &ca_key, "-out", &ca]].concat());
    for (name, subject, more) in [
        ("server", "/CN=copyd", "subjectAltName=IP:127.0.0.1"),
        ("client", "/CN=acceptance", "extendedKeyUsage=clientAuth"),
    ] {
        let (key, certificate) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let signed = ["-CA", &ca, "-CAkey", &ca_key, "-addext", "basicConstraints=critical,CA:FALSE"];
        let asked = ["-subj", subject, "-addext", more, "-keyout", &key, "-out", &certificate];
        openssl(&[&new[..], &signed, &asked].concat());
    }
}

/// T29.
#[test]
fn t29_ten_thousand_connections_and_slow_clients_leave_others_answered_within_a_second() {
    let (volume, ..) = share();
    let daemon = Service::start(&configuration(volume.path(), "connections_max = 12000"));
    let socket = daemon.socket();
    daemon.scenario("crowd.py", &["--socket", text(&socket)]);
}

/// T30.
#[test]
fn t30_a_call_that_is_repeated_over_a_kill_does_its_work_once_and_answers_the_same() {
    let room = mounts::volume(FsType::Ext4, 256);
    let daemon = Service::prepared(&configuration(room.path(), ""));
    let (socket, configuration, state) = (daemon.socket(), daemon.configuration(), daemon.state());
    let log = daemon.log();
    let rounds = support::crash::number("COPYD_ROUNDS", 12).to_string();
    let arguments = [
        "--copyd",
        env!("CARGO_BIN_EXE_copyd"),
        "--socket",
        text(&socket),
        "--configuration",
        text(&configuration),
        "--state",
        text(&state),
        "--log",
        text(&log),
        "--room",
        text(room.path()),
        "--rounds",
        &rounds,
    ];
    daemon.scenario("again.py", &arguments);
}

/// A daemon over a share that listens with TLS and knows one token, and the address.
fn guarded_by(token: &str, volume: &Path) -> (Service, String) {
    let mut daemon = Service::prepared("");
    certificates(daemon.path());
    fs::write(daemon.path().join("tokens"), format!("acceptance:{token}\n")).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(daemon.path().join("tokens"), private).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let api = format!(
        "listen = [\"{address}\"]\ntls_certificate = \"{{room}}/server.pem\"\ntls_key = \"{{room}}/server.key\"\n\
         tokens_file = \"{{room}}/tokens\""
    );
    let access = "[[access]]\nname = \"token:acceptance\"\nrole = \"admin\"\nprojects = [\"default\"]\n";
    let whole = configuration(volume, &api) + access;
    fs::write(daemon.configuration(), whole.replace("{room}", text(daemon.path()))).unwrap();
    daemon.run();
    (daemon, address)
}

/// T26, as far as this version has secrets: a token, the key of the server, credentials.
#[test]
fn t26_a_secret_is_in_no_argv_environment_log_store_or_answer() {
    // As a careless password manager makes one.
    let secret = "s3cr,et=\"quoted\"'and-more'";
    let token = "tokenthatnobodymaysee0123456789abcdef";
    let (volume, source, destination) = share();
    let (daemon, address) = guarded_by(token, volume.path());
    fs::write(source.join("large"), vec![3; 4 << 20]).unwrap();
    let [ca, tokens] = ["ca.pem", "token"].map(|name| daemon.path().join(name));
    fs::write(&tokens, token).unwrap();
    let arguments = ["--address", &address, "--ca", text(&ca), "--token-file", text(&tokens), "--secret", secret];
    let said = daemon.scenario("secrets.py", &[&arguments[..], &[text(&source), text(&destination)]].concat());
    // A worker runs: the scenario has left one, slowly.
    let processes = daemon.processes();
    assert!(processes.len() >= 3, "the daemon, its spawner and a worker: {processes:?}");
    // What tests/units.rs holds of an isolated worker holds of those that the daemon has started.
    let worker = processes.last().expect("there are three");
    let command = fs::read(format!("/proc/{worker}/cmdline")).unwrap();
    assert!(command.split(|byte| *byte == 0).any(|word| word == b"--isolated"), "{}", command.escape_ascii());
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&worker.to_string()), of("self"), "{namespace}");
    }
    let key = fs::read_to_string(daemon.path().join("server.key")).unwrap();
    let key = key.lines().nth(1).expect("base64").to_owned();
    let base64 = base64_of(secret.as_bytes());
    let json = serde_json::to_string(secret).unwrap();
    let secrets = [secret, token, &key, &base64, json.trim_matches('"')];
    let mut looked = 0;
    let mut look = |what: String, bytes: &[u8]| {
        looked += 1;
        for secret in secrets {
            if let Some(at) = bytes.windows(secret.len()).position(|part| part == secret.as_bytes()) {
                let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
                panic!("{what} holds {secret}: {}", String::from_utf8_lossy(around));
            }
        }
    };
    for process in &processes {
        for name in ["cmdline", "environ"] {
            look(format!("{name} of {process}"), &fs::read(format!("/proc/{process}/{name}")).unwrap());
        }
    }
    look("the log".into(), daemon.said().as_bytes());
    look("an answer".into(), &said.stdout);
    let mut pending = vec![daemon.state()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                look(entry.path().display().to_string(), &fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    assert!(looked > 10, "{looked}");
    // No core file would be written, of the daemon or of a worker.
    for process in processes {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap_or_default();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or("gone 0 0");
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{process}: {core}");
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// T25.
#[test]
fn t25_jobs_go_on_while_the_clock_jumps_ten_years_either_way() {
    let room = mounts::volume(FsType::Ext4, 128);
    let mut daemon = Service::prepared(&configuration(room.path(), ""));
    let [shim, clock] = ["clock.so", "clock"].map(|name| daemon.path().join(name));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/clock.c");
    tool("gcc", "gcc", &["-shared", "-fPIC", "-O1", "-o", text(&shim), text(&source)]);
    fs::write(&clock, 0i64.to_ne_bytes()).unwrap();
    daemon.environment = vec![("LD_PRELOAD", shim.clone().into()), ("COPYD_TEST_CLOCK", clock.clone().into())];
    daemon.run();
    // The shim does what it says, or the test would prove nothing.
    fs::write(&clock, 1_000_000_000i64.to_ne_bytes()).unwrap();
    let mut date = std::process::Command::new("date");
    date.arg("+%s").envs(daemon.environment.iter().map(|(name, value)| (name, value)));
    let moved = date.output().expect("date is everywhere");
    let moved: u64 = String::from_utf8_lossy(&moved.stdout).trim().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(moved > now + 999_999_000, "{moved} {now}");
    fs::write(&clock, 0i64.to_ne_bytes()).unwrap();
    let socket = daemon.socket();
    daemon.scenario("clock.py", &["--socket", text(&socket), "--clock", text(&clock), text(room.path())]);
}
