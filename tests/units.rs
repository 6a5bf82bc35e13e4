//! T27: the service manager's units. How much they leave open, by the manager's own measure; that each line has its
//! reason; and that the unit which describes a worker says what a live worker really is held to, line by line.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::CapabilitySet;

use support::isolated::{Room, Worker};
use support::mounts::FsType;
use support::raw::error_of;
use support::tool;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![units()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn is_unit(path: &Path) -> bool {
    // Drop-ins too, but not what sysusers and tmpfiles read.
    let in_top = path.parent() == Some(&units());
    in_top && path.extension().is_some_and(|e| ["service", "socket", "conf"].iter().any(|known| e == *known))
}

/// `Key=value` of a unit, in order.
fn directives(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    lines.filter_map(|line| line.split_once('=')).collect()
}

/// The manager's judgement of a unit, held to a bound in tenths.
fn exposed_at_most(unit: &Path, tenths: u32) {
    let threshold = format!("--threshold={tenths}");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", &threshold]).arg(unit);
    let output = command.output().expect("systemd-analyze is there: install the package systemd");
    let said = String::from_utf8_lossy(&output.stdout);
    // By the words too: a manager that can't judge ends well as well.
    let level = said.lines().find_map(|line| line.split_once("Overall exposure level for ")).map(|(_, rest)| rest);
    let level = level.unwrap_or_else(|| panic!("no judgement: {said}{}", String::from_utf8_lossy(&output.stderr)));
    let number: f64 = level.split(": ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number");
    println!("{level}");
    assert!(number * 10.0 <= f64::from(tenths) + 0.01, "{level}: at most {tenths} tenths\n{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn t27_the_units_leave_no_more_open_than_was_promised() {
    exposed_at_most(&units().join("copyd.service"), 10);
    exposed_at_most(&units().join("copyd-worker@.service"), 20);
    exposed_at_most(&units().join("copyd-spawner.service"), 32);
    // With TLS for other machines it is still within the same bound.
    let room = tempfile::tempdir().unwrap();
    fs::create_dir(room.path().join("copyd.service.d")).unwrap();
    fs::copy(units().join("copyd.service"), room.path().join("copyd.service")).unwrap();
    fs::copy(units().join("copyd-tls.conf"), room.path().join("copyd.service.d/tls.conf")).unwrap();
    exposed_at_most(&room.path().join("copyd.service"), 10);
}

#[test]
fn a_unit_that_leaves_all_open_is_found_out() {
    let room = tempfile::tempdir().unwrap();
    let unit = room.path().join("open.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let judged = std::panic::catch_unwind(|| exposed_at_most(&unit, 32));
    assert!(judged.is_err());
}

#[test]
fn the_manager_understands_every_unit() {
    let room = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_copyd");
    let mut names = Vec::new();
    for file in files().iter().filter(|file| is_unit(file) && file.extension().is_some_and(|e| e != "conf")) {
        let name = file.file_name().unwrap().to_str().unwrap().replace("@.", "@example.");
        let text = fs::read_to_string(file).unwrap();
        assert!(name.ends_with(".socket") || text.contains("\nExecStart=/usr/bin/copyd "), "{name}");
        // The manager looks whether the program is there.
        fs::write(room.path().join(&name), text.replace("/usr/bin/copyd", binary)).unwrap();
        names.push(room.path().join(&name));
    }
    assert_eq!(names.len(), 5, "{names:?}");
    let mut command = Command::new("systemd-analyze");
    // Only ours, and the manager's own for what they refer to.
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", room.path().display()));
    command.args(["verify", "--man=no", "--recursive-errors=no"]).args(&names);
    let output = command.output().expect("systemd-analyze is there: install the package systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn each_directive_has_its_reason() {
    for file in files().iter().filter(|file| is_unit(file)) {
        let text = fs::read_to_string(file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(text.starts_with("# "), "{name} says what it is");
        // What identifies a unit needs no reason; what follows a directive on the next line shares its reason only
        // where it is of the same kind (RestartSec after Restart).
        let plain = ["Description", "Documentation", "WantedBy", "ExecStart", "Type", "ListenStream", "Service"];
        let mut before: Option<&str> = None;
        for line in text.lines() {
            if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                let shares = before
                    .is_some_and(|before| before.split_once('=').is_some_and(|(other, _)| stem(other) == stem(key)));
                let reasoned = before.is_some_and(|before| before.starts_with('#')) || shares;
                assert!(reasoned || plain.contains(&key), "{name}: {line} has no reason");
            }
            before = Some(line);
        }
    }
}

#[test]
fn each_unit_starts_a_verb_with_flags_that_copyd_has() {
    let mut starts = 0;
    for file in files().iter().filter(|file| is_unit(file)) {
        let text = fs::read_to_string(file).unwrap();
        for (_, command) in directives(&text).iter().filter(|(key, _)| *key == "ExecStart") {
            let words: Vec<&str> = command.split(' ').collect();
            let help = tool("copyd", env!("CARGO_BIN_EXE_copyd"), &[words[1], "--help"]);
            let help = String::from_utf8_lossy(&help.stdout);
            // The worker's flag is for programs, and not in the help.
            for flag in words.iter().filter(|word| word.starts_with("--") && **word != "--isolated") {
                assert!(help.contains(flag), "{}: {} has no {flag}\n{help}", file.display(), words[1]);
            }
            starts += 1;
        }
    }
    assert_eq!(starts, 3);
}

/// The first word of a directive's name: `Socket` of `SocketMode`.
fn stem(key: &str) -> &str {
    let end = key.char_indices().skip(1).find(|(_, c)| c.is_ascii_uppercase()).map_or(key.len(), |(at, _)| at);
    &key[..end]
}

#[test]
fn the_user_and_the_directories_are_made_as_the_units_expect_them() {
    let root = tempfile::tempdir().unwrap();
    let at = format!("--root={}", root.path().display());
    fs::create_dir(root.path().join("etc")).unwrap();
    tool("systemd", "systemd-sysusers", &[&at, units().join("sysusers.d/copyd.conf").to_str().unwrap()]);
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.starts_with("copyd:x:") && users.trim_end().ends_with(":/usr/sbin/nologin"), "{users}");
    tool("systemd", "systemd-tmpfiles", &[&at, "--create", units().join("tmpfiles.d/copyd.conf").to_str().unwrap()]);
    let made = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(root.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        (found.mode() & 0o7777, found.uid() == 0)
    };
    assert_eq!(made("etc/copyd"), (0o750, true));
    assert_eq!(made("var/lib/copyd"), (0o700, false));
    assert_eq!(made("var/lib/copyd-engine"), (0o700, true));
    let service = fs::read_to_string(units().join("copyd.service")).unwrap();
    for wanted in [("User", "copyd"), ("StateDirectory", "copyd"), ("StateDirectoryMode", "0700")] {
        assert!(directives(&service).contains(&wanted), "{wanted:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// The worker's unit, against a worker.

/// A live worker, and what is seen of it.
struct Seen {
    worker: Worker,
    mounts: String,
}

impl Seen {
    /// Whether a path of the machine is in the worker's view.
    fn sees(&self, path: &str) -> bool {
        self.worker.of_process("root").join(path.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    /// All its mounts have an option.
    fn all_mounts(&self, option: &str) -> bool {
        self.mounts.lines().all(|line| line.split(' ').nth(5).is_some_and(|all| all.split(',').any(|o| o == option)))
    }

    /// The mounts at these paths, and below, are read-only; there is at least one.
    fn read_only(&self, path: &str) -> bool {
        let mut below = self
            .mounts
            .lines()
            .filter(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(path)));
        let mut any = false;
        below.all(|line| {
            any = true;
            line.split(' ').nth(5).is_some_and(|all| all.split(',').any(|o| o == "ro"))
        }) && any
    }

    fn own(&self, namespace: &str) -> bool {
        let outside = fs::read_link(Path::new("/proc/thread-self/ns").join(namespace)).unwrap();
        self.worker.namespace(namespace) != outside
    }

    fn lacks(&self, capabilities: CapabilitySet) -> bool {
        bounding(&self.worker.status("CapBnd:")) & capabilities.bits() == 0
    }
}

fn bounding(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).expect("a set of bits")
}

#[test]
fn t27_a_live_worker_is_held_to_every_line_of_its_unit() {
    let room = Room::new(FsType::Ext4);
    let (worker, confined) = room.live(&[]);
    assert_eq!(confined["missing"], serde_json::json!([]), "{confined}");
    let mounts = fs::read_to_string(worker.of_process("mountinfo")).unwrap();
    let seen = Seen { worker, mounts };
    let text = fs::read_to_string(units().join("copyd-worker@.service")).unwrap();
    let mut capabilities = CapabilitySet::empty();
    let mut barred = BTreeSet::new();
    let service = text.split("[Service]").nth(1).expect("a section");
    for (key, value) in directives(service) {
        match key {
            "CapabilityBoundingSet" => capabilities |= named(value),
            "SystemCallFilter" => barred.extend(value.strip_prefix('~').expect("a list of what is refused").split(' ')),
            "ExecStart" => assert_eq!(value, "/usr/bin/copyd worker --isolated"),
            _ => assert!(holds(&seen, key, value), "{key}={value} does not hold of a worker:\n{}", seen.mounts),
        }
    }
    // This machine may give less than all.
    let possible = fs::read_to_string("/proc/self/status").unwrap();
    let possible = possible.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert_eq!(bounding(&seen.worker.status("CapBnd:")), capabilities.bits() & bounding(possible));
    assert_eq!((seen.worker.status("Seccomp:"), seen.worker.status("Seccomp_filters:")), ("2".into(), "2".into()));
    calls_are_refused(&barred);
}

fn named(list: &str) -> CapabilitySet {
    let one = |word: &str| {
        let name = word.strip_prefix("CAP_").expect("a capability");
        CapabilitySet::from_name(name).unwrap_or_else(|| panic!("no capability {name}"))
    };
    list.split(' ').map(one).collect()
}

/// Whether a line holds of a worker. A line that nobody has a look for fails: the unit may claim nothing more.
fn holds(seen: &Seen, key: &str, value: &str) -> bool {
    let status = |name: &str| seen.worker.status(name);
    match (key, value) {
        ("NoNewPrivileges", "yes") => status("NoNewPrivs:") == "1",
        ("SupplementaryGroups", "") => status("Groups:").is_empty(),
        ("UMask", _) => status("Umask:") == value,
        ("LimitCORE", "0") => {
            let limits = fs::read_to_string(seen.worker.of_process("limits")).unwrap();
            limits.lines().any(|line| {
                line.split_whitespace().collect::<Vec<_>>()[..].starts_with(&["Max", "core", "file", "size", "0", "0"])
            })
        }
        ("PrivateMounts", "yes") => seen.own("mnt") && !seen.mounts.contains("shared:"),
        ("ProtectSystem", "strict") => {
            !["/usr", "/etc", "/boot", "/var/log", "/run"].iter().any(|path| seen.sees(path)) && {
                let root = seen.mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
                root.split(' ').nth(5).is_some_and(|options| options.starts_with("ro,"))
            }
        }
        ("ProtectHome", "tmpfs") => !["/home", "/root", "/run/user"].iter().any(|path| seen.sees(path)),
        ("PrivateTmp", "yes") => {
            let beside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
            !seen.sees(beside.path().to_str().unwrap()) && !seen.sees("/var/tmp")
        }
        ("PrivateDevices", "yes") => !seen.sees("/dev") && seen.all_mounts("nodev"),
        ("DevicePolicy", "closed") => seen.all_mounts("nodev"),
        ("DeviceAllow", "char-* m" | "block-* m") => !seen.lacks(CapabilitySet::MKNOD) && seen.all_mounts("nodev"),
        ("ProtectKernelTunables", "yes") => {
            seen.read_only("/proc") && seen.read_only("/sys") && !seen.sees("/sys/kernel")
        }
        ("ProtectControlGroups", "yes") => seen.read_only("/sys/fs/cgroup"),
        ("ProtectKernelModules", "yes") => seen.lacks(CapabilitySet::SYS_MODULE) && !seen.sees("/usr/lib/modules"),
        ("ProtectKernelLogs", "yes") => seen.lacks(CapabilitySet::SYSLOG) && !seen.sees("/dev/kmsg"),
        ("ProtectClock", "yes") => {
            seen.lacks(CapabilitySet::SYS_TIME | CapabilitySet::WAKE_ALARM) && !seen.sees("/dev/rtc0")
        }
        ("PrivateNetwork" | "IPAddressDeny", "yes" | "any") => {
            let devices = fs::read_to_string(seen.worker.of_process("net/dev")).unwrap();
            seen.own("net") && devices.lines().filter(|line| line.contains(':')).count() == 1
        }
        ("PrivateIPC", "yes") => seen.own("ipc"),
        ("ProtectHostname", "yes") => seen.own("uts"),
        // What the filter and the attributes of the process hold: tried by a process that has put the same on itself.
        ("SystemCallErrorNumber", "EPERM")
        | ("RestrictAddressFamilies", "none")
        | ("SystemCallArchitectures", "native")
        | ("RestrictNamespaces" | "RestrictRealtime" | "LockPersonality" | "MemoryDenyWriteExecute", "yes") => true,
        _ => false,
    }
}

/// Set in the process that a test starts of itself: the calls to try.
const CALLS: &str = "COPYD_TEST_CALLS";

/// Every call of the list, and what the unit says beside it, is refused to a process that has the worker's filter.
fn calls_are_refused(barred: &BTreeSet<&str>) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for word in barred {
        if word.starts_with('@') {
            names.extend(expanded(word));
        } else {
            names.insert((*word).to_owned());
        }
    }
    let known = numbers();
    let listed: Vec<String> = names
        .iter()
        .filter_map(|name| known.iter().find(|(n, _)| n == name))
        .map(|(n, i)| format!("{n}={i}"))
        .collect();
    assert!(listed.len() > 60, "{listed:?}");
    let own = std::env::current_exe().unwrap();
    let test = "the_process_that_tries_the_calls";
    let mut command = Command::new(own);
    command.args([test, "--exact", "--nocapture"]).env(CALLS, listed.join(" "));
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    assert!(out.contains(&format!("{} calls tried", listed.len())), "{out}");
}

/// The calls of a set of the manager's, with the sets within it.
fn expanded(set: &str) -> Vec<String> {
    let output = tool("systemd", "systemd-analyze", &["syscall-filter", set]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    words.flat_map(|word| if word.starts_with('@') { expanded(word) } else { vec![word.to_owned()] }).collect()
}

/// The numbers of all calls, from the kernel's header.
fn numbers() -> Vec<(String, i64)> {
    let places = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"];
    let place = if cfg!(target_arch = "x86_64") { places[0] } else { places[1] };
    let text = fs::read_to_string(place).unwrap_or_else(|e| panic!("{place}: {e}: install the package libc6-dev"));
    let one = |line: &str| {
        let mut words = line.strip_prefix("#define __NR_")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(one).collect()
}

/// Not a test by itself: what [`calls_are_refused`] starts.
#[test]
fn the_process_that_tries_the_calls() {
    let Ok(calls) = std::env::var(CALLS) else { return };
    // What the worker does, in its order.
    let missing = copyd::sys::harden(true);
    assert!(missing.is_empty(), "{missing:?}");
    let keep = copyd::pass::capabilities_max();
    let narrowing = copyd::sys::Narrowing { keep, ruleset: None };
    assert_eq!(copyd::sys::narrow_every_thread(narrowing), copyd::sys::Refused::default());
    let page = vec![0u8; 8192];
    let address = page.as_ptr().addr().next_multiple_of(4096);
    copyd::sys::bar_calls(true).expect("this kernel has filters");
    let mut count = 0;
    for call in calls.split(' ') {
        let (name, number) = call.split_once('=').unwrap();
        // With arguments that would do nothing, should the call come through.
        let error = error_of(number.parse().unwrap(), [-1; 5]);
        // Some have no code in this kernel.
        assert!([Some(libc::EPERM), Some(libc::ENOSYS)].contains(&error), "{name}: {error:?}");
        count += 1;
    }
    println!("{count} calls tried");
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
        assert_eq!(error_of(libc::SYS_socket, [family.into(), libc::SOCK_DGRAM.into(), 0, 0, 0]), Some(libc::EPERM));
    }
    for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWPID, libc::CLONE_NEWCGROUP]
    {
        assert_eq!(error_of(libc::SYS_clone, [flag.into(), 0, 0, 0, 0]), Some(libc::EPERM));
    }
    assert_eq!(error_of(libc::SYS_clone3, [0; 5]), Some(libc::ENOSYS));
    assert_eq!(error_of(libc::SYS_sched_setscheduler, [0, libc::SCHED_FIFO.into(), 0, 0, 0]), Some(libc::EPERM));
    assert_eq!(error_of(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0]), Some(libc::EPERM));
    // The number of `getpid` in the x32 ABI.
    #[cfg(target_arch = "x86_64")]
    assert_eq!(error_of(0x4000_0000 + libc::SYS_getpid, [0; 5]), Some(libc::EPERM));
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let changed = error_of(libc::SYS_mprotect, [i64::try_from(address).unwrap(), 4096, all.into(), 0, 0]);
    assert_eq!(changed, Some(libc::EACCES), "memory that is written becomes a program");
    drop(page);
}
