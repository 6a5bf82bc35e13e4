//! One include or exclude rule: parsed from its text, and matched.
//!
//! What a pattern is held against depends on its slashes and double stars; [`Scope`] has rsync's
//! cases (`rule_matches` in `exclude.c`). Patterns without wildcards are compared as bytes, others
//! run as a byte expression from [`super::glob`].

use std::sync::Arc;

use bstr::{BString, ByteSlice};
use regex::bytes::Regex;

use super::{Verdict, glob, quoted};
use crate::limits::FILTER_PATTERN_BYTES_MAX;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    Include,
    Exclude,
}

/// A rule that can't be used: which, and why.
#[derive(Debug, thiserror::Error)]
#[error("pattern {}: {problem}", quoted(.pattern))]
pub struct RuleError {
    pub pattern: BString,
    #[source]
    pub problem: RuleProblem,
}

/// What is wrong with a pattern. rsync takes the brackets and the backslash of the first three and
/// then never matches anything with such a pattern, so a typing error would go unnoticed.
#[derive(Debug, thiserror::Error)]
pub enum RuleProblem {
    #[error("the bracket at byte {offset} is never closed; for a literal one write \\[")]
    UnclosedBracket { offset: usize },
    #[error(
        "no such class at byte {offset}; known are alnum, alpha, blank, cntrl, digit, graph, lower, print, punct, space, upper and xdigit"
    )]
    UnknownClass { offset: usize },
    #[error("a backslash at the end escapes nothing; for a literal one write \\\\")]
    TrailingBackslash,
    #[error("there is no pattern after the sign")]
    Empty,
    #[error("a zero byte can't be part of a name")]
    Nul,
    #[error("{length} bytes are too long; at most {FILTER_PATTERN_BYTES_MAX} are allowed")]
    TooLong { length: usize },
    #[error("too complex")]
    TooComplex(#[source] Box<regex::Error>),
}

/// What the text of a rule turned out to be.
#[derive(Debug)]
pub(super) enum Parsed {
    /// An empty text.
    Nothing,
    /// `!`: forget the rules so far.
    Clear,
    Rule(Box<Rule>),
}

/// The part of a path that a pattern is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The last component.
    Name,
    /// This many last components; a path with fewer doesn't match.
    Tail { components: usize },
    /// The whole path. `leading_slash` puts one in front, so that `**/x` matches `x` at the root.
    /// `trailing_slash` puts one after a directory, so that `dir/***` matches `dir`.
    Path { leading_slash: bool, trailing_slash: bool },
}

#[derive(Clone, Debug)]
enum Matcher {
    /// Equal to the scope's text.
    Literal(Box<[u8]>),
    Wild(Regex),
}

/// A parsed rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) sense: Sense,
    /// The pattern as given, without a sign.
    pub(super) pattern: BString,
    directories_only: bool,
    scope: Scope,
    matcher: Matcher,
}

/// Parses the argument of an option or a line of a file, whose own sign is `sense`.
pub(super) fn parse(text: &[u8], sense: Sense) -> Result<Parsed, RuleError> {
    let (sense, pattern) = match text {
        b"" => return Ok(Parsed::Nothing),
        b"!" => return Ok(Parsed::Clear),
        [b'+', b' ', pattern @ ..] => (Sense::Include, pattern),
        [b'-', b' ', pattern @ ..] => (Sense::Exclude, pattern),
        pattern => (sense, pattern),
    };
    match compile(sense, pattern) {
        Ok(rule) => Ok(Parsed::Rule(Box::new(rule))),
        Err(problem) => Err(RuleError { pattern: text.into(), problem }),
    }
}

fn compile(sense: Sense, given: &[u8]) -> Result<Rule, RuleProblem> {
    if given.is_empty() {
        return Err(RuleProblem::Empty);
    }
    if given.len() > FILTER_PATTERN_BYTES_MAX {
        return Err(RuleProblem::TooLong { length: given.len() });
    }
    if given.contains(&0) {
        return Err(RuleProblem::Nul);
    }
    let directories_only = given.len() > 1 && given.ends_with(b"/");
    let pattern = if directories_only { &given[..given.len() - 1] } else { given };
    let slashes = pattern.find_iter(b"/").count();
    let anchored = pattern.starts_with(b"/");
    let body = if anchored { &pattern[1..] } else { pattern };
    let rule = |scope, matcher| Rule { sense, pattern: given.into(), directories_only, scope, matcher };
    let whole_path = Scope::Path { leading_slash: false, trailing_slash: false };

    if pattern.find_byteset(b"*?[").is_none() {
        let scope = match slashes {
            _ if anchored => whole_path,
            0 => Scope::Name,
            slashes => Scope::Tail { components: slashes + 1 },
        };
        return Ok(rule(scope, Matcher::Literal(body.into())));
    }
    // rsync looks for the two stars anywhere in the text, even behind a backslash.
    let crosses = pattern.contains_str("**");
    let leading_slash = pattern.starts_with(b"**");
    let scope = match slashes {
        _ if crosses => Scope::Path { leading_slash, trailing_slash: pattern.ends_with(b"***") },
        _ if anchored => whole_path,
        0 => Scope::Name,
        slashes => Scope::Tail { components: slashes + 1 },
    };
    let after_any_slash = crosses && !anchored && !leading_slash;
    Ok(rule(scope, Matcher::Wild(glob::compile(body, after_any_slash)?)))
}

/// A path as the rules see it.
struct Subject<'a> {
    path: &'a [u8],
    name: &'a [u8],
    is_directory: bool,
    /// `/path/`, or empty where no rule asks for a slash in front or after.
    bordered: &'a [u8],
}

impl<'a> Subject<'a> {
    fn text(&self, scope: Scope) -> Option<&'a [u8]> {
        match scope {
            Scope::Name => Some(self.name),
            Scope::Tail { components } => tail(self.path, components),
            Scope::Path { leading_slash: false, trailing_slash: false } => Some(self.path),
            Scope::Path { leading_slash, trailing_slash } => {
                let start = usize::from(!leading_slash);
                let end = 1 + self.path.len() + usize::from(trailing_slash && self.is_directory);
                Some(&self.bordered[start..end])
            }
        }
    }
}

/// The last `components` components of a path; none where it has fewer.
fn tail(path: &[u8], components: usize) -> Option<&[u8]> {
    let mut left = components;
    for slash in path.rfind_iter(b"/") {
        left -= 1;
        if left == 0 {
            return Some(&path[slash + 1..]);
        }
    }
    (left == 1).then_some(path)
}

impl Rule {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        if self.directories_only && !subject.is_directory {
            return false;
        }
        subject.text(self.scope).is_some_and(|text| match &self.matcher {
            Matcher::Literal(literal) => text == &**literal,
            Matcher::Wild(expression) => expression.is_match(text),
        })
    }

    /// The case of matching that the rule falls under, for tests to count.
    #[cfg(test)]
    pub(super) fn kind(&self) -> String {
        let scope = match self.scope {
            Scope::Tail { .. } => "Tail".to_owned(),
            scope => format!("{scope:?}"),
        };
        let literal = matches!(self.matcher, Matcher::Literal(_));
        format!("{} {scope}", if literal { "literal" } else { "wild" })
    }

    fn needs_borders(&self) -> bool {
        matches!(self.scope, Scope::Path { leading_slash, trailing_slash } if leading_slash || trailing_slash)
    }
}

/// Rules in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    list: Arc<[Rule]>,
    needs_borders: bool,
}

impl Rules {
    pub(super) fn new(list: Vec<Rule>) -> Self {
        let needs_borders = list.iter().any(Rule::needs_borders);
        Self { list: list.into(), needs_borders }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.list.iter()
    }

    /// What the first rule that matches says; without one, the entry is kept.
    pub(super) fn decide(&self, path: &[u8], is_directory: bool) -> Verdict {
        let name = path.rfind_byte(b'/').map_or(path, |slash| &path[slash + 1..]);
        let bordered = if self.needs_borders { [b"/", path, b"/"].concat() } else { Vec::new() };
        let subject = Subject { path, name, is_directory, bordered: &bordered };
        match self.list.iter().find(|rule| rule.matches(&subject)) {
            Some(Rule { sense: Sense::Exclude, .. }) => Verdict::Skip,
            _ => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_cut_at_component_borders_and_never_padded() {
        assert_eq!(tail(b"a/b/c", 1), Some(&b"c"[..]));
        assert_eq!(tail(b"a/b/c", 2), Some(&b"b/c"[..]));
        assert_eq!(tail(b"a/b/c", 3), Some(&b"a/b/c"[..]));
        assert_eq!(tail(b"a/b/c", 4), None);
    }
}
