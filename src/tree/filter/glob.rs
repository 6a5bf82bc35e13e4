//! rsync's wildcards as a byte expression.
//!
//! The language is that of `dowild` in rsync's `lib/wildmatch.c`: `?` is one byte but a slash, `*`
//! any number of them, `**` (or more stars) any bytes at all, `[…]` one byte of a set and never a
//! slash, and a backslash takes the next byte as it is. It is translated, not interpreted, because
//! the expression engine's time is linear in the path where backtracking over stars is not.

use std::fmt::Write as _;

use regex::bytes::{Regex, RegexBuilder};

use super::rule::RuleProblem;

/// Translates a pattern that has wildcards. With `after_any_slash` it may begin at the start of
/// the text or after any slash in it; it always ends at the end.
pub(super) fn compile(pattern: &[u8], after_any_slash: bool) -> Result<Regex, RuleProblem> {
    let mut expression = String::with_capacity(pattern.len() * 4 + 16);
    expression.push_str(if after_any_slash { r"\A(?:.*/)?" } else { r"\A" });
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        at += 1;
        match byte {
            b'?' => expression.push_str("[^/]"),
            b'*' => {
                let more = pattern[at..].iter().take_while(|byte| **byte == b'*').count();
                at += more;
                expression.push_str(if more > 0 { ".*" } else { "[^/]*" });
            }
            b'[' => {
                let (set, end) = bracket(pattern, at - 1)?;
                set.push_to(&mut expression);
                at = end;
            }
            b'\\' => {
                let escaped = *pattern.get(at).ok_or(RuleProblem::TrailingBackslash)?;
                at += 1;
                push_byte(&mut expression, escaped);
            }
            literal => push_byte(&mut expression, literal),
        }
    }
    expression.push_str(r"\z");
    RegexBuilder::new(&expression)
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .map_err(|error| RuleProblem::TooComplex(Box::new(error)))
}

fn push_byte(expression: &mut String, byte: u8) {
    // Writing to a String can't fail.
    let _ = write!(expression, r"\x{byte:02X}");
}

/// The bytes that a bracket takes.
struct ByteSet([bool; 256]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte)] = true;
    }

    fn insert_all(&mut self, which: impl Fn(u8) -> bool) {
        for byte in (0..=u8::MAX).filter(|byte| which(*byte)) {
            self.insert(byte);
        }
    }

    fn push_to(&self, expression: &mut String) {
        let bytes: Vec<u8> = (0..=u8::MAX).filter(|byte| self.0[usize::from(*byte)]).collect();
        if bytes.is_empty() {
            // The empty class: matches nothing, as `[z-a]` does with rsync.
            expression.push_str(r"[^\x00-\xFF]");
            return;
        }
        expression.push('[');
        for run in bytes.chunk_by(|a, b| a + 1 == *b) {
            push_byte(expression, run[0]);
            expression.push('-');
            push_byte(expression, run[run.len() - 1]);
        }
        expression.push(']');
    }
}

/// Reads the bracket that opens at `open`; gives its bytes, without the slash that no bracket
/// matches, and the offset after it.
///
/// The order of the cases is rsync's: a `]` in first place is a member, a `-` after a range or a
/// class is a member, a backslash escapes also at the end of a range, and `[:` without `:]` is two
/// members.
fn bracket(pattern: &[u8], open: usize) -> Result<(ByteSet, usize), RuleProblem> {
    let unclosed = RuleProblem::UnclosedBracket { offset: open };
    let mut set = ByteSet([false; 256]);
    let mut at = open + 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    // The member before, where it may begin a range.
    let mut before = None;
    let mut first = true;
    loop {
        let Some(&byte) = pattern.get(at) else { return Err(unclosed) };
        if byte == b']' && !first {
            break;
        }
        first = false;
        let next = pattern.get(at + 1).copied();
        before = match (byte, before, next) {
            (b'\\', _, _) => {
                let Some(escaped) = next else { return Err(unclosed) };
                at += 1;
                set.insert(escaped);
                Some(escaped)
            }
            (b'-', Some(low), Some(high)) if high != b']' => {
                at += 1;
                let high = if high == b'\\' {
                    at += 1;
                    let Some(&escaped) = pattern.get(at) else { return Err(unclosed) };
                    escaped
                } else {
                    high
                };
                set.insert_all(|byte| (low..=high).contains(&byte));
                None
            }
            (b'[', _, Some(b':')) => {
                let name = at + 2;
                let Some(length) = pattern[name..].iter().position(|byte| *byte == b']') else {
                    return Err(unclosed);
                };
                if let Some(class) = pattern[name..name + length].strip_suffix(b":") {
                    insert_class(&mut set, class).ok_or(RuleProblem::UnknownClass { offset: at })?;
                    at = name + length;
                    None
                } else {
                    set.insert(b'[');
                    Some(b'[')
                }
            }
            (member, _, _) => {
                set.insert(member);
                Some(member)
            }
        };
        at += 1;
    }
    if negated {
        for member in &mut set.0 {
            *member = !*member;
        }
    }
    set.0[usize::from(b'/')] = false;
    Ok((set, at + 1))
}

/// Adds a posix class, by the C locale; none where rsync doesn't know the name.
fn insert_class(set: &mut ByteSet, class: &[u8]) -> Option<()> {
    let has: fn(&u8) -> bool = match class {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    set.insert_all(|byte| has(&byte));
    Some(())
}
