//! An error at the program's edge: what, where, why, and what to do about it.
//!
//! The library's errors know their parts; `miette` carries them to the edge as one diagnostic
//! (message, causes, help), and the handler here prints it in lines that a log can hold, without
//! colours or drawings. Paths are escaped: an error message is a place where names reach a
//! terminal too.

use std::fmt;

use miette::{Diagnostic, ReportHandler};

use super::escape::{escape, escape_path};
use crate::error::Error;

/// The word for the kind of error, as the JSON summary carries it.
pub const fn class(error: &Error) -> &'static str {
    match error {
        Error::Usage { .. } => "usage",
        Error::Root { .. } => "root",
        Error::Guard { .. } => "guard",
        Error::DeletionLimit { .. } => "deletion_limit",
        Error::State { .. } => "state",
        Error::Output { .. } => "output",
        Error::Timeout { .. } => "timeout",
        Error::Internal { .. } => "internal",
    }
}

/// What happened and where, in printable characters.
pub fn message(error: &Error) -> String {
    match error {
        Error::Root { side, path, what, .. } => format!("{side} {}: {what}", escape_path(path)),
        Error::State { path, what, .. } => format!("state directory {}: {what}", escape_path(path)),
        Error::Output { path, what, .. } => format!("{what} {}", escape_path(path)),
        other => escape(other.to_string().as_bytes()),
    }
}

/// The whole report, as it goes to stderr.
pub fn report(error: &Error) -> String {
    struct Rendered<'a>(&'a Edge<'a>);
    impl fmt::Display for Rendered<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Lines.debug(self.0, f)
        }
    }
    Rendered(&Edge { error, message: message(error) }).to_string()
}

/// An error with its parts for miette.
#[derive(Debug)]
struct Edge<'a> {
    error: &'a Error,
    message: String,
}

impl fmt::Display for Edge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Edge<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.error {
            Error::Root { source: Some(source), .. } | Error::Output { source, .. } => Some(source),
            Error::State { source: Some(source), .. } => Some(&**source),
            _ => None,
        }
    }
}

impl Diagnostic for Edge<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.error.remedy()))
    }
}

/// One line for each part.
struct Lines;

impl ReportHandler for Lines {
    fn debug(&self, error: &dyn Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copyd: error: {error}")?;
        let mut cause = error.source();
        while let Some(why) = cause {
            write!(f, "\n  why:  {}", escape(why.to_string().as_bytes()))?;
            cause = why.source();
        }
        if let Some(help) = error.help() {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::error::Side;

    #[test]
    fn a_report_says_what_where_why_and_the_remedy() {
        let error = Error::Root {
            side: Side::Source,
            path: OsStr::from_bytes(b"/srv/\x1b[2J\xff").into(),
            what: "can't be opened",
            remedy: "check the path",
            source: Some(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        assert_eq!(
            report(&error),
            "copyd: error: source /srv/\\#033[2J\\#377: can't be opened\n  \
             why:  No such file or directory (os error 2)\n  help: check the path"
        );
    }

    #[test]
    fn an_error_without_a_cause_has_no_why() {
        let text = report(&Error::DeletionLimit { wanted: 7, limit: 3 });
        assert!(text.contains("7 deletions would exceed --max-delete=3"));
        assert!(!text.contains("why:"));
    }
}
