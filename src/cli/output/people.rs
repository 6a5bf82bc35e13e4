//! Events as lines for people.

use crate::worker::{Report, escape};

/// How much a run prints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detail {
    /// `-v`: paths.
    pub verbose: u8,
    /// `-i`: rsync's eleven characters; implied by `-n`.
    pub itemize: u8,
}

impl Detail {
    /// Whether entries without a change are printed too (`-ii`, `-vv`; a verify: `-v`).
    const fn unchanged(self) -> bool {
        self.itemize > 1 || self.verbose > 1
    }

    /// Whether any entry is printed.
    pub const fn any(self) -> bool {
        self.itemize > 0 || self.verbose > 0
    }
}

/// A line and the stream it belongs on.
#[derive(Debug, PartialEq, Eq)]
pub enum Printed {
    /// Part of the result.
    Result(String),
    /// Beside it: stderr.
    Note(String),
}

/// What an event prints; failures are bounded, and so are not decided here.
pub fn line(report: &Report<'_>, detail: Detail) -> Option<Printed> {
    match report {
        Report::Started { job, resumed: true, .. } => {
            Some(Printed::Result(format!("job {job}, resumed: what an earlier run proved is not copied again")))
        }
        Report::Started { job, .. } => (detail.verbose > 0).then(|| Printed::Result(format!("job {job}"))),
        Report::Backend { backend, readback, jobs, reason } => {
            let threads = if *jobs == 1 { "1 data thread".to_owned() } else { format!("{jobs} data threads") };
            let reason = escape(reason.as_bytes());
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            Some(Printed::Result(format!("backend {backend}, {threads}, read-back {readback}{reason}")))
        }
        // Silence means that all was given up.
        Report::Confined(confined) => {
            let shortfall = confined.shortfall()?;
            Some(Printed::Note(format!("copyd: {}", escape(shortfall.as_bytes()))))
        }
        Report::PassStarted { pass } => (detail.verbose > 0).then(|| Printed::Result(format!("pass {pass}"))),
        Report::Item { name, kind, action, itemized } => {
            item(&shown(&name.bytes(), kind), action, itemized, detail).map(Printed::Result)
        }
        Report::Deleted { name, kind } => {
            let name = shown(&name.bytes(), kind);
            let text = if detail.itemize > 0 { format!("*deleting   {name}") } else { format!("deleting {name}") };
            detail.any().then_some(Printed::Result(text))
        }
        Report::Compared { sign, name, what } => compared(*sign, &name.bytes(), what, detail).map(Printed::Result),
        Report::Loss { class, name, detail: how } => (detail.verbose > 0).then(|| {
            let how = if how.is_empty() { String::new() } else { format!(" ({})", escape(how.as_bytes())) };
            Printed::Note(format!("copyd: can't be kept: {}: {}{how}", class.word(), rooted(&name.bytes())))
        }),
        Report::Ignored { name, why } => {
            let why = escape(why.as_bytes());
            Some(Printed::Note(format!("copyd: ignored: {}: {why}", rooted(&name.bytes()))))
        }
        Report::Note { text } => Some(Printed::Note(format!("copyd: {}", escape(text.as_bytes())))),
        Report::PassEnded { pass, copied, hot, failed } => (detail.verbose > 0)
            .then(|| Printed::Result(format!("pass {pass} ended: {copied} copied, {hot} hot, {failed} failed"))),
        Report::UnknownCommand { command } => {
            Some(Printed::Note(format!("copyd: the worker does not know the command {}", escape(command.as_bytes()))))
        }
        Report::EntryFailed { .. } | Report::Entry(_) | Report::Progress(_) | Report::Stall(_) | Report::Summary(_) => {
            None
        }
    }
}

fn item(name: &str, action: &str, itemized: &str, detail: Detail) -> Option<String> {
    // Eleven characters of which only the kind says something.
    let unchanged = action == "keep" && itemized.chars().skip(2).all(|mark| mark == '.');
    if unchanged && !detail.unchanged() {
        return None;
    }
    if detail.itemize > 0 {
        return Some(format!("{} {name}", escape(itemized.as_bytes())));
    }
    (detail.verbose > 0).then(|| name.to_owned())
}

/// rclone's `= path`; with `-i`, a tab and what differs. A tab in a name is escaped, so it divides.
fn compared(sign: char, path: &[u8], what: &str, detail: Detail) -> Option<String> {
    if sign == '=' && !detail.any() {
        return None;
    }
    let name = rooted(path);
    if detail.itemize > 0 && !what.is_empty() {
        return Some(format!("{sign} {name}\t{}", escape(what.as_bytes())));
    }
    Some(format!("{sign} {name}"))
}

/// The line of a failed entry.
pub fn failure(report: &Report<'_>) -> Option<String> {
    let Report::EntryFailed { name, class, side, operation, error, .. } = report else { return None };
    let why = error.as_ref().map(|e| format!(": {}", escape(e.as_bytes()))).unwrap_or_default();
    let (class, operation) = (class.word(), escape(operation.as_bytes()));
    Some(format!("copyd: {class}: {side} {}: {operation}{why}", rooted(&name.bytes())))
}

/// rsync's name in a list: a directory ends with a slash, the root is `./`.
fn shown(path: &[u8], kind: &str) -> String {
    let mut name = rooted(path);
    if kind == "directory" {
        name.push('/');
    }
    name
}

/// A path from the root; the root itself is `.`.
fn rooted(path: &[u8]) -> String {
    if path.is_empty() { ".".into() } else { escape(path) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::{Class, EntryError, Side};
    use crate::pass::Event;
    use crate::sys::Kind;
    use crate::tree::plan::{Action, Change, Differences};

    const ITEMIZE: Detail = Detail { verbose: 0, itemize: 1 };
    const VERBOSE: Detail = Detail { verbose: 1, itemize: 0 };

    fn change(path: &[u8], kind: Kind, action: Action) -> Change {
        Change { path: path.to_vec(), kind, action, differences: Differences::default() }
    }

    fn result(event: &Event<'_>, detail: Detail) -> Option<String> {
        match line(&event.into(), detail) {
            Some(Printed::Result(text)) => Some(text),
            Some(Printed::Note(text)) => panic!("a note: {text}"),
            None => None,
        }
    }

    fn failed(error: &EntryError) -> String {
        failure(&Report::from(&Event::EntryFailed(error))).unwrap()
    }

    #[test]
    fn items_look_as_rsync_prints_them() {
        let made = change(b"d/f", Kind::File, Action::Make { exists: false });
        assert_eq!(result(&Event::Item(&made), ITEMIZE).unwrap(), ">f+++++++++ d/f");
        let directory = change(b"d", Kind::Directory, Action::Make { exists: false });
        assert_eq!(result(&Event::Item(&directory), ITEMIZE).unwrap(), "cd+++++++++ d/");
        assert_eq!(result(&Event::Item(&directory), VERBOSE).unwrap(), "d/");
        let mut root = change(b"", Kind::Directory, Action::Adjust);
        root.differences.mtime = true;
        assert_eq!(result(&Event::Item(&root), ITEMIZE).unwrap(), ".d..t...... ./");
    }

    #[test]
    fn deletions_look_as_rsync_prints_them() {
        let event = Event::Deleted { path: b"old\n", kind: Kind::Directory };
        assert_eq!(result(&event, ITEMIZE).unwrap(), "*deleting   old\\#012/");
        assert_eq!(result(&event, VERBOSE).unwrap(), "deleting old\\#012/");
        assert_eq!(result(&event, Detail::default()), None);
    }

    #[test]
    fn unchanged_entries_are_printed_only_where_asked_twice() {
        let kept = change(b"f", Kind::File, Action::Keep);
        assert_eq!(result(&Event::Item(&kept), ITEMIZE), None);
        assert_eq!(result(&Event::Item(&kept), Detail { verbose: 0, itemize: 2 }).unwrap(), ".f......... f");
    }

    #[test]
    fn a_comparison_is_a_sign_and_a_path_and_says_what_differs_with_i() {
        let event = Event::Compared { sign: '*', path: b"a\tb", what: "mode, owner" };
        assert_eq!(result(&event, Detail::default()).unwrap(), "* a\\#011b");
        assert_eq!(result(&event, ITEMIZE).unwrap(), "* a\\#011b\tmode, owner");
        let equal = Event::Compared { sign: '=', path: b"a", what: "" };
        assert_eq!(result(&equal, Detail::default()), None);
        assert_eq!(result(&equal, VERBOSE).unwrap(), "= a");
    }

    #[test]
    fn a_failure_names_class_side_path_call_and_cause_in_printable_characters() {
        let error = EntryError::io(Side::Source, "open", b"x\x1b".to_vec(), io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(failed(&error), "copyd: permission: source x\\#033: open: Permission denied (os error 13)");
        let hot = EntryError { class: Class::Hot, side: Side::Source, operation: "read", path: vec![], source: None };
        assert_eq!(failed(&hot), "copyd: hot: source .: read");
    }
}
