//! `copyd job report`: in words, as the API's JSON, or as a page.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use uuid::Uuid;

use super::client::Ask;
use super::trouble::Trouble;
use super::{Hand, file_trouble, path};
use crate::error::ExitCode;
use crate::escape::escape;
use crate::report::{Report, page, words};
use crate::units::grouped;

pub fn run(hand: &Hand, job: Uuid, html: Option<&Path>) -> Result<ExitCode, Trouble> {
    let body = hand.client.call(&Ask::get(&path::of_job(job, "report")))?;
    if hand.json {
        hand.print_json(&body);
    }
    let report: Report = hand.read(&body)?;
    match html {
        Some(file) if file == Path::new("-") => {
            // Whoever closed stdout does not want to know.
            let _ = io::stdout().write_all(page(&report).as_bytes());
        }
        Some(file) => {
            write(file, &page(&report)).map_err(|source| file_trouble(file, "can't write the report", source))?;
        }
        None => lines(&report).iter().for_each(|line| hand.say(line)),
    }
    Ok(ExitCode::Complete)
}

/// Whole or not at all, and for its owner alone: it names entries of a tenant.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".copyd-{}", std::process::id()));
    let temporary = file.with_file_name(name);
    let written = File::options().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&temporary, file)
    });
    if written.is_err() {
        // It may never have been there.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// The report for a terminal; the page has more.
fn lines(report: &Report) -> Vec<String> {
    let (moved, proof) = (&report.moved, &report.proof);
    let mut out = vec![
        format!(
            "{} {} -> {}",
            report.job.kind.word(),
            escape(report.job.spec.source.export.as_bytes()),
            escape(report.job.spec.destination.export.as_bytes())
        ),
        escape(report.verdict.as_bytes()),
        format!(
            "Copied {}, {}; deleted {}, renamed {}; in {} over {}.",
            words::many(moved.files_copied, "file", "files"),
            words::size_in_full(moved.bytes_copied),
            grouped(moved.deleted),
            grouped(moved.renamed),
            words::span(moved.run_ms),
            words::many(u64::from(moved.runs), "run", "runs"),
        ),
        format!(
            "Proved by the last pass {}, by earlier ones {}, assumed {}.",
            words::entries(proof.proved),
            words::entries(proof.proved_before),
            words::entries(proof.assumed.saturating_sub(proof.proved_before))
        ),
    ];
    if let Some(cutover) = &report.cutover {
        let forecast = cutover.forecast.as_ref().map(|f| {
            format!(" (forecast {}, nine of ten at most {})", words::seconds(f.median_s), words::seconds(f.p90_s))
        });
        let took =
            cutover.took_ms.map_or_else(|| "has not come to its end".into(), |ms| format!("took {}", words::span(ms)));
        out.push(format!("The cutover {took}{}.", forecast.unwrap_or_default()));
    }
    for cause in &report.failed {
        out.push(format!(
            "{} failed, {}: {}",
            words::entries(cause.count),
            cause.class.word(),
            escape(cause.remedy.as_bytes())
        ));
        out.extend(cause.examples.iter().take(3).map(|example| format!("  {}", escape(&example.path()))));
    }
    for (how, list) in [("lost", &report.lost), ("degraded", &report.degraded)] {
        for class in list {
            let accepted = if class.accepted { ", accepted" } else { "" };
            let description = escape(class.description.as_bytes());
            out.push(format!(
                "{} {how} for {}{accepted}: {description}",
                class.class.word(),
                words::entries(class.count)
            ));
        }
    }
    for (name, digest) in [("share digest   ", &proof.share_digest), ("metadata digest", &proof.metadata_digest)] {
        out.extend(digest.as_deref().map(|hex| format!("{name} {}", escape(hex.as_bytes()))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::migration;

    #[test]
    fn the_words_have_no_control_bytes_and_name_what_failed() {
        let lines = lines(&migration(b"x\x1b[2J").report());
        assert!(lines.iter().all(|line| line.chars().all(|c| !c.is_control())), "{lines:?}");
        let text = lines.join("\n");
        for said in [
            "1,204 entries failed, permission",
            "  x\\#033[2J",
            "owner lost for 812 entries, accepted",
            "took 59 s (forecast 42 s",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_page_is_written_whole_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.html");
        std::fs::write(&file, "older").unwrap();
        write(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary is left");
        assert!(write(&directory.path().join("missing/report.html"), "x").is_err());
    }
}
