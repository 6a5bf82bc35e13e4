//! What can go wrong between the command line and a daemon, with a remedy and an exit code each.
//!
//! A daemon's refusal is a problem document (RFC 9457). It says itself what to do, so its remedy is its own
//! text, and its status decides the exit code: 1 where the request is to be changed, 43 where a rule or the
//! job's state forbids it, 11 where the daemon can't answer now, 2 where it has a defect.

use std::io;

use serde::Deserialize;

use crate::error::{Error, ExitCode};
use crate::worker::{Failure, escape};

/// Why a verb of `copyd job` did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The words, or a file that they name.
    #[error(transparent)]
    Own(#[from] Error),
    #[error("can't reach the daemon at {at}")]
    Unreachable { at: String, source: io::Error },
    #[error("can't speak TLS with {at}")]
    Tls { at: String, source: io::Error },
    /// It took the connection, and then gave no answer that is one.
    #[error("the daemon at {at} {what}")]
    NoAnswer { at: String, what: String, source: Option<Box<dyn std::error::Error + Send + Sync>> },
    /// It refused.
    #[error("{}", .0.sentence())]
    Problem(Box<Problem>),
}

/// A problem document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub detail: Option<String>,
    #[serde(default)]
    pub remedy: Option<String>,
    /// `no`, `later` or `changed`.
    #[serde(default)]
    pub retry: Option<String>,
    /// The field of the request that is to blame.
    #[serde(default)]
    pub field: Option<String>,
    /// As it came.
    #[serde(skip)]
    pub text: String,
}

impl Problem {
    /// Reads the body of an answer that is none of success. What is no problem document becomes one.
    #[must_use]
    pub fn of(status: u16, body: &str) -> Self {
        let mut found: Self = serde_json::from_str(body).unwrap_or_default();
        found.status = status;
        if found.title.is_empty() {
            found.title = format!("the daemon answered with status {status}");
        }
        body.clone_into(&mut found.text);
        found
    }

    /// As the daemon said it; [`Trouble::failure`] makes it printable.
    fn sentence(&self) -> String {
        let field = self.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let told = self.detail.as_deref().filter(|detail| !detail.is_empty()).unwrap_or(&self.title);
        format!("{field}{told}")
    }

    const fn exit_code(&self) -> ExitCode {
        match self.status {
            401 | 403 | 409 | 412 => ExitCode::Guard,
            408 | 429 | 502..=504 => ExitCode::Root,
            500..=599 => ExitCode::Internal,
            _ => ExitCode::Usage,
        }
    }

    fn remedy(&self) -> String {
        match (&self.remedy, self.status) {
            (Some(remedy), _) if !remedy.is_empty() => escape(remedy.as_bytes()),
            (_, 401) => "say who you are: --token-file, or --certificate with --key".into(),
            (_, 404) => "`copyd job list` shows the jobs that there are".into(),
            (_, 406) => {
                "this copyd and the daemon speak different versions of the API: use those of one release".into()
            }
            (_, 429 | 500..=599) => "try again; the daemon's log says more (journalctl -u copyd)".into(),
            _ => "`copyd help job` shows what each verb takes".into(),
        }
    }
}

impl Trouble {
    /// The exit code of the verb.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Own(error) => error.exit_code(),
            Self::Unreachable { .. } | Self::Tls { .. } | Self::NoAnswer { .. } => ExitCode::Root,
            Self::Problem(problem) => problem.exit_code(),
        }
    }

    /// Whether the same request may be made again with hope: it never reached the daemon, or found it busy.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Own(_) | Self::Tls { .. } => false,
            Self::Unreachable { .. } | Self::NoAnswer { .. } => true,
            Self::Problem(problem) => matches!(problem.status, 408 | 429 | 502..=504),
        }
    }

    /// Its parts, in printable characters.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (class, remedy) = match self {
            Self::Own(error) => return Failure::of(error),
            Self::Unreachable { source, .. } => ("unreachable", unreachable(source.kind()).to_owned()),
            Self::Tls { .. } => (
                "tls",
                "check --ca (who signed the daemon's certificate), --certificate and --key, and that the daemon's \
                 certificate names the host of --url"
                    .into(),
            ),
            Self::NoAnswer { .. } => (
                "no_answer",
                "check that --url names copyd's daemon, and its log (journalctl -u copyd); then try again".into(),
            ),
            Self::Problem(problem) => ("refused", problem.remedy()),
        };
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        Failure {
            class: class.into(),
            message: escape(self.to_string().as_bytes()),
            why: causes.map(|cause| escape(cause.to_string().as_bytes())).collect(),
            remedy,
        }
    }
}

const fn unreachable(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "this user may not use the socket: become root, or a member of the group that the socket belongs to"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is it running (systemctl status copyd, or copyd serve)? --url or COPYD_URL says where it listens"
        }
        _ => "check the address in --url or COPYD_URL and the network to it, then try again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: &str = r#"{"type":"urn:copyd:problem:forbidden","title":"Not allowed","status":403,
        "detail":"/etc is not below a root that is allowed","remedy":"name a path below /srv","retry":"no",
        "field":"source.export"}"#;

    fn problem(status: u16, body: &str) -> Trouble {
        Trouble::Problem(Box::new(Problem::of(status, body)))
    }

    #[test]
    fn a_problem_document_says_what_and_where_with_its_own_remedy() {
        let failure = problem(403, FORBIDDEN).failure();
        assert_eq!(failure.message, "source.export: /etc is not below a root that is allowed");
        assert_eq!(failure.remedy, "name a path below /srv");
        assert_eq!(problem(403, FORBIDDEN).exit_code(), ExitCode::Guard);
    }

    #[test]
    fn control_bytes_of_a_problem_never_reach_a_terminal() {
        let body = r#"{"title":"x","detail":"a\u001b[2Jb","remedy":"c\u009bd","field":"e\u0007"}"#;
        let failure = problem(422, body).failure();
        assert_eq!(failure.message, "e\\#007: a\\#033[2Jb");
        assert!(failure.remedy.chars().all(|c| !c.is_control()), "{}", failure.remedy);
    }

    #[test]
    fn what_is_no_problem_document_is_told_by_its_status() {
        let trouble = problem(502, "<html>Bad gateway</html>");
        assert_eq!(trouble.to_string(), "the daemon answered with status 502");
        assert_eq!(trouble.exit_code(), ExitCode::Root);
        assert!(trouble.may_pass());
    }

    #[test]
    fn the_status_decides_the_exit_code() {
        for (status, exit) in [
            (400, ExitCode::Usage),
            (401, ExitCode::Guard),
            (404, ExitCode::Usage),
            (406, ExitCode::Usage),
            (409, ExitCode::Guard),
            (412, ExitCode::Guard),
            (422, ExitCode::Usage),
            (429, ExitCode::Root),
            (500, ExitCode::Internal),
            (503, ExitCode::Root),
        ] {
            assert_eq!(problem(status, "{}").exit_code(), exit, "{status}");
            assert!(!problem(status, "{}").failure().remedy.is_empty());
        }
    }

    #[test]
    fn a_socket_that_is_not_there_and_one_that_is_forbidden_have_remedies_of_their_own() {
        let of = |number| Trouble::Unreachable {
            at: "unix:/run/copyd/copyd.sock".into(),
            source: io::Error::from_raw_os_error(number),
        };
        assert!(of(libc::ENOENT).failure().remedy.contains("systemctl status copyd"));
        assert!(of(libc::EACCES).failure().remedy.contains("group"));
        assert_eq!(of(libc::ENOENT).exit_code(), ExitCode::Root);
    }
}
