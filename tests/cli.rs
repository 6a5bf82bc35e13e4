//! The command line's contract, through the binary: what it refuses, what it prints, its exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CONTRACT: &str = include_str!("../docs/cli.md");

fn copyd<S: AsRef<OsStr>>(words: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_copyd")).args(words).env_remove("COLUMNS").output().expect("copyd starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

/// Runs words that must be refused as wrong usage, and gives what was said.
fn refused<S: AsRef<OsStr>>(words: &[S]) -> String {
    let output = copyd(words);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(stdout(&output), "", "a refusal prints nothing on stdout");
    said
}

/// `--flags` in a text; `--` inside a longer word does not count.
fn flags(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(ToOwned::to_owned)
        .collect()
}

/// The flags that the help of a verb (`sync`, `job/create`) defines: those at the start of an option's line.
fn defined(verb: &str) -> BTreeSet<String> {
    let words: Vec<&str> = verb.split('/').chain(["--help"]).collect();
    let output = copyd(&words);
    assert_eq!(output.status.code(), Some(0), "{words:?}");
    let own: BTreeSet<String> = stdout(&output)
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| flags(line.split("  ").next().unwrap_or_default()))
        .filter(|flag| flag != "--help")
        .collect();
    // What is said of `job` is so of all verbs inside it.
    match verb.split_once('/') {
        Some((above, _)) => &own - &defined(above),
        None => own,
    }
}

/// The contract's table of flags, by verb.
fn contracted() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut by_verb: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for row in CONTRACT.lines().filter(|line| line.starts_with("| `-")) {
        let mut cells = row.split(" | ");
        let names = flags(cells.next().unwrap_or_default());
        for verb in cells.next().unwrap_or_default().split_whitespace() {
            by_verb.entry(verb).or_default().extend(names.clone());
        }
    }
    by_verb
}

#[test]
fn every_flag_of_the_help_stands_in_the_contract_and_the_other_way_round() {
    let contract = contracted();
    for verb in ["migrate", "sync", "verify", "worker", "serve", "job", "group"] {
        assert!(contract.contains_key(verb), "{verb}");
    }
    for (verb, flags) in &contract {
        assert_eq!(&defined(verb), flags, "copyd {verb}");
    }
    for above in ["job", "group"] {
        for verb in inside(above) {
            let known = contract.get(verb.as_str()).cloned().unwrap_or_default();
            assert_eq!(defined(&verb), known, "copyd {verb}");
        }
    }
}

/// The verbs inside a verb, as `job/create`.
fn inside(above: &str) -> Vec<String> {
    let help = stdout(&copyd(&[above, "--help"]));
    let list = help.split("Commands:\n").nth(1).expect("it has verbs").lines();
    let verbs: Vec<String> = list
        .map_while(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(|verb| format!("{above}/{verb}"))
        .collect();
    assert!(verbs.len() >= 9, "{verbs:?}");
    verbs
}

#[test]
fn every_verb_inside_a_verb_stands_in_the_contract_and_has_a_help_of_its_own() {
    for above in ["job", "group"] {
        for path in inside(above) {
            let verb = path.split('/').nth(1).expect("it is inside one");
            let rows = CONTRACT.lines().filter(|line| line.starts_with(&format!("| `copyd {above} ")));
            assert!(rows.into_iter().any(|row| row.split([' ', '`', '|', '\\']).any(|word| word == verb)), "{path}");
            let output = copyd(&["help", above, verb]);
            assert_eq!(output.status.code(), Some(0), "{path}");
            assert!(stdout(&output).contains(&format!("Usage: copyd {above} {verb}")), "{path}");
        }
    }
}

#[test]
fn every_verb_and_flag_of_the_contract_stands_in_the_help_without_a_verb() {
    let output = copyd(&["help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    let shown = flags(&help);
    for flags in contracted().values() {
        assert!(flags.is_subset(&shown), "{:?}", flags - &shown);
    }
    for verb in ["migrate", "sync", "verify", "trash", "job", "group", "worker", "serve", "completions", "man", "help"]
    {
        assert!(CONTRACT.contains(&format!("| `copyd {verb}")), "{verb} in the contract");
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb} in the help");
    }
}

#[test]
fn every_class_of_loss_stands_in_the_contract_under_its_severity() {
    use copyd::fidelity::{LossClass, Severity};
    let line =
        CONTRACT.lines().find(|line| line.starts_with("- **Classes of loss.**")).expect("the contract lists them");
    let of = |severity: Severity| -> BTreeSet<&str> {
        LossClass::ALL.into_iter().filter(|class| class.severity() == severity).map(LossClass::word).collect()
    };
    for (begin, severity) in
        [("`lost` (", Severity::Lost), ("`degraded` (", Severity::Degraded), ("`unsettable` (", Severity::Unsettable)]
    {
        let list = line.split(begin).nth(1).and_then(|rest| rest.split_once("): ")).expect("a list").1;
        let words: BTreeSet<&str> = list.split('.').next().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        assert_eq!(words, of(severity), "{severity:?}");
    }
}

#[test]
fn every_exit_code_of_the_contract_stands_in_the_help() {
    let help = stdout(&copyd(&["help"]));
    let codes: BTreeSet<&str> = help
        .split("Exit codes\n")
        .nth(1)
        .expect("the help ends with the exit codes")
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let contract: BTreeSet<&str> = CONTRACT
        .split("| code | means |")
        .nth(1)
        .expect("the contract has a table of exit codes")
        .lines()
        .skip(2)
        .map_while(|row| row.strip_prefix("| "))
        .filter_map(|row| row.split_whitespace().next())
        .collect();
    assert_eq!(codes, contract);
}

#[test]
fn flags_and_verbs_of_later_versions_are_refused_and_never_ignored() {
    for flag in ["--every=5m", "--watch", "--inplace", "--snapshot=auto", "--report=x"] {
        let name = flag.split('=').next().unwrap();
        let said = refused(&["sync", flag, "/a", "/b"]);
        assert!(said.contains(&format!("{name} is not available in this version")), "{flag}: {said}");
    }
    assert!(refused(&["preflight", "/a", "/b"]).contains("not available in this version"));
}

#[test]
fn flags_of_rsync_are_refused_with_what_copyd_does_instead() {
    for (words, hint) in [
        (vec!["migrate", "-aHAXS", "/a", "/b"], "-a is the default"),
        (vec!["migrate", "-aHAXS", "/a", "/b"], "holes stay holes"),
        (vec!["sync", "-rz", "/a", "/b"], "copies between mounted directories"),
        (vec!["migrate", "--checksum", "/a", "/b"], "copyd verify"),
        (vec!["migrate", "-P", "/a", "/b"], "terminal shows the progress line"),
        (vec!["migrate", "--numeric-ids", "/a", "/b"], "is the default"),
        (vec!["migrate", "-u", "/a", "/b"], "no counterpart"),
        (vec!["migrate", "--link-dest=/c", "/a", "/b"], "third tree"),
        (vec!["sync", "--delete-after", "/a", "/b"], "--delete removes at the end"),
        (vec!["migrate", "-e", "ssh", "/a", "/b"], "mounted directories"),
    ] {
        let said = refused(&words);
        assert!(said.contains(hint), "{words:?}: {said}");
    }
}

#[test]
fn wrong_usage_is_exit_1_with_a_remedy_on_stderr() {
    for (words, remedy) in [
        (vec![], "Usage"),
        (vec!["/a", "/b"], "a verb comes first"),
        (vec!["migrate", "/a"], "--help"),
        (vec!["migrate", "/a", "/b", "/c"], "one SRC and one DST"),
        (vec!["migrate", "--frobnicate", "/a", "/b"], "--help"),
        (vec!["migrate", "--verify=maybe", "/a", "/b"], "none, inline, readback, full"),
        (vec!["migrate", "--jobs=0", "/a", "/b"], "1 to"),
        (vec!["migrate", "--max-passes=0", "/a", "/b"], "--help"),
        (vec!["migrate", "--delete", "--keep-extra", "/a", "/b"], "cannot be used with"),
        (vec!["migrate", "--manifest-holes", "/a", "/b"], "--manifest"),
        (vec!["migrate", "--bwlimit=fast", "/a", "/b"], "help"),
        (vec!["migrate", "--timeout=soon", "/a", "/b"], "help"),
        (vec!["migrate", "--usermap=nonsense", "/a", "/b"], "help"),
        (vec!["migrate", "--accept-loss=nonsense", "/a", "/b"], "help"),
        (vec!["verify", "/a"], "copyd verify --manifest FILE DIR"),
        (vec!["verify", "/a", "/b", "/c"], "--help"),
        (vec!["verify", "--manifest=/nowhere", "--exclude=x", "/a"], "leave them out"),
        (vec!["verify", "--manifest=/etc/passwd", "/a", "/b"], "name a new FILE"),
        (vec!["completions", "tcsh"], "bash"),
        (vec!["help", "frobnicate"], "copyd help"),
    ] {
        let said = refused(&words);
        assert!(said.contains(remedy), "{words:?}: {said}");
    }
}

#[test]
fn roots_that_are_no_paths_of_this_machine_are_refused_before_anything_is_touched() {
    for root in ["nfs://host/export", "smb://host/share", "10.0.0.5:/shares/x", "\\\\10.0.0.5\\share", "user@host:x"] {
        for words in [["migrate", root, "/b"], ["sync", "/a", root], ["verify", root, "/b"]] {
            let said = refused(&words);
            assert!(said.contains("copies between mounted directories") && said.contains("mount it first"), "{said}");
        }
    }
    assert!(refused(&["migrate", "x", "/b"]).contains("write ./ before it"));
}

#[test]
fn what_is_echoed_from_the_command_line_holds_no_raw_control_byte() {
    for word in [b"--\x1b[2J".as_slice(), b"x\x1b]0;t\x07\xff", b"nfs://\x9b\xc2\x9b"] {
        let words = [OsStr::new("migrate"), OsStr::from_bytes(word), OsStr::new("/b")];
        let said = refused(&words);
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    }
}

#[test]
fn json_ends_with_a_summary_even_where_the_usage_is_wrong() {
    for words in [vec!["sync", "--json", "x", "/b"], vec!["sync", "--json", "--frobnicate", "/a", "/b"]] {
        let output = copyd(&words);
        assert_eq!(output.status.code(), Some(1));
        let out = stdout(&output);
        let last: Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["event"], "summary");
        assert_eq!(last["schema"], 1);
        assert_eq!(last["kind"], "sync");
        assert_eq!(last["outcome"], "refused");
        assert_eq!(last["exit_code"], 1);
        assert!(last["error"]["remedy"].is_string());
        assert!(!stderr(&output).is_empty(), "people are told too");
    }
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_run_before_anything_starts() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let destination = scratch.path().join("destination");
    let log = scratch.path().join("missing/log");
    let output = copyd(&[
        OsStr::new("migrate"),
        OsStr::new("--log-file"),
        log.as_os_str(),
        source.as_os_str(),
        destination.as_os_str(),
    ]);
    assert_eq!(output.status.code(), Some(11));
    assert!(stderr(&output).contains("can't open the log file"));
    assert_eq!(stdout(&output), "");
    assert!(!destination.exists());
}

#[test]
fn help_version_and_verb_help_go_to_stdout_with_exit_0() {
    for words in [vec!["help"], vec!["--help"], vec!["-h"], vec!["help", "verify"], vec!["migrate", "--help"]] {
        let output = copyd(&words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(stdout(&output).contains("Usage: copyd"), "{words:?}");
        assert_eq!(stderr(&output), "");
    }
    assert_eq!(stdout(&copyd(&["--version"])), concat!("copyd ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_of_every_shell_know_the_verbs() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = copyd(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = stdout(&output);
        assert!(script.contains("migrate") && script.contains("manifest-holes"), "{shell}");
    }
    let script = stdout(&copyd(&["completions", "bash"]));
    let mut bash = Command::new("bash").args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).spawn().expect("bash starts");
    std::io::Write::write_all(&mut bash.stdin.take().expect("piped"), script.as_bytes()).expect("bash reads");
    assert!(bash.wait().expect("bash ends").success(), "bash parses the script");
}

#[test]
fn man_writes_a_page_for_each_verb_with_its_flags_and_the_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let output = copyd(&[OsStr::new("man"), directory.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(0));
    let all = stdout(&copyd(&["man"]));
    for page in ["copyd", "copyd-migrate", "copyd-sync", "copyd-verify", "copyd-completions", "copyd-man"] {
        let path = directory.path().join(format!("{page}.1"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(".SH \"EXIT STATUS\"") && text.contains(".SH SIGNALS"), "{page}");
        assert!(all.contains(&text), "{page} stands among all pages");
        renders(&path);
    }
    let migrate = std::fs::read_to_string(directory.path().join("copyd-migrate.1")).unwrap();
    for flag in &contracted()["migrate"] {
        assert!(migrate.contains(&flag.replace('-', "\\-")), "{flag}");
    }
}

/// Where the machine has a formatter, it must take the page without a complaint.
fn renders(page: &std::path::Path) {
    let Ok(output) = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(page).output() else {
        return;
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}: {}",
        page.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_no_panic() {
    for words in [vec!["man"], vec!["help"], vec!["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_copyd")).args(&words).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}
