//! The filter against the rsync that is installed: random trees, rules and lists, where the entries
//! that a walk with the filter keeps must be those that `rsync -an` would make.
//!
//! Each case is one tree with several rule lists or file lists, whose rsyncs run at the same time.
//! `PROPTEST_CASES` counts pairs of tree and list.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use bstr::{BString, ByteSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::rule::{self, Parsed};
use super::{Descend, Ending, FilesFrom, Filter, Sense, Verdict};

/// Lists tried on one tree.
const LISTS_A_TREE: usize = 8;

type Paths = BTreeSet<BString>;

/// A source tree and an empty destination on a memory file system.
struct Tree {
    _directory: tempfile::TempDir,
    source: PathBuf,
    destination: PathBuf,
}

impl Tree {
    /// Makes each path with its parents; one that ends in a slash is a directory. Paths that
    /// contradict an earlier one (a file as a parent) are left out.
    fn new(paths: &[BString]) -> Self {
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::tempdir_in(home).expect("a temporary directory");
        let (source, destination) = (directory.path().join("s"), directory.path().join("d"));
        fs::create_dir(&source).expect("the source");
        fs::create_dir(&destination).expect("the destination");
        for path in paths {
            let full = source.join(std::ffi::OsStr::from_bytes(path.trim_end_with(|c| c == '/')));
            let _ = if path.ends_with(b"/") {
                fs::create_dir_all(&full)
            } else {
                fs::create_dir_all(full.parent().expect("a parent"))
                    .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&full).map(drop))
            };
        }
        // Unlike the destination's, so that rsync says `./` where the root itself is in scope.
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(&source).and_then(|root| root.set_modified(past)).expect("the root's time");
        Self { _directory: directory, source, destination }
    }

    /// Starts `rsync -an` with some options.
    fn rsync(&self, options: impl IntoIterator<Item = Vec<u8>>) -> Child {
        let mut source = self.source.clone().into_os_string();
        source.push("/");
        Command::new("rsync")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .args(["-aHAXSn", "--out-format=%n"])
            .args(options.into_iter().map(std::ffi::OsString::from_vec))
            .arg(source)
            .arg(&self.destination)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rsync must be installed: these tests compare with it")
    }

    /// What a walk with the filter keeps, directories with a slash at the end; and what it met.
    fn walk(&self, filter: &Filter, seen: &super::Seen) -> Paths {
        let mut kept = Paths::new();
        if filter.descend(b"") != Descend::No {
            walk(&self.source, b"", filter, seen, &mut kept);
        }
        kept
    }

    /// The path as lists name it.
    fn has(&self, path: &[u8]) -> bool {
        self.source.join(std::ffi::OsStr::from_bytes(path)).symlink_metadata().is_ok()
    }
}

fn walk(directory: &Path, prefix: &[u8], filter: &Filter, seen: &super::Seen, kept: &mut Paths) {
    for entry in fs::read_dir(directory).expect("a listing") {
        let entry = entry.expect("an entry");
        let is_directory = entry.file_type().expect("a type").is_dir();
        let mut path = [prefix, entry.file_name().as_bytes()].concat();
        seen.note(&path);
        if filter.decide(&path, is_directory) == Verdict::Skip {
            continue;
        }
        let enter = is_directory && filter.descend(&path) != Descend::No;
        if is_directory {
            path.push(b'/');
        }
        if enter {
            walk(&entry.path(), &path, filter, seen, kept);
        }
        kept.insert(path.into());
    }
}

/// Undoes `\#ooo`, which rsync writes for bytes that don't print.
fn unescape(line: &[u8]) -> BString {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(br"\#") {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let digits = escape.get(2..5).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).expect("three octal digits");
        out.push(byte);
        rest = &escape[5..];
    }
    out.extend_from_slice(rest);
    out.into()
}

/// What rsync says it would make, and its exit code.
fn listed(child: Child) -> (Paths, i32) {
    let output = child.wait_with_output().expect("rsync's end");
    let code = output.status.code().expect("an exit code");
    assert!(matches!(code, 0 | 23), "rsync: {}", output.stderr.as_bstr());
    (output.stdout.lines().map(unescape).collect(), code)
}

/// Runs a property on as many trees as give the number of cases asked for.
fn on_trees<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let default = Config::default();
    let trees = default.cases.div_ceil(u32::try_from(LISTS_A_TREE).expect("a small number"));
    let config = Config { cases: trees, max_shrink_iters: 200, failure_persistence: None, ..default };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

fn bytes(choices: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(choices).prop_map(<[u8]>::to_vec)
}

/// Names that look like the patterns below, among them some that are not UTF-8.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => bytes(&[b"a", b"b", b"ab", b"ba", b"aab", b"c"]),
        2 => bytes(&[b"a*", b"[a]", b"a?", b"\\a", b"a\\", b"-", b"]", b"!", b"^", b"[", b"a]", b"**"]),
        2 => bytes(&[b"A", b"1", b" ", b"a b", b"a\nb", b".a", b"\xff", b"\xc3\xa9", b"a\xe9", b"#a", b"...", b"\x0b"]),
    ]
}

fn joined(components: &[Vec<u8>]) -> Vec<u8> {
    components.join(&b"/"[..])
}

fn tree() -> impl Strategy<Value = Vec<BString>> {
    let path = (vec(name(), 1..5), any::<bool>()).prop_map(|(components, directory)| {
        let mut path = joined(&components);
        if directory {
            path.push(b'/');
        }
        BString::from(path)
    });
    vec(path, 1..24)
}

fn pattern() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => bytes(&[b"a", b"b", b"ab", b"c", b"1"]),
        6 => bytes(&[b"*", b"**", b"***", b"?"]),
        6 => bytes(&[b"/"]),
        3 => bytes(&[
            b"[ab]", b"[!a]", b"[^b]", b"[a-b]", b"[]a]", b"[!]]", b"[a-]", b"[-a]", b"[b-a]", b"[a\\-c]", b"[\\]a]",
            b"[a-b-c]", b"[/]", b"[!/]", b"[*]", b"[\\a-\\c]", b"[!a-\xff]", b"[\x80-\xff]", b"[a/b]", b"[[]", b"[[:]",
            b"[a-[:alpha:]]", b"[[:a]", b"[!-a]",
        ]),
        2 => bytes(&[
            b"[[:alnum:]]", b"[[:alpha:]]", b"[[:blank:]]", b"[[:cntrl:]]", b"[[:digit:]]", b"[[:graph:]]",
            b"[[:lower:]]", b"[[:print:]]", b"[[:punct:]]", b"[[:space:]]", b"[[:upper:]]", b"[[:xdigit:]]",
            b"[![:alpha:]_]", b"[[:alpha:]-z]",
        ]),
        1 => bytes(&[b"[", b"[a", b"[[:x:]]", b"[[::]]", b"[a\\", b"\\", b"]", b"[]", b"[!]"]),
        2 => bytes(&[b"\\*", b"\\a", b"\\[", b"\\\\", b"\\/", b"\\?", b"!", b"-", b" ", b"\xff", b"\xc3\xa9", b"^"]),
    ];
    let body = vec(piece, 1..7).prop_map(|pieces| pieces.concat());
    let start = prop_oneof![5 => bytes(&[b""]), 3 => bytes(&[b"/"]), 1 => bytes(&[b"**/", b"*/", b"- ", b"+ ", b"!"])];
    let end = prop_oneof![5 => bytes(&[b""]), 2 => bytes(&[b"/"]), 2 => bytes(&[b"/***", b"/**", b"/*", b"***"])];
    let random = (start, body, end).prop_map(|(start, body, end)| [start, body, end].concat());
    prop_oneof![
        12 => random,
        3 => vec(name(), 1..4).prop_map(|components| joined(&components)),
        2 => bytes(&[b"*", b"*/", b"**", b"***", b"/*", b"/*/*", b"*/*", b"/**", b"/", b"//", b"!", b"", b"a/***", b"/a"]),
    ]
}

#[derive(Clone, Debug)]
struct RuleList {
    rules: Vec<(bool, BString)>,
    /// Given as files, one for each rule, instead of as arguments.
    in_files: bool,
}

fn rule_list() -> impl Strategy<Value = RuleList> {
    let rule = (proptest::bool::weighted(0.35), pattern().prop_map(BString::from));
    (vec(rule, 0..7), proptest::bool::weighted(0.2)).prop_map(|(rules, in_files)| RuleList {
        // rsync itself refuses a sign without a pattern.
        rules: rules.into_iter().filter(|(_, text)| !matches!(&text[..], b"- " | b"+ ")).collect(),
        in_files,
    })
}

impl RuleList {
    /// The filter. Patterns that it refuses because they can't match are left out: that rsync never
    /// matches them is then part of what is compared.
    fn filter(&self) -> Filter {
        let mut builder = Filter::builder();
        for (include, text) in &self.rules {
            let sense = if *include { Sense::Include } else { Sense::Exclude };
            let refused = rule::parse(text, sense).is_err();
            builder = if refused {
                builder
            } else if self.in_files {
                builder.add_from(sense, &text[..], Ending::Nul).expect("a good file of rules")
            } else {
                builder.add(sense, text).expect("a good rule")
            };
        }
        builder.build()
    }

    fn options(&self, tree: &Tree, number: usize) -> Vec<Vec<u8>> {
        let mut options = Vec::new();
        if self.in_files {
            options.push(b"--from0".to_vec());
        }
        for (place, (include, text)) in self.rules.iter().enumerate() {
            let option: &[u8] = if *include { b"--include" } else { b"--exclude" };
            options.push(if self.in_files {
                let file = tree.source.with_file_name(format!("rules-{number}-{place}"));
                fs::write(&file, text).expect("a file of rules");
                [option, b"-from=", file.as_os_str().as_bytes()].concat()
            } else {
                [option, b"=", text].concat()
            });
        }
        options
    }
}

#[test]
fn rules_keep_the_entries_that_rsync_keeps() {
    on_trees((tree(), vec(rule_list(), LISTS_A_TREE)), |(paths, lists)| {
        let tree = Tree::new(&paths);
        let children: Vec<Child> =
            lists.iter().enumerate().map(|(number, list)| tree.rsync(list.options(&tree, number))).collect();
        for (list, child) in lists.iter().zip(children) {
            let (mut expected, code) = listed(child);
            expected.remove("./".as_bytes().as_bstr());
            let filter = list.filter();
            let kept = tree.walk(&filter, &filter.watch());
            prop_assert_eq!(code, 0);
            prop_assert_eq!(kept, expected, "{:?}", list);
        }
        Ok(())
    });
}

fn listed_line() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![8 => name(), 1 => bytes(&[b"..", b"", b"."])];
    let start = prop_oneof![6 => bytes(&[b""]), 1 => bytes(&[b"./", b"/", b"//", b"/./", b"././"])];
    let end = prop_oneof![3 => bytes(&[b""]), 1 => bytes(&[b"/", b"/.", b"//", b"/.."])];
    let random = (start, vec(component, 1..4), end).prop_map(|(start, path, end)| [start, joined(&path), end].concat());
    prop_oneof![12 => random, 1 => bytes(&[b".", b"./", b"/", b"", b"#a", b";b"])]
}

#[derive(Clone, Debug)]
struct FileList {
    /// Random lines, some of which name nothing.
    lines: Vec<BString>,
    /// Lines made of paths of the tree: which, and with what at the end.
    existing: Vec<(proptest::sample::Index, BString)>,
    ending: Ending,
    rules: RuleList,
}

fn file_list() -> impl Strategy<Value = FileList> {
    let existing = (any::<proptest::sample::Index>(), bytes(&[b"", b"", b"/", b"/."]).prop_map(BString::from));
    let rules = prop_oneof![2 => Just(RuleList { rules: Vec::new(), in_files: false }), 1 => rule_list()];
    (vec(listed_line().prop_map(BString::from), 0..5), vec(existing, 0..5), any::<bool>(), rules).prop_map(
        |(lines, existing, nul, rules)| FileList {
            lines,
            existing,
            ending: if nul { Ending::Nul } else { Ending::Newline },
            rules,
        },
    )
}

impl FileList {
    /// The list's text. Lines that copyd refuses are left out; they have tests of their own.
    fn text(&self, paths: &[BString]) -> Vec<u8> {
        let end: &[u8] = if self.ending == Ending::Nul { b"\0" } else { b"\n" };
        let existing = self.existing.iter().map(|(which, end)| {
            let path = which.get(paths);
            BString::from([path.trim_end_with(|c| c == '/'), end].concat())
        });
        let lines = self.lines.iter().cloned().chain(existing);
        let taken = lines.filter(|line| FilesFrom::parse(&line[..], self.ending).is_ok());
        taken.flat_map(|line| [&line[..], end].concat()).collect()
    }
}

#[test]
fn lists_of_files_bring_the_entries_that_rsync_brings() {
    on_trees((tree(), vec(file_list(), LISTS_A_TREE)), |(paths, lists)| {
        let tree = Tree::new(&paths);
        let start = |(number, list): (usize, &FileList)| {
            let mut options = list.rules.options(&tree, number);
            options.push(b"--files-from=-".to_vec());
            if list.ending == Ending::Nul && !options.contains(&b"--from0".to_vec()) {
                options.push(b"--from0".to_vec());
            }
            let text = list.text(&paths);
            let mut child = tree.rsync(options);
            child.stdin.take().expect("a pipe").write_all(&text).expect("rsync reads its list");
            (text, child)
        };
        let children: Vec<_> = lists.iter().enumerate().map(start).collect();
        for (list, (text, child)) in lists.iter().zip(children) {
            // With rules in files, --from0 holds for both.
            let ending = if list.rules.in_files { Ending::Nul } else { list.ending };
            let (mut expected, code) = listed(child);
            let parsed = FilesFrom::parse(&text[..], ending);
            prop_assume!(parsed.is_ok());
            let filter = list.rules.filter().with_files_from(parsed.expect("a good list"));
            prop_assert_eq!(filter.names_root(), expected.remove("./".as_bytes().as_bstr()), "{:?}", text.as_bstr());
            let seen = filter.watch();
            let mut kept = tree.walk(&filter, &seen);
            for (_, path) in seen.missing() {
                prop_assert!(!tree.has(path), "{:?} was met", path.as_bstr());
            }
            prop_assert!(code == 23 || seen.missing().count() == 0, "missing without rsync's saying so");
            // The documented difference: parents of what is missing, or excluded as a directory only.
            let settled: Paths = kept.difference(&expected).cloned().collect();
            for extra in settled {
                prop_assert!(
                    only_implied(&tree, &filter, &extra),
                    "{extra:?} of {:?} {:?}",
                    text.as_bstr(),
                    list.rules
                );
                kept.remove(&extra);
            }
            prop_assert_eq!(kept, expected, "{:?} {:?}", text.as_bstr(), list.rules);
        }
        Ok(())
    });
}

/// Whether a kept path is a directory all of whose listed entries are missing or excluded.
fn only_implied(tree: &Tree, filter: &Filter, path: &[u8]) -> bool {
    let list = filter.files_from.as_ref().expect("a list");
    path.ends_with(b"/")
        && list.paths().filter(|listed| listed.starts_with(path)).all(|listed| {
            let full = tree.source.join(std::ffi::OsStr::from_bytes(listed));
            full.symlink_metadata().map_or(true, |found| filter.rules.decide(listed, found.is_dir()) == Verdict::Skip)
        })
}

#[test]
fn the_strategies_reach_every_kind_of_rule() {
    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    for _ in 0..2000 {
        let text = pattern().new_tree(&mut runner).expect("a pattern").current();
        kinds.insert(match rule::parse(&text, Sense::Exclude) {
            Ok(Parsed::Nothing) => "nothing".to_owned(),
            Ok(Parsed::Clear) => "clear".to_owned(),
            Ok(Parsed::Rule(rule)) => rule.kind(),
            Err(error) => format!("refused: {}", error.problem).chars().take(16).collect(),
        });
    }
    // Nothing, clear, three refusals, three literal scopes, six with wildcards.
    assert_eq!(kinds.len(), 14, "{kinds:?}");
}
