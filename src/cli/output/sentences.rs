//! The last words of a run: honest sentences, and the table of `--stats`.
//!
//! Each sentence says no more than what the counters carry: what was proved is told apart from
//! what was assumed, and how it was read back stands beside it.

use std::collections::BTreeMap;

use crate::error::{Class, ExitCode};
use crate::fidelity::LossClass;
use crate::limits::FAILURES_SHOWN;
use crate::units::grouped;
use crate::worker::{LastWord, OverLimit};

/// What an exit code means, in one sentence.
pub const fn meaning(exit: ExitCode) -> &'static str {
    match exit {
        ExitCode::Complete => "complete to the level asked",
        ExitCode::Usage => "wrong usage",
        ExitCode::Internal => "internal error",
        ExitCode::Root => "I/O error on a root, the state or an output file",
        ExitCode::Stopped => "stopped by a signal",
        ExitCode::SomeFailed => "some entries failed, or were still changing at the end",
        ExitCode::Vanished => "entries vanished while copyd ran, and --strict was asked",
        ExitCode::DeletionLimit => "deletion limit: nothing was deleted",
        ExitCode::Timeout => "timeout",
        ExitCode::Mismatch => "verify found differences",
        ExitCode::LossRefused => "the destination can't hold everything, and the loss was not accepted",
        ExitCode::Guard => "a guard of source or destination refused",
    }
}

/// What the run said about single entries, for grouping.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<Class, u64>);

impl Failures {
    /// Counts one, and tells whether it is still to be shown.
    pub fn count(&mut self, class: Class) -> bool {
        let n = self.0.entry(class).or_default();
        *n += 1;
        *n <= FAILURES_SHOWN
    }
}

/// The final sentences of a run that returned a summary.
pub fn sentences(summary: &LastWord, failures: &Failures, log: Option<&str>) -> Vec<String> {
    let mut out = Vec::new();
    if summary.kind == "verify" {
        compared(summary, &mut out);
    } else {
        copied(summary, &mut out);
        limited(summary, &mut out);
        proof(summary, &mut out);
    }
    failed(summary, failures, log, &mut out);
    losses(summary, &mut out);
    if let Some(digest) = &summary.share_digest {
        out.push(format!("share digest    {digest}"));
    }
    if let Some(digest) = &summary.metadata_digest {
        out.push(format!("metadata digest {digest}"));
    }
    ending(summary, &mut out);
    out
}

fn copied(s: &LastWord, out: &mut Vec<String>) {
    if s.dry_run {
        out.push(format!(
            "Dry run, nothing was written: {} would be copied, {} made, {} linked, the metadata of {} set, {} deleted; \
             {} equal already.",
            files(s.files_copied),
            many(s.directories_created, "directory", "directories"),
            many(s.links_made, "name", "names"),
            entries(s.metadata_updated),
            entries(s.deleted),
            are(s.files_unchanged, "file", "files"),
        ));
        return;
    }
    out.push(format!(
        "Copied {} ({} bytes written) and made {} and {} in {} over {}; {} equal already, the metadata of {} was set \
         anew.",
        files(s.files_copied),
        grouped(s.bytes_copied),
        many(s.directories_created, "directory", "directories"),
        many(s.links_made, "hard link", "hard links"),
        many(u64::from(s.passes), "pass", "passes"),
        entries(s.entries),
        are(s.files_unchanged, "file", "files"),
        entries(s.metadata_updated),
    ));
    if s.deleted > 0 || s.renamed > 0 {
        out.push(format!("At the destination {} deleted and {} renamed.", were(s.deleted), were(s.renamed)));
    }
}

fn limited(s: &LastWord, out: &mut Vec<String>) {
    if let Some(OverLimit { wanted, limit }) = s.over_limit {
        out.push(format!(
            "Nothing was deleted: {} would exceed --max-delete={limit}. Look at what would go with -n -i, then raise it.",
            many(wanted, "deletion", "deletions")
        ));
    }
}

fn proof(s: &LastWord, out: &mut Vec<String>) {
    if s.dry_run {
        return;
    }
    out.push(format!(
        "Proved: {} read from an unchanged source, durable, and equal when read back ({} bytes). {}",
        entries(s.proved),
        grouped(s.bytes_verified),
        readback(&s.readback)
    ));
    if s.assumed > 0 {
        let why = match s.verify.as_str() {
            "none" | "inline" => "copied without read-back, or skipped as equal by size and times",
            _ => "skipped as equal by size and times",
        };
        let before = match s.proved_before {
            0 => String::new(),
            some => format!(" (of which an earlier run of the job has proved {})", entries(some)),
        };
        out.push(format!(
            "Assumed, not proved: {} {why}{before}; `copyd verify SRC DST` compares them.",
            entries(s.assumed)
        ));
    }
}

/// What a way of reading back proves, in words.
fn readback(word: &str) -> &'static str {
    match word {
        "direct" => "Read back with direct I/O, past the page cache.",
        "evicted" => "Read back after the page cache had dropped what was written.",
        "memory" => "The destination is a memory file system: nothing lies past the cache, so this proves no disk.",
        _ => "Nothing was read back.",
    }
}

fn compared(s: &LastWord, out: &mut Vec<String>) {
    out.push(format!(
        "Compared {} ({} bytes): {} differ, {} missing at the destination, {} only there, {} could not be compared. {}",
        entries(s.entries),
        grouped(s.bytes_verified),
        grouped(s.differing),
        grouped(s.missing),
        grouped(s.extra),
        grouped(s.failed),
        readback(&s.readback)
    ));
    if s.differing > 0 {
        out.push("With -i each line says what differs.".into());
    }
}

fn failed(s: &LastWord, failures: &Failures, log: Option<&str>, out: &mut Vec<String>) {
    if s.failed > 0 || s.hot > 0 {
        out.push(format!("{} failed, {} hot (changed whenever read):", entries(s.failed), files(s.hot)));
    }
    for (class, n) in &failures.0 {
        let unseen = n.saturating_sub(FAILURES_SHOWN);
        let rest = match (unseen, log) {
            (0, _) => String::new(),
            (_, Some(file)) => format!(" ({} not shown above; all are in {file})", grouped(unseen)),
            (_, None) => format!(" ({} not shown above; --log-file keeps all)", grouped(unseen)),
        };
        out.push(format!("  {:<12} {:>9}{rest}: {}", class.word(), grouped(*n), class.remedy()));
    }
    if s.vanished > 0 {
        out.push(format!("{} vanished while copyd ran.", entries(s.vanished)));
    }
    if s.ignored > 0 {
        out.push(format!("{} ignored: named above, and neither copied nor deleted.", entries(s.ignored)));
    }
}

fn losses(s: &LastWord, out: &mut Vec<String>) {
    if !s.lost.is_empty() {
        out.push("Lost, because the destination can't hold it:".into());
        out.extend(s.lost.iter().map(|(class, n)| loss_line(*class, *n)));
        let classes: Vec<&str> = s.lost.keys().map(|class| class.word()).collect();
        if s.exit() == ExitCode::LossRefused {
            out.push(format!("  To accept that: --accept-loss={}", classes.join(",")));
        }
    }
    if !s.degraded.is_empty() {
        out.push("Kept, but coarser or mapped:".into());
        out.extend(s.degraded.iter().map(|(class, n)| loss_line(*class, *n)));
    }
    if !s.unsettable.is_empty() {
        let words: Vec<&str> = s.unsettable.iter().map(|class| class.word()).collect();
        out.push(format!("No file system lets these be set: {}.", words.join(", ")));
    }
}

fn loss_line(class: LossClass, n: u64) -> String {
    let (word, description, remedy) = (class.word(), class.description(), class.remedy());
    format!("  {word:<16} {:>9}: {description} Remedy: {remedy}", grouped(n))
}

fn ending(s: &LastWord, out: &mut Vec<String>) {
    let again = match s.exit() {
        ExitCode::Stopped => " Run the same command again: it resumes.",
        ExitCode::SomeFailed if s.kind != "verify" => " Run the same command again for what is missing: it resumes.",
        _ => "",
    };
    let (code, meaning) = (s.exit_code, meaning(s.exit()));
    out.push(format!("{:.1} s, exit {code}: {meaning}.{again}", s.elapsed_s));
}

/// The table of `--stats`, with rsync's names where rsync has the thing.
pub fn stats(s: &LastWord) -> Vec<String> {
    let number = |name: &str, n: u64| format!("{name}: {}", grouped(n));
    let mut out = vec![
        number("Number of files", s.entries),
        number("Number of regular files transferred", s.files_copied),
        number("Number of regular files unchanged", s.files_unchanged),
        number("Number of created directories", s.directories_created),
        number("Number of hard links made", s.links_made),
        number("Number of entries with metadata set anew", s.metadata_updated),
        number("Number of deleted files", s.deleted),
        number("Number of renamed files", s.renamed),
        number("Number of failed entries", s.failed),
        number("Number of hot files", s.hot),
        number("Number of vanished entries", s.vanished),
        number("Number of ignored entries", s.ignored),
        number("Entries proved", s.proved),
        number("Entries assumed", s.assumed),
        format!("Total transferred file size: {} bytes", grouped(s.bytes_copied)),
        format!("Total verified file size: {} bytes", grouped(s.bytes_verified)),
        format!("Passes: {}", s.passes),
        format!("Verify level: {}", s.verify),
        format!("Read-back: {}", s.readback),
        format!("Backend: {}", s.backend),
        format!("Elapsed: {:.3} s", s.elapsed_s),
    ];
    out.extend(s.lost.iter().map(|(class, n)| format!("Lost {}: {}", class.word(), grouped(*n))));
    out.extend(s.degraded.iter().map(|(class, n)| format!("Degraded {}: {}", class.word(), grouped(*n))));
    out
}

fn many(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { more })
}

fn files(n: u64) -> String {
    many(n, "file", "files")
}

fn entries(n: u64) -> String {
    many(n, "entry", "entries")
}

fn are(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", many(n, one, more), if n == 1 { "is" } else { "are" })
}

fn were(n: u64) -> String {
    format!("{} {}", entries(n), if n == 1 { "was" } else { "were" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(summary: &LastWord, failures: &Failures) -> String {
        sentences(summary, failures, None).join("\n")
    }

    #[test]
    fn a_complete_run_says_what_was_proved_and_how_it_was_read_back() {
        let mut summary = super::super::tests::summary();
        summary.proved = 1380;
        summary.readback = "direct".into();
        let text = text(&summary, &Failures::default());
        assert!(text.contains("Proved: 1,380 entries"), "{text}");
        assert!(text.contains("direct I/O, past the page cache"), "{text}");
        assert!(!text.contains("Assumed"), "{text}");
        assert!(text.ends_with("exit 0: complete to the level asked."), "{text}");
    }

    #[test]
    fn a_memory_file_system_is_said_to_prove_no_disk() {
        let mut summary = super::super::tests::summary();
        summary.readback = "memory".into();
        assert!(text(&summary, &Failures::default()).contains("proves no disk"));
    }

    #[test]
    fn what_was_skipped_is_called_assumed() {
        let mut summary = super::super::tests::summary();
        summary.assumed = 1;
        assert!(text(&summary, &Failures::default()).contains("Assumed, not proved: 1 entry skipped as equal"));
        summary.proved_before = 1;
        assert!(text(&summary, &Failures::default()).contains("earlier run of the job has proved 1 entry)"));
    }

    #[test]
    fn failures_are_grouped_by_class_with_their_remedy_and_those_not_shown_are_counted() {
        let mut failures = Failures::default();
        let shown = (0..FAILURES_SHOWN + 5).filter(|_| failures.count(Class::Permission)).count();
        assert_eq!(shown as u64, FAILURES_SHOWN);
        let mut summary = super::super::tests::summary();
        summary.failed = FAILURES_SHOWN + 5;
        summary.exit_code = ExitCode::SomeFailed as u8;
        let text = text(&summary, &failures);
        assert!(text.contains("(5 not shown above; --log-file keeps all)"), "{text}");
        assert!(text.contains(Class::Permission.remedy()), "{text}");
        assert!(text.contains("exit 23"), "{text}");
        assert!(text.contains("Run the same command again"), "{text}");
    }

    #[test]
    fn a_dry_run_claims_nothing_was_written_or_proved() {
        let mut summary = super::super::tests::summary();
        summary.dry_run = true;
        let text = text(&summary, &Failures::default());
        assert!(text.starts_with("Dry run, nothing was written"), "{text}");
        assert!(!text.contains("Proved"), "{text}");
    }

    #[test]
    fn a_verify_counts_each_kind_of_difference() {
        let mut summary = super::super::tests::summary();
        (summary.kind, summary.differing, summary.missing, summary.extra) = ("verify".into(), 3, 2, 1);
        summary.exit_code = ExitCode::Mismatch as u8;
        let text = text(&summary, &Failures::default());
        assert!(text.contains("3 differ, 2 missing at the destination, 1 only there"), "{text}");
        assert!(text.contains("exit 40"), "{text}");
    }

    #[test]
    fn a_refused_loss_names_the_flag_that_accepts_it() {
        let mut summary = super::super::tests::summary();
        summary.lost.insert(LossClass::Owner, 12);
        summary.exit_code = ExitCode::LossRefused as u8;
        assert!(text(&summary, &Failures::default()).contains("--accept-loss=owner"));
    }
}
