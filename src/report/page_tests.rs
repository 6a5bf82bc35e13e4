//! The page holds what the report says, and no name acts in it.

use proptest::prelude::*;

use super::super::sample::migration;
use super::*;

/// Tags of a page, in order: what a browser would take for markup.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split([' ', '>']).next().unwrap_or_default()).collect()
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = page(&migration(b"a").report());
    for foreign in
        ["<script", "http://", "https://", "@import", "url(", "<link", "<img", "<iframe", "javascript:", "onload"]
    {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"), "its own policy");
}

#[test]
fn the_page_says_what_the_report_says() {
    let page = page(&migration(b"dir/name").report());
    for text in [
        "/srv/shares/alpha",
        "/srv/new/alpha",
        "412,380",
        "66.4 GiB",
        "411,175 entries",
        "398,120",
        "13,055",
        "1,204 entries",
        "permission",
        "dir/name",
        "owner",
        "(accepted)",
        "time grain",
        "birth time",
        "5f1c5f1c",
        "read back with direct I/O",
        "Took",
        "59 s",
        "it kept to what nine of ten do",
        "the source still changes",
        "confirmation",
        "2 h 14 min",
        "1 died and went on",
        "aria-label=\"Throughput over time",
        "and 1,203 more",
        "completed, exit 23",
    ] {
        assert!(page.contains(text), "{text} in the page");
    }
    assert!(!page.contains("between us"));
}

#[test]
fn a_job_that_has_just_begun_has_a_page_too() {
    let mut sample = migration(b"a");
    let fresh = crate::job::Job::new(sample.job.id, sample.job.spec.clone(), sample.job.created_ms);
    (sample.job, sample.events) = (fresh, Vec::new());
    (sample.failures, sample.counts, sample.losses) = (Vec::new(), Vec::new(), Vec::new());
    let page = page(&sample.report());
    assert!(page.contains("Not ended: queued.") && !page.contains("<svg"));
}

#[test]
fn a_name_can_be_no_markup_and_no_control() {
    let hostile =
        b"</li><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J\x07\xff\xe2\x80\xaegpj.exe&amp;";
    let (tame, wild) = (page(&migration(b"plain").report()), page(&migration(hostile).report()));
    assert_eq!(tags(&tame), tags(&wild));
    assert!(wild.contains("\\#033[2J\\#007"));
    assert!(wild.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!wild.contains('\u{202e}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_name_is_the_page_keeps_its_shape(name in proptest::collection::vec(any::<u8>(), 1..60)) {
        let (tame, wild) = (page(&migration(b"plain").report()), page(&migration(&name).report()));
        prop_assert_eq!(tags(&tame), tags(&wild));
        prop_assert!(wild.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
