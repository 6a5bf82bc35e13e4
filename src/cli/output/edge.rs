//! An error at the program's edge: what, where, why, and what to do about it.
//!
//! The worker's failures have their parts; `miette` carries them to the edge as one diagnostic
//! (message, causes, help), and the handler here prints it in lines that a log can hold, without
//! colours or drawings. Paths are escaped: an error message is a place where names reach a
//! terminal too.

use std::fmt;

use miette::{Diagnostic, ReportHandler};

use crate::error::Error;
use crate::worker::{Failure, escape};

/// The whole report of an error of this process, as it goes to stderr.
pub fn report_error(error: &Error) -> String {
    report(&Failure::of(error))
}

/// The whole report, as it goes to stderr.
pub fn report(failure: &Failure) -> String {
    struct Rendered<'a>(&'a Edge);
    impl fmt::Display for Rendered<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Lines.debug(self.0, f)
        }
    }
    let cause = failure.why.iter().rev().fold(None, |next, text| Some(Box::new(Cause { text: text.clone(), next })));
    Rendered(&Edge { message: failure.message.clone(), remedy: failure.remedy.clone(), cause }).to_string()
}

/// A failure with its parts for miette.
#[derive(Debug)]
struct Edge {
    message: String,
    remedy: String,
    cause: Option<Box<Cause>>,
}

/// One cause, and what caused it.
#[derive(Debug)]
struct Cause {
    text: String,
    next: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Edge {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl Diagnostic for Edge {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.remedy))
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
            report_error(&error),
            "copyd: error: source /srv/\\#033[2J\\#377: can't be opened\n  \
             why:  No such file or directory (os error 2)\n  help: check the path"
        );
    }

    #[test]
    fn an_error_without_a_cause_has_no_why() {
        let text = report_error(&Error::DeletionLimit { wanted: 7, limit: 3 });
        assert!(text.contains("7 deletions would exceed --max-delete=3"));
        assert!(!text.contains("why:"));
    }
}
