//! One line of b3sum's form, out and in, by the rules of b3sum 1.8 (`b3sum/src/main.rs`).
//!
//! `HASH  PATH`, where a path with `\`, newline or carriage return has those three written `\\`,
//! `\n`, `\r` and the line begun with one more backslash. b3sum reads lines as UTF-8, refuses U+FFFD
//! (it stands for bytes that were lost), and takes the path `-` for its standard input, so a file of
//! that name is written `./-`.

use crate::hash::{Digest, DigestKind, HexError};
use crate::limits::{MANIFEST_LINE_BYTES_MAX, OPEN_PATH_BYTES_MAX};

/// Why a line of a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("the line is longer than {MANIFEST_LINE_BYTES_MAX} bytes")]
    Long,
    #[error("the line is empty")]
    Empty,
    #[error("the line is not UTF-8; names that are not stand in the .jsonl file")]
    NotUtf8,
    #[error("the line is not of the form \"HASH  PATH\"")]
    Form,
    #[error(transparent)]
    Hash(#[from] HexError),
    #[error("a backslash is followed by something else than \\, n or r")]
    Escape,
    #[error("the path holds U+FFFD, which stands for bytes that were lost")]
    Replacement,
    #[error("the path is empty")]
    NoPath,
    #[error("the path holds a NUL byte")]
    Nul,
    #[error("the path is absolute")]
    Absolute,
    #[error("the path has a component \"..\"")]
    Parent,
    #[error("the path has an empty component or a component \".\"")]
    Unclean,
    #[error("not an entry: {0}")]
    Json(#[from] serde_json::Error),
    /// The fields contradict each other.
    #[error("not an entry: {0}")]
    Entry(&'static str),
}

/// Appends the line of a file, newline included. False, with nothing appended, where b3sum could not
/// check it.
pub(super) fn write(path: &[u8], digest: &Digest, line: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(path) else { return false };
    let spoiled = text.contains(['\0', char::REPLACEMENT_CHARACTER]);
    if digest.kind != DigestKind::Blake3 || spoiled || path.is_empty() || path.len() > OPEN_PATH_BYTES_MAX {
        return false;
    }
    let escaped = text.contains(['\\', '\n', '\r']);
    if escaped {
        line.push(b'\\');
    }
    line.extend_from_slice(digest.hex().as_bytes());
    line.extend_from_slice(if text == "-" { b"  ./" } else { b"  " });
    for byte in path {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    true
}

/// The path and digest of a line, its end of line included or not. A path may begin with `./`, as in
/// lists that `find` fed to b3sum; it is returned without.
pub(super) fn parse(line: &[u8]) -> Result<(Vec<u8>, Digest), Reason> {
    let text = std::str::from_utf8(line).map_err(|_| Reason::NotUtf8)?.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    let (escaped, text) = text.strip_prefix('\\').map_or((false, text), |rest| (true, rest));
    let (hash, path) = text.split_once("  ").ok_or(Reason::Form)?;
    let digest = Digest::from_hex(DigestKind::Blake3, hash.as_bytes())?;
    let mut path = if escaped { unescape(path.as_bytes())? } else { path.as_bytes().to_vec() };
    while path.starts_with(b"./") {
        path.drain(..2);
    }
    if path.is_empty() {
        return Err(Reason::NoPath);
    }
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Reason::Replacement);
    }
    check_path(&path)?;
    Ok((path, digest))
}

/// Whether a path from a manifest stays inside the root that it will be joined to. The empty path is
/// the root itself.
pub(super) fn check_path(path: &[u8]) -> Result<(), Reason> {
    if path.contains(&0) {
        return Err(Reason::Nul);
    }
    if path.starts_with(b"/") {
        return Err(Reason::Absolute);
    }
    if path.is_empty() {
        return Ok(());
    }
    path.split(|byte| *byte == b'/').try_for_each(|component| match component {
        b".." => Err(Reason::Parent),
        b"" | b"." => Err(Reason::Unclean),
        _ => Ok(()),
    })
}

fn unescape(path: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                _ => return Err(Reason::Escape),
            },
            byte => *byte,
        });
    }
    Ok(bytes)
}
