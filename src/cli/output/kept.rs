//! The JSON lines of `copyd trash`: an entry each, and a summary that is always the last.

use serde::Serialize;

use crate::error::{Error, ExitCode};
use crate::pass::{Expired, Outcome, RestoreFate, Restored, TrashEntry};
use crate::worker::{Failure, Name, escape, line};

/// What a verb of the trash has counted.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Counts {
    List { listed: u64 },
    Restore { restored: u64, older: u64, not_restored: u64 },
    Expire { generations: u64, entries: u64, more: bool },
}

impl Counts {
    const fn kind(&self) -> &'static str {
        match self {
            Self::List { .. } => "trash_list",
            Self::Restore { .. } => "trash_restore",
            Self::Expire { .. } => "trash_expire",
        }
    }
}

impl From<Expired> for Counts {
    fn from(done: Expired) -> Self {
        Self::Expire { generations: done.generations, entries: done.entries, more: done.more }
    }
}

/// One line of a verb.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Said<'a> {
    Trashed {
        #[serde(flatten)]
        name: Name,
        time: &'a str,
        why: &'static str,
        kind: &'a str,
        job: String,
    },
    Restore {
        #[serde(flatten)]
        name: Name,
        fate: &'static str,
        error: Option<String>,
    },
    Summary {
        kind: &'static str,
        outcome: Outcome,
        exit_code: u8,
        #[serde(flatten)]
        counts: &'a Counts,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
}

/// The line of an entry in the trash.
pub fn listed(entry: &TrashEntry) -> String {
    line(&Said::Trashed {
        name: entry.path.as_slice().into(),
        time: &entry.time,
        why: entry.why.word(),
        kind: &entry.kind,
        job: entry.job.to_string(),
    })
}

/// The line of what became of an entry that was to be restored.
pub fn restored(entry: &Restored) -> String {
    let fate = match entry.fate {
        RestoreFate::Restored => "restored",
        RestoreFate::InTheWay => "in_the_way",
        RestoreFate::Older => "older",
        RestoreFate::Missing => "missing",
        RestoreFate::Failed => "failed",
    };
    let error = entry.error.as_ref().map(|e| escape(e.to_string().as_bytes()));
    line(&Said::Restore { name: entry.path.as_slice().into(), fate, error })
}

/// The last line. `error` is what ended the verb before its time.
pub fn summary(counts: &Counts, exit: ExitCode, error: Option<&Error>) -> String {
    let (kind, outcome) = (counts.kind(), Outcome::of(exit));
    line(&Said::Summary { kind, outcome, exit_code: exit as u8, counts, error: error.map(Failure::of) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_utf_8_is_in_base64_and_the_fate_is_a_word() {
        let entry = Restored { path: b"a/\xff".to_vec(), fate: RestoreFate::InTheWay, error: None };
        assert_eq!(
            restored(&entry),
            r#"{"event":"restore","schema":1,"name_b64":"YS//","fate":"in_the_way","error":null}"#
        );
    }

    #[test]
    fn a_refused_verb_has_a_summary_with_its_error() {
        let error = Error::Guard { what: "in use".into(), remedy: "wait" };
        let counts = Counts::Expire { generations: 0, entries: 0, more: false };
        assert_eq!(
            summary(&counts, ExitCode::Guard, Some(&error)),
            r#"{"event":"summary","schema":1,"kind":"trash_expire","outcome":"refused","exit_code":43,"generations":0,"entries":0,"more":false,"error":{"class":"guard","message":"in use","remedy":"wait"}}"#
        );
    }
}
