//! `copyd trash list`, `restore` and `expire`.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use super::args::TrashVerb;
use super::output::kept::{self, Counts};
use super::{convert, failed, location};
use crate::error::{Error, ExitCode};
use crate::pass::{self, Expired, RestoreFate, RestoreOptions, Restored};
use crate::units::grouped;
use crate::worker::escape;

/// Where a verb's lines go: people's words, or JSON on stdout and people's words on stderr.
struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Lines<'_> {
    /// One line of the result. Whoever closed stdout does not want to know.
    fn result(&mut self, text: &str, json: impl FnOnce() -> String) {
        let _ = if self.json { writeln!(self.out, "{}", json()) } else { writeln!(self.out, "{text}") };
    }

    /// A line beside it.
    fn note(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Carries the verb out.
pub fn run(verb: &TrashVerb) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let json = match verb {
        TrashVerb::List { json, .. } | TrashVerb::Restore { json, .. } | TrashVerb::Expire { json, .. } => *json,
    };
    let lines = &mut Lines { out: &mut out, json };
    let (mut counts, ended) = match verb {
        TrashVerb::List { destination, .. } => list(destination, lines),
        TrashVerb::Restore { destination, paths, at, overwrite, .. } => {
            restore(options(destination, paths, at.as_deref(), *overwrite), lines)
        }
        TrashVerb::Expire { destination, older_than, .. } => expire(destination, older_than.as_deref(), lines),
    };
    let exit = match (&ended, &mut counts) {
        (Err(error), _) => failed(error),
        (Ok(()), Counts::Restore { not_restored: 1.., .. }) => ExitCode::SomeFailed,
        (Ok(()), _) => ExitCode::Complete,
    };
    if json {
        let _ = writeln!(out, "{}", kept::summary(&counts, exit, ended.as_ref().err()));
    }
    let _ = out.flush();
    exit
}

fn list(destination: &std::ffi::OsStr, lines: &mut Lines<'_>) -> (Counts, Result<(), Error>) {
    let mut listed = 0;
    let ended = location::local(destination, "DST").and_then(|destination| {
        pass::trash_list(&destination, &mut |entry| {
            listed += 1;
            let (why, kind) = (entry.why.word(), escape(entry.kind.as_bytes()));
            let text = format!("{}\t{why}\t{kind}\t{}", entry.time, escape(&entry.path));
            lines.result(&text, || kept::listed(entry));
        })
    });
    (Counts::List { listed }, ended)
}

fn options(
    destination: &std::ffi::OsStr,
    paths: &[std::ffi::OsString],
    at: Option<&str>,
    overwrite: bool,
) -> Result<RestoreOptions, Error> {
    let relative = |path: &std::ffi::OsString| -> Result<Vec<u8>, Error> {
        let bytes = path.as_bytes().strip_suffix(b"/").unwrap_or(path.as_bytes());
        let wrong = bytes.split(|b| *b == b'/').any(|name| matches!(name, b"" | b"." | b".."));
        if wrong {
            return Err(Error::Usage {
                what: format!("{} is no path from DST", escape(path.as_bytes())),
                remedy: "write it as `copyd trash list DST` prints it, without a slash before it",
            });
        }
        Ok(bytes.to_vec())
    };
    Ok(RestoreOptions {
        destination: location::local(destination, "DST")?,
        paths: paths.iter().map(relative).collect::<Result<_, _>>()?,
        at: at.map(ToOwned::to_owned),
        overwrite,
    })
}

fn restore(options: Result<RestoreOptions, Error>, lines: &mut Lines<'_>) -> (Counts, Result<(), Error>) {
    let (mut restored, mut older, mut not_restored) = (0_u64, 0_u64, 0_u64);
    let ended = options.and_then(|options| {
        pass::trash_restore(&options, &mut |entry| {
            match entry.fate {
                RestoreFate::Restored => restored += 1,
                RestoreFate::Older => older += 1,
                RestoreFate::InTheWay | RestoreFate::Missing | RestoreFate::Failed => {
                    not_restored += 1;
                    lines.note(&format!("copyd: not restored: {}", refusal(entry)));
                }
            }
            if lines.json || entry.fate == RestoreFate::Restored {
                lines.result(&escape(&entry.path), || kept::restored(entry));
            }
        })
    });
    if ended.is_ok() {
        let stay = if older > 0 { format!(", {} older ones stay in the trash", grouped(older)) } else { String::new() };
        lines.note(&format!("{} restored{stay}, {} not restored", grouped(restored), grouped(not_restored)));
    }
    (Counts::Restore { restored, older, not_restored }, ended)
}

fn refusal(entry: &Restored) -> String {
    let path = escape(&entry.path);
    match (&entry.error, entry.fate) {
        (Some(error), _) => format!("{path}: {error}"),
        (None, RestoreFate::Missing) => format!("{path}: the trash does not have it"),
        (None, _) => format!("{path}: another entry stands there; --overwrite moves that into the trash"),
    }
}

fn expire(
    destination: &std::ffi::OsStr,
    older_than: Option<&str>,
    lines: &mut Lines<'_>,
) -> (Counts, Result<(), Error>) {
    let expired =
        convert::age(older_than).and_then(|age| pass::trash_expire(&location::local(destination, "DST")?, age));
    let counts = Counts::from(*expired.as_ref().unwrap_or(&Expired::default()));
    if let Ok(done) = &expired {
        let text = format!("{} generations expired, {} entries", grouped(done.generations), grouped(done.entries));
        if lines.json { lines.note(&text) } else { lines.result(&text, String::new) }
    }
    (counts, expired.map(drop))
}
