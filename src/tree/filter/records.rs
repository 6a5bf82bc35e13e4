//! The lines of `--exclude-from`, `--include-from` and `--files-from`, as rsync splits them.

use std::io::{self, BufRead};

/// What ends a line of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// `\n`, and as with rsync `\r` too.
    #[default]
    Newline,
    /// `--from0`: a zero byte, so that names may hold line breaks.
    Nul,
}

/// Why reading the lines ended early.
#[derive(Debug)]
pub(super) enum Stopped<E> {
    /// The reader failed in this line.
    Read { line: u64, source: io::Error },
    /// The receiver of the lines refused one.
    By(E),
}

/// Hands over each line with its number, from 1. Empty lines and those that begin with `#` or `;`
/// say nothing; rsync skips them with `--from0` too.
pub(super) fn for_each<E>(
    mut reader: impl BufRead,
    ending: Ending,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), Stopped<E>> {
    let end = match ending {
        Ending::Newline => b'\n',
        Ending::Nul => 0,
    };
    let mut line = 0;
    let mut text = Vec::new();
    loop {
        line += 1;
        text.clear();
        let length = reader.read_until(end, &mut text).map_err(|source| Stopped::Read { line, source })?;
        if length == 0 {
            return Ok(());
        }
        if text.last() == Some(&end) {
            text.pop();
        }
        let carriage_returns_end = ending == Ending::Newline;
        for record in text.split(|byte| carriage_returns_end && *byte == b'\r') {
            if !matches!(record.first(), None | Some(b'#' | b';')) {
                each(line, record).map_err(Stopped::By)?;
            }
        }
    }
}
