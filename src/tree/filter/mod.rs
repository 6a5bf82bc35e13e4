//! Which entries are in scope: rsync's ordered include/exclude rules and `--files-from`.
//!
//! A [`Filter`] is built once from the command line and asked by the walk: [`Filter::decide`] for
//! each entry, [`Filter::descend`] for each directory that was kept. Its answers are those of
//! rsync's sender (rsync(1), FILTER RULES; `exclude.c` and `lib/wildmatch.c` of 3.2 to 3.5), and
//! the tests in `differential.rs` hold them to the rsync that is installed.
//!
//! ```text
//! --exclude, --include, --*-from ─ rule.rs ─ glob.rs ─┐
//!                                                     ├─ Filter ─ decide, descend ─ walk
//! --files-from ───────────────── files_from.rs ───────┘
//! ```
//!
//! Paths are bytes, relative to the root, without a leading slash; the root itself is empty and
//! always in scope, as rsync never filters the `.` of a transfer.

#[cfg(test)]
mod differential;
mod files_from;
mod glob;
mod records;
mod rule;

use std::fmt::Write as _;
use std::io::BufRead;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

pub use files_from::{FilesFrom, FilesFromError, LineProblem, Seen};
pub use records::Ending;
pub use rule::{RuleError, RuleProblem, Sense};

use records::Stopped;
use rule::{Parsed, Rules};

/// Whether an entry is in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Out of scope; what lies beneath a directory is so too, and isn't looked at.
    Skip,
}

/// How far the walk goes into a directory that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// List it; every entry may be in scope.
    All,
    /// List it; only what `--files-from` names in it, or all its immediate contents, is in scope.
    Listed,
    /// The directory itself is in scope and nothing beneath it: it need not be read.
    No,
}

/// The rules of one run. The default has everything in scope and costs two comparisons an entry.
/// Clones share the rules and the list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    rules: Rules,
    files_from: Option<Arc<FilesFrom>>,
}

impl Filter {
    /// Starts an empty list of rules; they are added in the order of the command line.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Narrows the scope to the entries of a list, whose rules stay in force for each listed entry
    /// but not for the parents that it implies.
    ///
    /// Listed entries that the rules exclude whatever their type are dropped from the list, because
    /// rsync makes no parents for them either. Two things differ from rsync, since the filter sees
    /// paths and no file system: parents of a listed entry that turns out to be missing, or that
    /// only a rule for directories (`name/`) excludes, are in scope all the same.
    #[must_use]
    pub fn with_files_from(self, mut list: FilesFrom) -> Self {
        if !self.rules.is_empty() {
            list.retain(|path| {
                self.rules.decide(path, true) == Verdict::Keep || self.rules.decide(path, false) == Verdict::Keep
            });
        }
        Self { files_from: Some(Arc::new(list)), ..self }
    }

    /// Whether everything is in scope, so that a walk may leave out asking.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.files_from.is_none()
    }

    /// Whether an entry is in scope, given that the directory it stands in is.
    ///
    /// `is_directory` is the entry's own type: a symlink to a directory is none.
    #[inline]
    #[must_use]
    pub fn decide(&self, path_from_root: &[u8], is_directory: bool) -> Verdict {
        if self.is_empty() || path_from_root.is_empty() {
            return Verdict::Keep;
        }
        match &self.files_from {
            None => self.rules.decide(path_from_root, is_directory),
            Some(list) => self.decide_listed(list, path_from_root, is_directory),
        }
    }

    fn decide_listed(&self, list: &FilesFrom, path: &[u8], is_directory: bool) -> Verdict {
        let found = list.find(path);
        if found.implied && is_directory {
            return Verdict::Keep;
        }
        let parent = path.rfind_byte(b'/').map_or(&b""[..], |slash| &path[..slash]);
        if found.entry.is_some() || self.contents_in_scope(list, parent) {
            self.rules.decide(path, is_directory)
        } else {
            Verdict::Skip
        }
    }

    /// Whether the list asks for all immediate contents of a directory, and the rules allow it.
    fn contents_in_scope(&self, list: &FilesFrom, directory: &[u8]) -> bool {
        list.asks_for_contents(directory)
            && (directory.is_empty() || self.rules.decide(directory, true) == Verdict::Keep)
    }

    /// How far to go into a directory that [`Filter::decide`] kept.
    #[inline]
    #[must_use]
    pub fn descend(&self, path_from_root: &[u8]) -> Descend {
        match &self.files_from {
            None => Descend::All,
            Some(list) if path_from_root.is_empty() && !list.is_empty() => Descend::Listed,
            Some(list) => {
                if list.find(path_from_root).implied || self.contents_in_scope(list, path_from_root) {
                    Descend::Listed
                } else {
                    Descend::No
                }
            }
        }
    }

    /// Whether the root's own owner, mode and times are in scope. With `--files-from` rsync sets
    /// them only where a line is the root (`.`), or begins with `./` and no rule excludes `.`.
    #[must_use]
    pub fn names_root(&self) -> bool {
        self.files_from.as_ref().is_none_or(|list| {
            list.lists_root() || (list.implies_root() && self.rules.decide(b".", true) == Verdict::Keep)
        })
    }

    /// A record of which listed entries one walk of the source meets. Empty, and free, without
    /// `--files-from`.
    #[must_use]
    pub fn watch(&self) -> Seen {
        Seen::new(self.files_from.clone())
    }

    /// The rules in order, each as [`Builder::exclude`] takes it: a sign, a blank and the pattern.
    pub fn rules(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.rules.iter().map(|rule| {
            let sign: &[u8] = if rule.sense == Sense::Include { b"+ " } else { b"- " };
            [sign, &rule.pattern].concat()
        })
    }

    /// The rules in order, one a line, in a form that is equal exactly where the scope's definition
    /// is: for a job to notice that its options changed. A list of files stands as its count and
    /// BLAKE3, because it can have millions of lines.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for rule in self.rules.iter() {
            let sign = if rule.sense == Sense::Include { '+' } else { '-' };
            push_line(&mut text, format_args!("{sign} {}", rule.pattern.escape_bytes()));
        }
        if let Some(list) = &self.files_from {
            push_line(&mut text, format_args!("files-from {} {}", list.len(), list.digest()));
        }
        text
    }
}

/// The lines of a list as [`FilesFrom::parse`] takes them, without those that say nothing.
///
/// # Errors
/// The reader fails.
pub fn lines_of(reader: impl BufRead, ending: Ending) -> Result<Vec<Vec<u8>>, FilesFromError> {
    let mut lines = Vec::new();
    let read = records::for_each(reader, ending, |_, text| {
        lines.push(text.to_vec());
        Ok::<_, std::convert::Infallible>(())
    });
    match read {
        Ok(()) => Ok(lines),
        Err(Stopped::Read { line, source }) => Err(FilesFromError::Read { line, source }),
        Err(Stopped::By(never)) => match never {},
    }
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{line}");
}

/// Collects rules in the order in which the command line gives them; of two that match, the first
/// decides.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    rules: Vec<rule::Rule>,
}

impl Builder {
    /// `--exclude PATTERN`. As with rsync, a pattern may begin with `+ ` or `- `, which overrides
    /// the option; `!` alone forgets all rules given so far; an empty one is no rule.
    ///
    /// # Errors
    /// The pattern can't match anything in rsync's language, or is longer than rsync takes.
    pub fn exclude(self, pattern: &[u8]) -> Result<Self, RuleError> {
        self.add(Sense::Exclude, pattern)
    }

    /// `--include PATTERN`; see [`Builder::exclude`].
    ///
    /// # Errors
    /// As [`Builder::exclude`].
    pub fn include(self, pattern: &[u8]) -> Result<Self, RuleError> {
        self.add(Sense::Include, pattern)
    }

    /// Adds one rule whose sense is that of the option that brings it.
    ///
    /// # Errors
    /// As [`Builder::exclude`].
    pub fn add(mut self, sense: Sense, text: &[u8]) -> Result<Self, RuleError> {
        match rule::parse(text, sense)? {
            Parsed::Nothing => {}
            Parsed::Clear => self.rules.clear(),
            Parsed::Rule(rule) => self.rules.push(*rule),
        }
        Ok(self)
    }

    /// `--exclude-from FILE` and `--include-from FILE`: one rule a line, each as in
    /// [`Builder::exclude`]. Lines that are empty or begin with `#` or `;` say nothing. White space
    /// counts. [`Ending::Nul`] is `--from0`.
    ///
    /// # Errors
    /// The reader fails, or a line is a bad rule.
    pub fn add_from(mut self, sense: Sense, reader: impl BufRead, ending: Ending) -> Result<Self, RuleFileError> {
        let read = records::for_each(reader, ending, |line, text| {
            let builder = std::mem::take(&mut self);
            self = builder.add(sense, text).map_err(|source| RuleFileError::Rule { line, source })?;
            Ok(())
        });
        match read {
            Ok(()) => Ok(self),
            Err(Stopped::Read { line, source }) => Err(RuleFileError::Read { line, source }),
            Err(Stopped::By(error)) => Err(error),
        }
    }

    #[must_use]
    pub fn build(self) -> Filter {
        Filter { rules: Rules::new(self.rules), files_from: None }
    }
}

/// Why a file of rules can't be used. The caller knows the file's name and says it.
#[derive(Debug, thiserror::Error)]
pub enum RuleFileError {
    #[error("line {line}: can't be read")]
    Read { line: u64, source: std::io::Error },
    #[error("line {line}: {source}")]
    Rule { line: u64, source: RuleError },
}

/// Bytes for people: quoted, and escaped where they are not text.
fn quoted(bytes: &[u8]) -> impl std::fmt::Display + '_ {
    format!("{:?}", BStr::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluding(patterns: &[&str]) -> Filter {
        let mut builder = Filter::builder();
        for pattern in patterns {
            builder = builder.exclude(pattern.as_bytes()).expect("a good pattern");
        }
        builder.build()
    }

    fn keeps(filter: &Filter, path: &str) -> bool {
        let directory = path.ends_with('/');
        filter.decide(path.trim_end_matches('/').as_bytes(), directory) == Verdict::Keep
    }

    #[test]
    fn threads_share_a_filter_and_its_record() {
        fn shared<T: std::fmt::Debug + Default + Send + Sync>() {}
        fn cloned<T: Clone>() {}
        shared::<Filter>();
        shared::<Seen>();
        cloned::<Filter>();
    }

    #[test]
    fn the_default_keeps_everything_and_is_empty() {
        let filter = Filter::default();
        assert!(filter.is_empty());
        assert!(keeps(&filter, "a/b"));
        assert_eq!(filter.descend(b"a"), Descend::All);
        assert!(filter.names_root());
        assert_eq!(filter.canonical(), "");
    }

    #[test]
    fn a_name_without_a_slash_matches_the_last_component_at_any_depth() {
        let filter = excluding(&["foo"]);
        assert!(!keeps(&filter, "foo"));
        assert!(!keeps(&filter, "a/b/foo/"));
        assert!(keeps(&filter, "foo2"));
        assert!(keeps(&filter, "foo/bar"), "the walk never gets there; the rule speaks of the last component");
    }

    #[test]
    fn a_leading_slash_anchors_at_the_root_and_a_trailing_one_matches_directories_only() {
        let filter = excluding(&["/top", "dir/"]);
        assert!(!keeps(&filter, "top"));
        assert!(keeps(&filter, "a/top"));
        assert!(!keeps(&filter, "a/dir/"));
        assert!(keeps(&filter, "a/dir"));
    }

    #[test]
    fn an_inner_slash_matches_the_tail_at_a_component_border() {
        let filter = excluding(&["a/b"]);
        assert!(!keeps(&filter, "a/b"));
        assert!(!keeps(&filter, "x/a/b"));
        assert!(keeps(&filter, "xa/b"));
        let wild = excluding(&["a/*.o"]);
        assert!(!keeps(&wild, "x/a/1.o"));
        assert!(keeps(&wild, "x/a/b/1.o"));
    }

    #[test]
    fn a_double_star_crosses_slashes_and_a_single_one_does_not() {
        let filter = excluding(&["/a/**/z"]);
        assert!(!keeps(&filter, "a/b/c/z"));
        assert!(keeps(&filter, "a/z"));
        let single = excluding(&["/a/*/z"]);
        assert!(keeps(&single, "a/b/c/z"));
        assert!(!keeps(&single, "a/b/z"));
    }

    #[test]
    fn three_stars_after_a_slash_match_the_directory_and_all_beneath() {
        let filter = excluding(&["/dir/***"]);
        assert!(!keeps(&filter, "dir/"));
        assert!(keeps(&filter, "dir"), "a file of that name isn't the directory");
        assert!(!keeps(&filter, "dir/a/b"));
        let two = excluding(&["/dir/**"]);
        assert!(keeps(&two, "dir/"));
        assert!(!keeps(&two, "dir/a/b"));
    }

    #[test]
    fn classes_know_ranges_negation_escapes_and_posix_names() {
        assert!(!keeps(&excluding(&["x[0-9]"]), "x7"));
        assert!(keeps(&excluding(&["x[!0-9]"]), "x7"));
        assert!(!keeps(&excluding(&["x[^a]"]), "x7"));
        assert!(!keeps(&excluding(&["x[[:digit:]_]"]), "x_"));
        assert!(!keeps(&excluding(&["x[]a]"]), "x]"));
        assert!(!keeps(&excluding(&["x[a\\]]"]), "x]"));
        assert!(keeps(&excluding(&["a[!x]b"]), "a/b"), "no class matches a slash");
    }

    #[test]
    fn a_backslash_escapes_only_where_the_pattern_has_wildcards() {
        assert!(!keeps(&excluding(&["a\\b"]), "a\\b"));
        assert!(!keeps(&excluding(&["a\\b*"]), "ab1"));
        assert!(!keeps(&excluding(&["a\\*"]), "a*"));
        assert!(keeps(&excluding(&["a\\*"]), "ab"));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let filter =
            Filter::builder().include(b"*/").and_then(|b| b.include(b"*.c")).and_then(|b| b.exclude(b"*")).unwrap();
        let filter = filter.build();
        assert!(keeps(&filter, "src/"));
        assert!(keeps(&filter, "src/main.c"));
        assert!(!keeps(&filter, "src/main.o"));
    }

    #[test]
    fn an_option_may_carry_the_other_sign_and_an_exclamation_mark_forgets() {
        let filter = excluding(&["x", "!", "+ a", "*"]);
        assert!(keeps(&filter, "a"));
        assert!(!keeps(&filter, "b"));
        assert_eq!(filter.canonical(), "+ a\n- *\n");
        assert!(!keeps(&excluding(&["!x"]), "!x"), "only alone it is an order");
    }

    #[test]
    fn names_and_patterns_are_bytes() {
        let filter = Filter::builder().exclude(b"caf\xe9*").unwrap().exclude(b"?\xff").unwrap().build();
        assert_eq!(filter.decide(b"d/caf\xe9.txt", false), Verdict::Skip);
        assert_eq!(filter.decide(b"d/caf\xc3\xa9.txt", false), Verdict::Keep);
        assert_eq!(filter.decide(b"\xfe\xff", false), Verdict::Skip);
        assert_eq!(filter.decide(b"\xc3\xa9\xff", false), Verdict::Keep, "a question mark is one byte");
        assert_eq!(filter.canonical(), "- caf\\xE9*\n- ?\\xFF\n");
    }

    #[test]
    fn a_pattern_that_can_never_match_is_refused_with_its_reason() {
        let problem = |pattern: &[u8]| Filter::builder().exclude(pattern).unwrap_err().problem;
        assert!(matches!(problem(b"a[bc"), RuleProblem::UnclosedBracket { offset: 1 }));
        assert!(matches!(problem(b"[[:vowel:]]"), RuleProblem::UnknownClass { offset: 1 }));
        assert!(matches!(problem(b"*\\"), RuleProblem::TrailingBackslash));
        assert!(matches!(problem(b"- "), RuleProblem::Empty));
        assert!(matches!(problem(b"a\0b"), RuleProblem::Nul));
        assert!(matches!(problem(&[b'a'; 5000]), RuleProblem::TooLong { length: 5000 }));
        let error = Filter::builder().exclude(b"a[bc").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"pattern "a[bc": the bracket at byte 1 is never closed; for a literal one write \["#
        );
    }

    #[test]
    fn a_file_of_rules_skips_comments_and_names_the_bad_line() {
        let file = b"# comment\n; another\n\n+ keep.o\r\n*.o\n";
        let filter = Filter::builder().add_from(Sense::Exclude, &file[..], Ending::Newline).unwrap().build();
        assert_eq!(filter.canonical(), "+ keep.o\n- *.o\n");
        let zero = Filter::builder().add_from(Sense::Include, &b"#c\0a\nb\0- c"[..], Ending::Nul).unwrap().build();
        assert_eq!(zero.canonical(), "+ a\\nb\n- c\n");
        let error = Filter::builder().add_from(Sense::Exclude, &b"a\n\n[b\n"[..], Ending::Newline).unwrap_err();
        assert!(matches!(error, RuleFileError::Rule { line: 3, .. }), "{error}");
    }

    #[test]
    fn the_canonical_form_tells_lists_apart_but_not_how_they_were_written() {
        let with = |list: &[u8]| {
            let list = FilesFrom::parse(list, Ending::Newline).unwrap();
            excluding(&["*.o"]).with_files_from(list).canonical()
        };
        assert_eq!(with(b"a\nb/\n"), with(b"b/.\n# c\n/a"));
        assert_ne!(with(b"a\nb/\n"), with(b"a\nb\n"));
        assert_ne!(with(b"a\n"), with(b"a\n./a\n"), "the second names the root too");
    }
}
