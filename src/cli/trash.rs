//! `copyd trash list`, `restore` and `expire`.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use super::args::TrashVerb;
use crate::worker::escape;
use super::{convert, failed, location};
use crate::error::{Error, ExitCode};
use crate::pass::{self, RestoreFate, RestoreOptions, Restored};
use crate::units::grouped;

/// Carries the verb out.
pub fn run(verb: &TrashVerb) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let ended = match verb {
        TrashVerb::List { destination } => list(destination, &mut out),
        TrashVerb::Restore { destination, paths, at, overwrite } => options(destination, paths, at.as_deref())
            .and_then(|options| restore(&RestoreOptions { overwrite: *overwrite, ..options }, &mut out)),
        TrashVerb::Expire { destination, older_than } => expire(destination, older_than.as_deref(), &mut out),
    };
    // Whoever closed stdout does not want to know.
    let _ = out.flush();
    ended.unwrap_or_else(|error| failed(&error))
}

fn list(destination: &std::ffi::OsStr, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let destination = location::local(destination, "DST")?;
    pass::trash_list(&destination, &mut |entry| {
        let _ = writeln!(
            out,
            "{}\t{}\t{}\t{}",
            entry.time,
            entry.why.word(),
            escape(entry.kind.as_bytes()),
            escape(&entry.path)
        );
    })?;
    Ok(ExitCode::Complete)
}

fn options(
    destination: &std::ffi::OsStr,
    paths: &[std::ffi::OsString],
    at: Option<&str>,
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
        overwrite: false,
    })
}

fn restore(options: &RestoreOptions, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let (mut restored, mut older, mut left) = (0_u64, 0_u64, 0_u64);
    pass::trash_restore(options, &mut |entry| match entry.fate {
        RestoreFate::Restored => {
            restored += 1;
            let _ = writeln!(out, "{}", escape(&entry.path));
        }
        RestoreFate::Older => older += 1,
        _ => {
            left += 1;
            let _ = writeln!(io::stderr(), "copyd: not restored: {}", refusal(entry));
        }
    })?;
    let _ = out.flush();
    let older = if older > 0 { format!(", {} older ones stay in the trash", grouped(older)) } else { String::new() };
    let _ = writeln!(io::stderr(), "{} restored{older}, {} not restored", grouped(restored), grouped(left));
    Ok(if left > 0 { ExitCode::SomeFailed } else { ExitCode::Complete })
}

fn refusal(entry: &Restored) -> String {
    let path = escape(&entry.path);
    match (&entry.error, entry.fate) {
        (Some(error), _) => format!("{path}: {error}"),
        (None, RestoreFate::Missing) => format!("{path}: the trash does not have it"),
        (None, _) => format!("{path}: another entry stands there; --overwrite moves that into the trash"),
    }
}

fn expire(destination: &std::ffi::OsStr, older_than: Option<&str>, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let age = convert::age(older_than)?;
    let done = pass::trash_expire(&location::local(destination, "DST")?, age)?;
    let _ = writeln!(out, "{} generations expired, {} entries", grouped(done.generations), grouped(done.entries));
    Ok(ExitCode::Complete)
}
