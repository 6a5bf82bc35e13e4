//! `--files-from`: the list of what is in scope.
//!
//! The list is sorted as a tree is walked, so one binary search answers both "is this path
//! listed" and "is anything listed beneath it" without a node for each implied parent: memory is
//! that of the paths and 32 bytes a line.

use std::cmp::Ordering as Order;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::{BString, ByteSlice};

use super::quoted;
use super::records::{self, Ending, Stopped};

/// A list of entries, each relative to the root.
///
/// As with rsync (`rsync -a --files-from`, which is not recursive), a listed entry and its parents
/// are in scope; a listed directory is made but not entered, unless its line ends in a slash (or
/// `/.`), which brings its immediate contents. `.` is the root and its immediate contents.
pub struct FilesFrom {
    /// The paths, one after another.
    bytes: Vec<u8>,
    /// Sorted by [`compare`], each path once.
    entries: Vec<Entry>,
    /// A line begins with `./`: rsync then has the root as a parent, under the rules as `.`.
    root_implied: bool,
    /// A line is the root, which no rule excludes.
    root_listed: bool,
}

impl std::fmt::Debug for FilesFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesFrom")
            .field("entries", &self.entries.len())
            .field("root_implied", &self.root_implied)
            .field("root_listed", &self.root_listed)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    end: usize,
    /// The first line that names it.
    line: u64,
    /// Some line names it with a slash at the end.
    contents: bool,
}

/// Why a list can't be used. The caller knows the file's name and says it.
#[derive(Debug, thiserror::Error)]
pub enum FilesFromError {
    #[error("line {line}: can't be read")]
    Read { line: u64, source: std::io::Error },
    #[error("line {line}: {}: {problem}", quoted(.text))]
    Line {
        line: u64,
        text: BString,
        #[source]
        problem: LineProblem,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// rsync stops at the root without a word and so copies something else than the line says.
    #[error("`..` leads out of the source")]
    Escapes,
    /// rsync's marker for where the path at the destination begins.
    #[error("`/./` would move the entry to another place at the destination, which copyd does not do")]
    Moves,
    #[error("a zero byte can't be part of a name; for a list made with -print0 use --from0")]
    Nul,
}

/// What a list says about a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The path is listed, at this place.
    pub(super) entry: Option<usize>,
    /// Something beneath the path is listed.
    pub(super) implied: bool,
}

/// The order of the list: bytes, but a slash before all of them, so that what stands beneath a
/// path follows it at once.
fn compare(a: &[u8], b: &[u8]) -> Order {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => rank(*a).cmp(&rank(*b)),
        None => a.len().cmp(&b.len()),
    }
}

fn is_beneath(path: &[u8], directory: &[u8]) -> bool {
    path.len() > directory.len() && path[directory.len()] == b'/' && path.starts_with(directory)
}

impl FilesFrom {
    /// Reads a list. [`Ending::Nul`] is `--from0`.
    ///
    /// # Errors
    /// The reader fails, or a line names what can't be in scope.
    pub fn parse(reader: impl BufRead, ending: Ending) -> Result<Self, FilesFromError> {
        let mut list = Self { bytes: Vec::new(), entries: Vec::new(), root_implied: false, root_listed: false };
        let read = records::for_each(reader, ending, |line, text| {
            list.push(line, text).map_err(|problem| FilesFromError::Line { line, text: text.into(), problem })
        });
        match read {
            Ok(()) => {}
            Err(Stopped::Read { line, source }) => return Err(FilesFromError::Read { line, source }),
            Err(Stopped::By(error)) => return Err(error),
        }
        list.sort();
        Ok(list)
    }

    fn push(&mut self, line: u64, text: &[u8]) -> Result<(), LineProblem> {
        if text.contains(&0) {
            return Err(LineProblem::Nul);
        }
        let start = self.bytes.len();
        // A dot in the middle is a marker, known as one only when something follows.
        let mut dot_in_the_middle = false;
        let mut dots_in_front = 0_usize;
        for component in text.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let empty = self.bytes.len() == start;
            if dot_in_the_middle {
                return Err(LineProblem::Moves);
            }
            match component {
                b"." if empty => dots_in_front += 1,
                b"." => dot_in_the_middle = true,
                b".." if empty => return Err(LineProblem::Escapes),
                b".." => {
                    let path = &self.bytes[start..];
                    let parent = path.rfind_byte(b'/').unwrap_or(0);
                    self.bytes.truncate(start + parent);
                }
                name => {
                    if !empty {
                        self.bytes.push(b'/');
                    }
                    self.bytes.extend_from_slice(name);
                }
            }
        }
        if dot_in_the_middle && text.ends_with(b"/") {
            return Err(LineProblem::Moves);
        }
        let end = self.bytes.len();
        let is_root = start == end;
        // Of two dots in front, rsync takes the second for its marker of where the path begins.
        self.root_implied |= !matches!(dots_in_front, 0 | 2);
        self.root_listed |= is_root;
        if !is_root {
            let last = text.rsplit(|byte| *byte == b'/').next().unwrap_or(text);
            let contents = matches!(last, b"" | b"." | b"..");
            self.entries.push(Entry { start, end, line, contents });
        }
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let path = |entry: &Entry| &bytes[entry.start..entry.end];
        // Stable, so that of equal paths the first line comes first and gives the number.
        self.entries.sort_by(|a, b| compare(path(a), path(b)));
        self.entries.dedup_by(|later, kept| {
            let same = path(later) == path(kept);
            kept.contents |= same && later.contents;
            same
        });
        self.entries.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Number of paths listed, the root not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing at all is listed, not even the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.root_implied && !self.root_listed
    }

    pub(super) fn lists_root(&self) -> bool {
        self.root_listed
    }

    pub(super) fn implies_root(&self) -> bool {
        self.root_implied
    }

    /// Keeps the paths for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|entry| keep(&bytes[entry.start..entry.end]));
    }

    fn path(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..entry.end]
    }

    /// The paths in order.
    #[cfg(test)]
    pub(super) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| self.path(entry))
    }

    pub(super) fn find(&self, path: &[u8]) -> Found {
        let at = self.entries.partition_point(|entry| compare(self.path(entry), path) == Order::Less);
        let here = self.entries.get(at).is_some_and(|entry| self.path(entry) == path);
        let after = self.entries.get(at + usize::from(here));
        Found { entry: here.then_some(at), implied: after.is_some_and(|next| is_beneath(self.path(next), path)) }
    }

    pub(super) fn asks_for_contents(&self, directory: &[u8]) -> bool {
        if directory.is_empty() {
            return self.root_listed;
        }
        self.find(directory).entry.is_some_and(|at| self.entries[at].contents)
    }

    /// BLAKE3 of what the list means: the same for lines in another order or written otherwise.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(self.root_implied), u8::from(self.root_listed)]);
        for entry in &self.entries {
            hasher.update(self.path(entry));
            hasher.update(&[0, u8::from(entry.contents)]);
        }
        hasher.finalize()
    }
}

/// Which entries of a list one walk of the source has met; shared by the threads of that walk.
#[derive(Debug, Default)]
pub struct Seen {
    list: Option<Arc<FilesFrom>>,
    /// One bit for each entry of the list.
    bits: Box<[AtomicU64]>,
}

impl Seen {
    pub(super) fn new(list: Option<Arc<FilesFrom>>) -> Self {
        let words = list.as_ref().map_or(0, |list| list.len().div_ceil(64));
        Self { list, bits: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// To be called for every entry that the walk lists, whatever the filter decides about it.
    #[inline]
    pub fn note(&self, path_from_root: &[u8]) {
        let Some(list) = &self.list else { return };
        if let Some(at) = list.find(path_from_root).entry {
            self.bits[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
    }

    /// The listed entries that were never met, with the number of the line that names them; for
    /// rsync these are `link_stat … failed` and exit 23. Meaningful when the walk has ended.
    pub fn missing(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let entries = self.list.iter().flat_map(|list| list.entries.iter().map(|entry| (entry.line, list.path(entry))));
        let met = |at: usize| self.bits[at / 64].load(Ordering::Relaxed) & (1 << (at % 64)) != 0;
        entries.enumerate().filter(move |(at, _)| !met(*at)).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Descend, Filter, Verdict};
    use super::*;

    fn listing(text: &[u8]) -> Filter {
        Filter::default().with_files_from(FilesFrom::parse(text, Ending::Newline).expect("a good list"))
    }

    fn keeps(filter: &Filter, path: &str) -> bool {
        let directory = path.ends_with('/');
        filter.decide(path.trim_end_matches('/').as_bytes(), directory) == Verdict::Keep
    }

    #[test]
    fn a_listed_entry_and_its_parents_are_in_scope_and_its_siblings_are_not() {
        let filter = listing(b"a/b/c\n");
        assert!(keeps(&filter, "a/") && keeps(&filter, "a/b/") && keeps(&filter, "a/b/c"));
        assert!(!keeps(&filter, "a/x") && !keeps(&filter, "b") && !keeps(&filter, "a/b/c2"));
        assert!(!keeps(&filter, "a"), "a file can't be the parent");
        assert_eq!(filter.descend(b""), Descend::Listed);
        assert_eq!(filter.descend(b"a/b"), Descend::Listed);
        assert!(!filter.names_root());
    }

    #[test]
    fn a_listed_directory_is_entered_one_level_only_with_a_slash() {
        let filter = listing(b"plain\nslash/\n");
        assert_eq!(filter.descend(b"plain"), Descend::No);
        assert!(!keeps(&filter, "plain/x"));
        assert_eq!(filter.descend(b"slash"), Descend::Listed);
        assert!(keeps(&filter, "slash/x") && keeps(&filter, "slash/d/"));
        assert_eq!(filter.descend(b"slash/d"), Descend::No);
        assert!(!keeps(&filter, "slash/d/x"));
    }

    #[test]
    fn a_dot_is_the_root_and_its_immediate_contents() {
        let filter = listing(b".\n");
        assert!(keeps(&filter, "x") && keeps(&filter, "d/") && !keeps(&filter, "d/x"));
        assert_eq!((filter.descend(b""), filter.descend(b"d")), (Descend::Listed, Descend::No));
        assert!(filter.names_root());
        assert!(listing(b"./x\n").names_root());
        assert!(!keeps(&listing(b"./x\n"), "y"));
    }

    #[test]
    fn an_empty_list_has_nothing_in_scope() {
        let filter = listing(b"# nothing\n\n; at all\n");
        assert!(!filter.is_empty());
        assert!(!keeps(&filter, "a"));
        assert_eq!(filter.descend(b""), Descend::No);
    }

    #[test]
    fn lines_that_leave_the_root_or_move_an_entry_are_refused_by_number() {
        let problem = |text: &[u8]| match FilesFrom::parse(text, Ending::Newline) {
            Err(FilesFromError::Line { line, problem, .. }) => (line, problem),
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(b"a\n\n../b\n"), (3, LineProblem::Escapes));
        assert_eq!(problem(b"a/../../b"), (1, LineProblem::Escapes));
        assert_eq!(problem(b"./../b"), (1, LineProblem::Escapes));
        assert_eq!(problem(b"/.."), (1, LineProblem::Escapes));
        assert_eq!(problem(b"a/./b"), (1, LineProblem::Moves));
        assert_eq!(problem(b"a/./"), (1, LineProblem::Moves));
        assert_eq!(problem(b"a\0b"), (1, LineProblem::Nul));
        let error = FilesFrom::parse(&b"../\xff"[..], Ending::Newline).unwrap_err();
        assert_eq!(error.to_string(), r#"line 1: "../\xff": `..` leads out of the source"#);
    }

    #[test]
    fn spellings_of_one_path_are_one_entry() {
        let paths = |text: &[u8]| {
            let list = FilesFrom::parse(text, Ending::Newline).unwrap();
            list.entries.iter().map(|e| (list.path(e).to_vec(), e.contents, e.line)).collect::<Vec<_>>()
        };
        assert_eq!(paths(b"//a//b\n./a/b\na/x/../b\n"), [(b"a/b".to_vec(), false, 1)]);
        assert_eq!(paths(b"a\na/\n"), [(b"a".to_vec(), true, 1)]);
        assert_eq!(paths(b"a/.\nb/c/..\n"), [(b"a".to_vec(), true, 1), (b"b".to_vec(), true, 2)]);
        assert_eq!(paths(b"a\\b\r\n"), [(b"a\\b".to_vec(), false, 1)]);
    }

    #[test]
    fn rules_hold_for_listed_entries_and_not_for_implied_parents() {
        let list = || FilesFrom::parse(&b"a/b\na/gone\nslash/\n"[..], Ending::Newline).unwrap();
        let excluding = |pattern: &[u8]| Filter::builder().exclude(pattern).unwrap().build().with_files_from(list());
        assert!(keeps(&excluding(b"a"), "a/"));
        assert!(!keeps(&excluding(b"b"), "a/b"));
        assert!(!keeps(&excluding(b"slash/"), "slash/x"));
        assert_eq!(excluding(b"slash/").descend(b"slash"), Descend::No);
        let both = Filter::builder().exclude(b"/a/*").unwrap().build().with_files_from(list());
        assert!(!keeps(&both, "a/"), "no parents are made for entries that are excluded");
    }

    #[test]
    fn what_a_walk_never_met_is_named_with_its_line() {
        let filter = listing(b"here\n# comment\ngone/x\nalso gone\n.\n");
        let seen = filter.watch();
        for path in [&b"here"[..], b"gone", b"other"] {
            seen.note(path);
        }
        assert_eq!(seen.missing().collect::<Vec<_>>(), [(4, &b"also gone"[..]), (3, &b"gone/x"[..])]);
        assert_eq!(filter.watch().missing().count(), 3, "each walk begins anew");
        assert_eq!(Filter::default().watch().missing().count(), 0);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_reading_the_whole_list(
            lines in proptest::collection::vec("[a-c!.]{1,2}(/[a-c!]{1,2}){0,3}", 0..40),
            asked in "[a-c!]{1,2}(/[a-c!]{1,2}){0,3}",
        ) {
            let lines: Vec<String> = lines.into_iter().filter(|line| !line.starts_with('.')).collect();
            let list = FilesFrom::parse(lines.join("\n").as_bytes(), Ending::Newline).unwrap();
            let found = list.find(asked.as_bytes());
            prop_assert_eq!(found.entry.is_some(), lines.contains(&asked));
            let prefix = format!("{asked}/");
            prop_assert_eq!(found.implied, lines.iter().any(|line| line.starts_with(&prefix)));
        }
    }
}
