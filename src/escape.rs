//! Names for people: bytes made printable without loss, as rsync does it.
//!
//! A name is whatever bytes a tenant chose, an escape sequence for the operator's terminal
//! included. So nothing unprintable ever reaches a terminal or a log: each such byte becomes
//! `\#ooo` (three octal digits, rsync's form), and a backslash that would read as such a mark
//! becomes `\#134`, which keeps the form reversible.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The printable form of a name.
#[must_use]
pub fn escape(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        for (at, letter) in valid.char_indices() {
            let ambiguous = letter == '\\' && reads_as_mark(&valid.as_bytes()[at + 1..]);
            if ambiguous || !printable(letter) {
                let mut bytes = [0; 4];
                octal(&mut out, letter.encode_utf8(&mut bytes).as_bytes());
            } else {
                out.push(letter);
            }
        }
        octal(&mut out, chunk.invalid());
    }
    out
}

/// The printable form of a path.
#[must_use]
pub fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The printable form of a text of several lines, such as the argument parser's.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    text.split('\n').map(|line| escape(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// Control characters (C0, DEL, C1) act on terminals; separators break lines; bidirectional marks
/// make a name look like another one.
const fn printable(letter: char) -> bool {
    !matches!(
        letter,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

fn reads_as_mark(rest: &[u8]) -> bool {
    matches!(rest, [b'#', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..])
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a `String` can't fail.
        let _ = write!(out, "\\#{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(text: &str) -> Vec<u8> {
        let bytes = text.as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == b'\\' && reads_as_mark(&bytes[at + 1..]) {
                out.push(u8::from_str_radix(&text[at + 2..at + 5], 8).unwrap());
                at += 5;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        out
    }

    #[test]
    fn control_bytes_and_bad_utf8_become_octal_and_the_rest_stays() {
        assert_eq!(escape(b"plain name"), "plain name");
        assert_eq!(escape("Über/日本".as_bytes()), "Über/日本");
        assert_eq!(escape(b"a\nb\x1b[31m\x7f"), "a\\#012b\\#033[31m\\#177");
        assert_eq!(escape(b"\xff\xc3"), "\\#377\\#303");
        assert_eq!(escape("\u{9b}2J".as_bytes()), "\\#302\\#2332J");
        assert_eq!(escape("gpj.\u{202e}exe".as_bytes()), "gpj.\\#342\\#200\\#256exe");
    }

    #[test]
    fn a_backslash_is_escaped_only_where_it_would_read_as_a_mark() {
        assert_eq!(escape(b"a\\b"), "a\\b");
        assert_eq!(escape(b"a\\#012"), "a\\#134#012");
        assert_eq!(escape(b"a\\#01"), "a\\#01");
    }

    #[test]
    fn lines_stay_lines_in_a_text() {
        assert_eq!(escape_lines("a\x1bb\nc\n"), "a\\#033b\nc\n");
    }

    proptest! {
        #[test]
        fn any_name_is_printed_without_control_bytes_and_without_loss(name in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&name);
            prop_assert!(text.chars().all(|c| !c.is_control()));
            prop_assert_eq!(unescape(&text), name);
        }
    }
}
