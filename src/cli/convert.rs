//! The words of the command line as parts of a specification.
//!
//! The one place where both are known: what a flag's text means is decided by the modules that
//! own the types (`tree::filter`, `fidelity`, `units`), and their refusals become usage errors
//! that name the flag.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::args::IdArgs;
use super::rules::{FilterArgs, RuleArg};
use crate::error::Error;
use crate::fidelity::{IdMap, LossClass};
use crate::tree::filter::{Ending, FilesFrom, Filter, Sense, lines_of};
use crate::units::{parse_duration, parse_rate, parse_size};
use crate::worker::{Filters, Ids, Line, escape, escape_path, marker_name};

/// The rules and the list, in the order of the command line.
///
/// # Errors
/// [`Error::Usage`] for a pattern or a line that can't be used, and for a file that can't be read.
pub fn filters(args: &FilterArgs) -> Result<Filters, Error> {
    let ending = if args.from0 { Ending::Nul } else { Ending::Newline };
    let mut builder = Filter::builder();
    for rule in &args.rules {
        builder = match rule {
            RuleArg::Exclude(pattern) => builder.exclude(pattern.as_bytes()).map_err(|e| refused("--exclude", &e))?,
            RuleArg::Include(pattern) => builder.include(pattern.as_bytes()).map_err(|e| refused("--include", &e))?,
            RuleArg::ExcludeFrom(file) => builder
                .add_from(Sense::Exclude, open("--exclude-from", file)?, ending)
                .map_err(|e| in_file("--exclude-from", file, &e))?,
            RuleArg::IncludeFrom(file) => builder
                .add_from(Sense::Include, open("--include-from", file)?, ending)
                .map_err(|e| in_file("--include-from", file, &e))?,
        };
    }
    let mut filters = Filters::from(&builder.build());
    if let Some(file) = &args.files_from {
        let refused = |e| in_file("--files-from", file, &e);
        let mut text = Vec::new();
        open("--files-from", file)?.read_to_end(&mut text).map_err(|e| in_file("--files-from", file, &e))?;
        // Refused here, where its file and line can be named.
        FilesFrom::parse(text.as_slice(), ending).map_err(refused)?;
        let lines = lines_of(text.as_slice(), ending).map_err(refused)?;
        filters.files_from = Some(lines.iter().map(|line| Line::from(line.as_slice())).collect());
    }
    Ok(filters)
}

/// As with rsync, `-` is stdin.
fn open(flag: &str, file: &Path) -> Result<Box<dyn BufRead>, Error> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    match File::open(file) {
        Ok(opened) => Ok(Box::new(BufReader::new(opened))),
        Err(error) => Err(in_file(flag, file, &error)),
    }
}

/// `--source-marker`.
///
/// # Errors
/// [`Error::Usage`] for what is no single name.
pub fn marker(name: Option<&OsStr>) -> Result<(), Error> {
    match name {
        Some(name) if marker_name(name.as_bytes()).is_none() => Err(Error::Usage {
            what: format!("--source-marker: {} is no name of a file at the root of SRC", escape(name.as_bytes())),
            remedy: "name a file there, without a slash",
        }),
        _ => Ok(()),
    }
}

/// `--usermap`, `--groupmap`, `--chown`.
///
/// # Errors
/// [`Error::Usage`] for a map that can't be read, or names that this machine does not know.
pub fn ids(args: &IdArgs) -> Result<Ids, Error> {
    let map = IdMap::parse(args.usermap.as_deref(), args.groupmap.as_deref(), args.chown.as_deref());
    Ok(Ids::from(&map.map_err(|e| usage(chain(&e)))?))
}

/// `--bwlimit`, in bytes a second.
///
/// # Errors
/// [`Error::Usage`] for what is no rate.
pub fn rate(text: Option<&str>) -> Result<Option<u64>, Error> {
    text.map_or(Ok(None), parse_rate).map_err(|e| refused("--bwlimit", &e))
}

/// `--max-size`, `--max-allocated`, in bytes.
///
/// # Errors
/// [`Error::Usage`] for what is no size.
pub fn size(flag: &str, text: Option<&str>) -> Result<Option<u64>, Error> {
    text.map(parse_size).transpose().map_err(|e| refused(flag, &e))
}

/// `--timeout`; none means never.
///
/// # Errors
/// [`Error::Usage`] for what is no duration.
pub fn timeout(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let time = text.map(parse_duration).transpose().map_err(|e| refused("--timeout", &e))?;
    Ok(time.filter(|time| !time.is_zero()))
}

/// `--trash`.
///
/// # Errors
/// [`Error::Usage`] for what is no duration, and for none at all.
pub fn keep(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let time = text.map(parse_duration).transpose().map_err(|e| refused("--trash", &e))?;
    if time.is_some_and(|time| time.is_zero()) {
        return Err(usage("--trash: 0 keeps nothing: leave the flag out".into()));
    }
    Ok(time)
}

/// `--older-than`.
///
/// # Errors
/// [`Error::Usage`] for what is no duration.
pub fn age(text: Option<&str>) -> Result<Option<Duration>, Error> {
    text.map(parse_duration).transpose().map_err(|e| refused("--older-than", &e))
}

/// `--accept-loss`.
///
/// # Errors
/// [`Error::Usage`] for a word that names no class.
pub fn accepted(words: &[String]) -> Result<Vec<LossClass>, Error> {
    words.iter().map(|word| word.parse().map_err(|e| refused("--accept-loss", &e))).collect()
}

fn refused(flag: &str, error: &dyn std::error::Error) -> Error {
    usage(format!("{flag}: {}", chain(error)))
}

fn in_file(flag: &str, file: &Path, error: &dyn std::error::Error) -> Error {
    usage(format!("{flag}: {}: {}", escape_path(file), chain(error)))
}

fn usage(what: String) -> Error {
    Error::Usage { what, remedy: "`copyd help` shows what each flag takes" }
}

/// An error with its causes in one line; a cause that its error quotes already is not repeated.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(why) = cause {
        let why_text = why.to_string();
        if !text.contains(&why_text) {
            text = format!("{text}: {why_text}");
        }
        cause = why.source();
    }
    escape(text.as_bytes())
}
