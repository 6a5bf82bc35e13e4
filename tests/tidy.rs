//! Style that matters is a test with a reason: the order of the layers, where unsafe code may
//! stand, how long files and functions may grow, and what no file may hold.
//!
//! The sources are read as text. [`Source`] blanks comments and strings out first, so a word in a
//! sentence is not taken for code. Every rule is a function from a source to findings, and each
//! has a test on snippets that shows that it can fail.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

// ---------------------------------------------------------------------------------------------
// What the rules hold.

/// The layers, highest first; each uses only what stands below it. As in `src/lib.rs`.
const LAYERS: &[&[&str]] = &[
    &["main", "lib", "fuzzing"],
    &["cli"],
    &["daemon"],
    &["worker", "api"],
    &["report"],
    &["pass"],
    &["store"],
    &["job"],
    &["tree", "copy", "fidelity", "hash", "throttle", "observe"],
    &["sys"],
];

/// Serve every layer, and use nothing of ours but each other.
const SERVE_ALL: &[&str] = &["limits", "error", "units", "escape"];

/// Layers at the same height that may use each other's types: user, used, why.
const SIBLINGS: &[(&str, &str, &str)] = &[
    ("copy", "hash", "the copy hashes on the way, and compares what it reads back with it"),
    ("copy", "throttle", "the copy asks before it moves a block"),
];

/// Where unsafe code may stand, and why.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("src/sys/", "the one home of system calls that no safe crate offers"),
    ("tests/support/raw.rs", "the judge may not use src/sys, so its own few calls stand there"),
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the bound, with their length. A ratchet: it may shrink, and no line may be added.
const LONG_FILES: &[(&str, usize)] = &[];
/// Functions over the bound as `file::name`, with their length. A ratchet as well.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// What no code may hold: unfinished work, a debugging aid, a test that is never run.
const FORBIDDEN_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// What neither code nor comment may hold; spelled in halves, because this file is read too.
const FORBIDDEN_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("TO", "DO"), concat!("X", "XX")];

// ---------------------------------------------------------------------------------------------
// Reading sources.

/// One file in three views of the same length, line for line and byte for byte.
struct Source {
    /// From the project's root, with slashes.
    path: String,
    whole: String,
    /// Comments and the insides of strings blanked out.
    code: String,
    /// All but comments blanked out.
    comments: String,
}

/// One breach of a rule.
#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    reason: String,
}

impl Source {
    fn new(path: &str, whole: &str) -> Self {
        let (mut code, mut comments) = (whole.as_bytes().to_vec(), whole.as_bytes().to_vec());
        for (start, end, part) in parts(whole.as_bytes()) {
            let blank = |view: &mut Vec<u8>| {
                view[start..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
            };
            match part {
                Part::Code => blank(&mut comments),
                Part::Comment => blank(&mut code),
                Part::Text => {
                    blank(&mut code);
                    blank(&mut comments);
                }
            }
        }
        let text = |view: Vec<u8>| String::from_utf8(view).expect("whole characters were blanked");
        Self { path: path.into(), whole: whole.into(), code: text(code), comments: text(comments) }
    }

    /// Line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.whole[..at].matches('\n').count() + 1
    }

    fn finding(&self, at: usize, reason: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: self.line(at), reason: reason.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    /// Inside of a string or character.
    Text,
}

/// Cuts a source into code, comments and strings: (start, end, what), without gaps.
fn parts(text: &[u8]) -> Vec<(usize, usize, Part)> {
    let mut parts = Vec::new();
    let (mut at, mut code_from) = (0, 0);
    while at < text.len() {
        let Some((start, end, part)) = special(text, at) else {
            at += 1;
            continue;
        };
        parts.push((code_from, start, Part::Code));
        parts.push((start, end, part));
        (at, code_from) = (end.max(at + 1), end);
    }
    parts.push((code_from, text.len(), Part::Code));
    parts
}

/// What begins at `at` that is not code, if anything does.
fn special(text: &[u8], at: usize) -> Option<(usize, usize, Part)> {
    let rest = &text[at..];
    let find = |needle: &[u8], from: usize| {
        let hay = &text[from.min(text.len())..];
        hay.windows(needle.len()).position(|w| w == needle).map_or(text.len(), |p| from + p)
    };
    let in_word = at > 0 && is_word(text[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some((at, find(b"\n", at), Part::Comment)),
        [b'/', b'*', ..] => Some((at, end_of_block_comment(text, at), Part::Comment)),
        [b'r', b'"' | b'#', ..] if !in_word || b"bc".contains(&text[at - 1]) => {
            let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
            let inside = at + hashes + 2;
            (rest.get(1 + hashes) == Some(&b'"'))
                .then(|| (inside, find(&[&b"\""[..], &vec![b'#'; hashes]].concat(), inside), Part::Text))
                .map(|(start, end, part)| (start, (end + 1 + hashes).min(text.len()), part))
        }
        [b'"', ..] => Some((at + 1, end_of_quote(text, at + 1, b'"'), Part::Text)),
        [b'\'', b'\\', ..] => Some((at + 1, end_of_quote(text, at + 1, b'\''), Part::Text)),
        [b'\'', next, ..] => {
            let len = utf8_len(*next);
            (rest.get(1 + len) == Some(&b'\'')).then_some((at + 1, at + len + 2, Part::Text))
        }
        _ => None,
    }
}

fn end_of_block_comment(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// First byte after the closing quote.
fn end_of_quote(text: &[u8], mut at: usize, quote: u8) -> usize {
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

const fn utf8_len(first: u8) -> usize {
    match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every place of a whole word in a text.
fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at == 0 || !is_word(bytes[at - 1]) || !is_word(word.as_bytes()[0]);
        let end = at + word.len();
        let after = end >= bytes.len() || !is_word(bytes[end]) || !is_word(bytes[end - 1]);
        before && after
    })
}

/// The word that a text begins with.
fn first_word(text: &str) -> &str {
    let len = text.bytes().take_while(|&b| is_word(b)).count();
    &text[..len]
}

/// Where the bracket that opens at `open` closes.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

// ---------------------------------------------------------------------------------------------
// The rules.

/// The modules that a source stands in: `src/tree/plan.rs` is `["tree", "plan"]`.
fn module_path(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').collect()
}

/// Top-level modules named by the path that goes on at `rest`: one, or those of a braced list.
fn heads(code: &str, rest: usize) -> Vec<(usize, &str)> {
    let text = &code[rest..];
    if !text.starts_with('{') {
        return vec![(rest, first_word(text))];
    }
    let (mut heads, mut at, end) = (Vec::new(), rest + 1, closing(code, rest));
    while at < end {
        at += code[at..end].len() - code[at..end].trim_start().len();
        heads.push((at, first_word(&code[at..])));
        while at < end && code.as_bytes()[at] != b',' {
            at = if code.as_bytes()[at] == b'{' { closing(code, at) } else { at } + 1;
        }
        at += 1;
    }
    heads
}

/// Every use of a top-level module in a source, by `crate::` or by `super::` up to the root.
fn uses(source: &Source) -> Vec<(usize, &str)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in words(code, "crate").filter(|at| code[at + 5..].starts_with("::")) {
        found.extend(heads(code, at + 7));
    }
    let inline: Vec<_> = words(code, "mod")
        .filter_map(|at| {
            let open = at + code[at..].find(['{', ';'])?;
            code[open..].starts_with('{').then(|| (open, closing(code, open)))
        })
        .collect();
    for at in words(code, "super").filter(|&at| !code[..at].ends_with("::")) {
        let levels = code.as_bytes()[at..].chunks(7).take_while(|c| *c == b"super::").count();
        let around = inline.iter().filter(|(open, close)| (*open..*close).contains(&at)).count();
        let depth = module_path(&source.path).len() + around;
        if levels > 0 && levels == depth {
            found.extend(heads(code, at + levels * 7));
        }
    }
    found
}

fn height(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Why `user` may not use `used`; nothing where it may.
fn refused(user: &str, needed: &str) -> Option<String> {
    if user == needed || SERVE_ALL.contains(&needed) {
        return None;
    }
    let below = height(needed)?; // not a module of ours: an item of the same file
    let Some(above) = height(user) else {
        return SERVE_ALL
            .contains(&user)
            .then(|| format!("{user} serves all, so it uses nothing of ours: not {needed}"));
    };
    let allowed = SIBLINGS.iter().any(|(a, b, _)| *a == user && *b == needed);
    match above.cmp(&below) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal if allowed => None,
        std::cmp::Ordering::Equal => Some(format!(
            "{user} and {needed} stand side by side: name the pair and its reason in SIBLINGS, or part them"
        )),
        std::cmp::Ordering::Greater => {
            Some(format!("{user} stands below {needed}: each layer uses only what is below it"))
        }
    }
}

fn layer_order(source: &Source) -> Vec<Finding> {
    let user = module_path(&source.path)[0].to_owned();
    if height(&user).is_none() && !SERVE_ALL.contains(&user.as_str()) {
        return vec![
            source.finding(0, format!("{user} has no place in the order of the layers: give it one in LAYERS")),
        ];
    }
    uses(source)
        .into_iter()
        .filter_map(|(at, used)| refused(&user, used).map(|reason| source.finding(at, reason)))
        .collect()
}

fn unsafe_in_its_home(source: &Source) -> Vec<Finding> {
    if UNSAFE_ALLOWED.iter().any(|(home, _)| source.path.starts_with(home)) {
        return Vec::new();
    }
    let blocks = words(&source.code, "unsafe").map(|at| (at, "unsafe code"));
    let permits = ["allow", "expect"]
        .into_iter()
        .flat_map(|level| words(&source.code, level))
        .filter(|&at| {
            let list = source.code[at..].find('(').filter(|&p| p <= 7).map(|p| at + p);
            list.is_some_and(|open| {
                words(&source.code[open..closing(&source.code, open)], "unsafe_code").next().is_some()
            })
        })
        .map(|at| (at, "a permit for unsafe code"));
    blocks.chain(permits).map(|(at, what)| source.finding(at, format!("{what} stands in src/sys only"))).collect()
}

/// Holds a length to its bound, or to the length that the ratchet names.
fn over(what: &str, name: &str, lines: usize, max: usize, ratchet: &[(&str, usize)]) -> Option<String> {
    match ratchet.iter().find(|(listed, _)| *listed == name) {
        None if lines > max => {
            Some(format!("{what} {name} has {lines} lines, {max} is the bound: part it by its reasons"))
        }
        Some((_, listed)) if lines > *listed => {
            Some(format!("{what} {name} grew from {listed} to {lines} lines: the ratchet only shrinks"))
        }
        Some(_) if lines <= max => Some(format!("{what} {name} is within the bound now: take it off the ratchet")),
        Some((_, listed)) if lines < *listed => {
            Some(format!("{what} {name} shrank to {lines} lines: lower the ratchet"))
        }
        _ => None,
    }
}

fn file_length(source: &Source) -> Vec<Finding> {
    let lines = source.whole.lines().count();
    let reason = over("file", &source.path, lines, FILE_LINES_MAX, LONG_FILES);
    reason.map(|reason| source.finding(0, reason)).into_iter().collect()
}

/// Every function with a body: where it starts, its name, its lines from `fn` to its last bracket.
fn functions(source: &Source) -> Vec<(usize, &str, usize)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name = first_word(code[at + 2..].trim_start());
        let mut end = at;
        while let Some(next) = code[end..].find(['(', '[', '{', ';']).map(|p| end + p) {
            let (open, byte) = (next, code.as_bytes()[next]);
            end = if byte == b';' { open } else { closing(code, open) } + 1;
            if byte == b'{' && !name.is_empty() {
                found.push((at, name, source.line(end - 1) - source.line(at) + 1));
            }
            if byte == b'{' || byte == b';' {
                break;
            }
            end = end.min(code.len());
        }
    }
    found
}

fn function_length(source: &Source) -> Vec<Finding> {
    functions(source)
        .into_iter()
        .filter_map(|(at, name, lines)| {
            let name = format!("{}::{name}", source.path);
            over("function", &name, lines, FUNCTION_LINES_MAX, LONG_FUNCTIONS).map(|reason| source.finding(at, reason))
        })
        .collect()
}

fn head(source: &Source) -> Vec<Finding> {
    if source.whole.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.finding(0, "a file begins with `//! ` and says its purpose and its place in the flow")]
}

fn nothing_forbidden(source: &Source) -> Vec<Finding> {
    let in_code = FORBIDDEN_CODE.iter().flat_map(|word| words(&source.code, word).map(move |at| (at, *word)));
    let anywhere = FORBIDDEN_WORDS
        .iter()
        .flat_map(|word| words(&source.code, word).chain(words(&source.comments, word)).map(move |at| (at, *word)));
    in_code
        .chain(anywhere)
        .map(|(at, word)| source.finding(at, format!("{word} marks what is not finished: finish it, or leave it out")))
        .collect()
}

fn bounds_have_reasons(source: &Source) -> Vec<Finding> {
    let mut documented = false;
    let mut found = Vec::new();
    let mut at = 0;
    for line in source.whole.split_inclusive('\n') {
        let text = line.trim();
        if text.starts_with("pub const ") && !documented {
            found.push(source.finding(at, "a bound has a doc comment with its unit and its reason"));
        }
        documented = text.starts_with("///") || (documented && text.starts_with('#'));
        at += line.len();
    }
    found
}

// ---------------------------------------------------------------------------------------------
// The rules over the project.

fn project() -> PathBuf {
    // At run time, so that a built binary can look at another checkout.
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn sources(directory: &str) -> Vec<Source> {
    let (root, mut found) = (project(), Vec::new());
    let mut pending = vec![root.join(directory)];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).expect("the sources can be read") {
            let path = entry.expect("the sources can be read").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap_or(Path::new("")).to_string_lossy().into_owned();
                found.push(Source::new(&name, &std::fs::read_to_string(&path).expect("sources are UTF-8")));
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing in {directory}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Applies a rule to all sources of some directories and panics with what it finds.
fn hold(directories: &[&str], rule: impl Fn(&Source) -> Vec<Finding>) {
    let sources = directories.iter().flat_map(|d| sources(d));
    let found: Vec<_> = sources.flat_map(|source| rule(&source)).collect();
    let text = found.iter().fold(String::new(), |mut text, f| {
        writeln!(text, "  {}:{}: {}", f.path, f.line, f.reason).expect("a String takes all");
        text
    });
    assert!(found.is_empty(), "{} breaches:\n{text}", found.len());
}

#[test]
fn each_layer_uses_only_what_stands_below_it() {
    hold(&["src"], layer_order);
}

#[test]
fn the_map_in_lib_rs_names_every_module() {
    let sources = sources("src");
    let map = &sources.iter().find(|s| s.path == "src/lib.rs").expect("there is a library").comments;
    for source in &sources {
        let module = module_path(&source.path)[0];
        let named = module == "lib" || words(map, module).next().is_some();
        assert!(named, "{}: the map in src/lib.rs does not name {module}", source.path);
    }
}

#[test]
fn every_permitted_pair_of_siblings_is_used() {
    let sources = sources("src");
    let of = |module: &'static str| sources.iter().filter(move |s| module_path(&s.path)[0] == module);
    for (user, used, _) in SIBLINGS {
        if of(user).next().is_none() || of(used).next().is_none() {
            continue; // it comes with its module
        }
        let needed = of(user).any(|s| uses(s).iter().any(|(_, head)| head == used));
        assert!(needed, "{user} does not use {used} any more: take the pair out of SIBLINGS");
    }
}

#[test]
fn unsafe_code_stands_in_its_home() {
    hold(&["src", "tests"], unsafe_in_its_home);
}

#[test]
fn files_are_short() {
    hold(&["src", "tests"], file_length);
}

#[test]
fn functions_are_short() {
    hold(&["src", "tests"], function_length);
}

#[test]
fn every_file_has_a_head() {
    hold(&["src", "tests"], head);
}

#[test]
fn nothing_unfinished_is_left() {
    hold(&["src", "tests"], nothing_forbidden);
}

#[test]
fn every_bound_has_its_reason() {
    hold(&["src"], |source| if source.path == "src/limits.rs" { bounds_have_reasons(source) } else { Vec::new() });
}

#[test]
fn the_ratchets_name_what_exists() {
    let sources: Vec<_> = ["src", "tests"].iter().flat_map(|d| sources(d)).collect();
    for (file, _) in LONG_FILES {
        assert!(sources.iter().any(|s| s.path == *file), "{file} is gone: take it off the ratchet");
    }
    for (name, _) in LONG_FUNCTIONS {
        let exists = |s: &Source| functions(s).iter().any(|(_, f, _)| format!("{}::{f}", s.path) == *name);
        assert!(sources.iter().any(exists), "{name} is gone: take it off the ratchet");
    }
}

// ---------------------------------------------------------------------------------------------
// The rules can fail.

/// The lines that a rule finds in a snippet.
fn lines(rule: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).iter().map(|f| f.line).collect()
}

#[test]
fn comments_and_strings_are_not_code() {
    let text = r##"a /* b /* c */ d */ "e\"f" r#"g"h"# 'i' '\'' 'life b"j" // k"##;
    let source = Source::new("src/x.rs", text);
    let letters = |view: &str| view.chars().filter(char::is_ascii_lowercase).collect::<String>();
    assert_eq!(letters(&source.code), "arlifeb");
    assert_eq!(letters(&source.comments), "bcdk");
    assert_eq!(source.code.len(), text.len());
}

#[test]
fn an_arrow_up_the_layers_is_found_however_it_is_written() {
    for used in [
        "use crate::pass::Options;",
        "pub use crate::{error::Error, pass::Options};",
        "use crate::{\n    error::{Class, Error},\n    pass,\n};",
        "fn f() -> crate::pass::Options {}",
        "use super::super::pass::Options;",
        "mod tests { use super::super::super::pass; }",
    ] {
        let found = layer_order(&Source::new("src/tree/walk.rs", used));
        assert_eq!(found.len(), 1, "{used}: {found:?}");
        assert!(found[0].reason.contains("tree stands below pass"), "{found:?}");
    }
    assert_eq!(lines(layer_order, "src/tree/walk.rs", "use crate::{\n    error::Error,\n    cli,\n};"), [3]);
}

#[test]
fn an_arrow_down_the_layers_is_fine() {
    for (path, used) in [
        ("src/main.rs", "use crate::cli::run;"),
        ("src/pass/mod.rs", "use crate::tree::{walk, plan::Change}; use crate::sys::Kind;"),
        ("src/tree/walk.rs", "use crate::error::Error; use crate::tree::plan; use super::plan::Change;"),
        ("src/tree/walk.rs", "pub(crate) fn f() { crate::limits::DEPTH }"),
        ("src/tree/walk.rs", "// use crate::pass\nconst A: &str = \"crate::pass::x\";"),
        ("src/tree/mod.rs", "mod tests { use super::pass; }"),
        ("src/error.rs", "use crate::limits::NAME;"),
        ("src/copy/file.rs", "use crate::hash::Chunk;"),
    ] {
        assert_eq!(lines(layer_order, path, used), [0; 0], "{path}: {used}");
    }
}

#[test]
fn siblings_strangers_and_those_who_serve_all_are_held_to_the_order() {
    assert_eq!(lines(layer_order, "src/hash/mod.rs", "\nuse crate::copy::Chunk;"), [2]);
    assert_eq!(lines(layer_order, "src/error.rs", "use crate::sys::Kind;"), [1]);
    assert_eq!(lines(layer_order, "src/sys/ring.rs", "use crate::throttle::Rate;"), [1]);
    assert_eq!(lines(layer_order, "src/utilities.rs", ""), [1]);
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    let text =
        "// unsafe is a word here\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }\n#[allow(dead_code, unsafe_code)]";
    assert_eq!(lines(unsafe_in_its_home, "src/copy/ring.rs", text), [3, 4]);
    assert_eq!(lines(unsafe_in_its_home, "tests/support/oracle.rs", text), [3, 4]);
    assert_eq!(lines(unsafe_in_its_home, "src/sys/ring.rs", text), [0; 0]);
}

#[test]
fn long_files_and_functions_are_found() {
    assert_eq!(lines(file_length, "src/x.rs", &"\n".repeat(FILE_LINES_MAX)), [0; 0]);
    assert_eq!(lines(file_length, "src/x.rs", &"\n".repeat(FILE_LINES_MAX + 1)), [1]);
    let with_body = |lines: usize| {
        format!(
            "trait T {{ fn declared(&self) -> [u8; 4]; }}\nfn f(a: [u8; 2]) -> [u8; 4] {{{}}}\n",
            "\n".repeat(lines - 1)
        )
    };
    assert_eq!(lines(function_length, "src/x.rs", &with_body(FUNCTION_LINES_MAX)), [0; 0]);
    assert_eq!(lines(function_length, "src/x.rs", &with_body(FUNCTION_LINES_MAX + 1)), [2]);
    let source = Source::new("src/x.rs", "type P = fn(u8);\nasync fn a<T>() where T: Fn() -> u8 {\n \"}\"\n}");
    assert_eq!(functions(&source).into_iter().map(|(_, n, l)| (n, l)).collect::<Vec<_>>(), [("a", 3)]);
}

#[test]
fn a_ratchet_only_shrinks() {
    let ratchet = [("x", 90)];
    assert_eq!(over("file", "x", 90, 70, &ratchet), None);
    assert!(over("file", "x", 91, 70, &ratchet).is_some_and(|r| r.contains("grew")));
    assert!(over("file", "x", 89, 70, &ratchet).is_some_and(|r| r.contains("lower")));
    assert!(over("file", "x", 70, 70, &ratchet).is_some_and(|r| r.contains("take it off")));
    assert!(over("file", "y", 71, 70, &ratchet).is_some_and(|r| r.contains("bound")));
}

#[test]
fn unfinished_work_is_found() {
    let marks =
        format!("fn f() {{ todo!() }}\n// {}: later\n#[ignore = \"slow\"]\nlet s = \"todo!\";", FORBIDDEN_WORDS[0]);
    assert_eq!(lines(nothing_forbidden, "src/x.rs", &marks), [1, 3, 2]);
    assert_eq!(lines(nothing_forbidden, "src/x.rs", "unimplemented!(); dbg!(x)"), [1, 1]);
    assert_eq!(lines(nothing_forbidden, "src/x.rs", "// we ignore todo! here\nfn todos() {}"), [0; 0]);
}

#[test]
fn a_missing_head_and_a_bound_without_reason_are_found() {
    assert_eq!(lines(head, "src/x.rs", "use std::io;\n//! late"), [1]);
    assert_eq!(lines(head, "src/x.rs", "//! Purpose.\n"), [0; 0]);
    let bounds =
        "/// Why.\n#[cfg(test)]\npub const A: u8 = 1;\npub const B: u8 = 2;\n\n/// Far.\n\npub const C: u8 = 3;";
    assert_eq!(lines(bounds_have_reasons, "src/limits.rs", bounds), [4, 8]);
}
