//! Pages of jobs: every job once, in order, found by an index.

use std::collections::BTreeSet;

use rusqlite::params_from_iter;

use super::super::list::Query;
use super::super::reader::{BY_ID, UNFINISHED};
use super::super::writer::SWEPT;
use super::*;

/// Jobs of two projects, some with labels, a third of them cancelled.
fn fill(control: &mut Control, jobs: u128) -> Vec<Job> {
    (1..=jobs)
        .map(|n| {
            let mut spec = JobSpec::new(if n % 2 == 0 { Kind::Migrate } else { Kind::Replicate }, "/a", "/b");
            spec.project = if n % 5 == 0 { "p".into() } else { "q".into() };
            spec.priority = u8::try_from(n * 37 % 101).expect("a priority");
            if n % 4 == 0 {
                spec.labels.insert("tier".into(), "gold".into());
                spec.labels.insert("n".into(), (n % 8).to_string());
            }
            let job = job(n, spec);
            create(control, &job);
            if n % 3 == 0 { commit(control, &job, Command::Cancel) } else { job }
        })
        .collect()
}

fn filters() -> Vec<JobFilter> {
    let all = JobFilter::default();
    let gold = ("tier".to_owned(), "gold".to_owned());
    vec![
        all.clone(),
        JobFilter { projects: Some(vec!["p".into()]), ..all.clone() },
        JobFilter { projects: Some(vec!["p".into(), "q".into()]), ..all.clone() },
        JobFilter { projects: Some(vec![]), ..all.clone() },
        JobFilter { states: vec![State::Cancelled], ..all.clone() },
        JobFilter { states: vec![State::Cancelled, State::Queued], kinds: vec![Kind::Migrate], ..all.clone() },
        JobFilter { states: vec![State::Queued], projects: Some(vec!["q".into()]), ..all.clone() },
        JobFilter { labels: vec![gold.clone()], ..all.clone() },
        JobFilter { labels: vec![gold, ("n".into(), "4".into())], kinds: vec![Kind::Migrate], ..all.clone() },
        JobFilter { group: Some("g".into()), ..all },
    ]
}

fn sorts() -> Vec<Sort> {
    [SortKey::Created, SortKey::Updated, SortKey::Priority]
        .into_iter()
        .flat_map(|key| [false, true].map(|descending| Sort { key, descending }))
        .collect()
}

fn fits(job: &Job, filter: &JobFilter) -> bool {
    filter.projects.as_ref().is_none_or(|some| some.contains(&job.project))
        && (filter.states.is_empty() || filter.states.contains(&job.state))
        && (filter.kinds.is_empty() || filter.kinds.contains(&job.kind()))
        && filter.group.as_ref().is_none_or(|group| job.spec.group.as_ref() == Some(group))
        && filter.labels.iter().all(|(key, value)| job.spec.labels.get(key) == Some(value))
}

fn expected(jobs: &[Job], filter: &JobFilter, sort: Sort) -> Vec<Uuid> {
    let mut found: Vec<&Job> = jobs.iter().filter(|job| fits(job, filter)).collect();
    found.sort_by_key(|job| match sort.key {
        SortKey::Created => (0, job.id),
        SortKey::Updated => (job.updated_ms, job.id),
        SortKey::Priority => (u64::from(job.spec.priority), job.id),
    });
    if sort.descending {
        found.reverse();
    }
    found.iter().map(|job| job.id).collect()
}

#[test]
fn pages_show_every_job_once_whatever_they_are_filtered_and_sorted_by() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let jobs = fill(&mut control, 60);
    let reader = control.reader().expect("reader");
    for filter in filters() {
        for sort in sorts() {
            let (mut found, mut marker) = (Vec::new(), None);
            loop {
                let page = reader.jobs(&filter, sort, 7, marker).expect("a page");
                assert!(page.items.len() <= 7);
                found.extend(page.items.iter().map(|job| job.id));
                match page.next {
                    None => break,
                    Some(next) => marker = Some(next.parse().expect("a marker")),
                }
            }
            assert_eq!(found, expected(&jobs, &filter, sort), "{filter:?} {sort:?}");
        }
    }
}

#[test]
fn a_marker_stays_good_while_jobs_come_and_go() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    let jobs = fill(&mut control, 30);
    let filter = JobFilter::default();
    let page = control.reader().expect("reader").jobs(&filter, Sort::default(), 9, None).expect("a page");
    let marker: Marker = page.next.expect("more").parse().expect("a marker");
    // The last of the page goes, and so does one of the next; another comes.
    assert_eq!(page.items[8].id, jobs[8].id);
    for gone in [8, 11] {
        assert_eq!(control.delete(jobs[gone].id).expect("delete"), Deleted::Done);
    }
    create(&mut control, &job(99, migrate()));
    let rest = control.reader().expect("reader").jobs(&filter, Sort::default(), 99, Some(marker)).expect("a page");
    let ids: BTreeSet<Uuid> = rest.items.iter().map(|job| job.id).collect();
    let expected = jobs[9..].iter().map(|job| job.id).filter(|id| *id != jobs[11].id);
    assert_eq!(ids, expected.chain([job(99, migrate()).id]).collect());
}

#[test]
fn a_marker_is_read_as_it_was_written_and_another_text_is_refused() {
    for text in ["01990000-0000-7000-8000-000000000001", "1770000000000.01990000-0000-7000-8000-000000000001"] {
        assert_eq!(text.parse::<Marker>().expect(text).to_string(), text);
    }
    for text in [
        "",
        "1",
        "x.y",
        "-1.01990000-0000-7000-8000-000000000001",
        "99999999999999999999.01990000-0000-7000-8000-000000000001",
    ] {
        assert!(text.parse::<Marker>().is_err(), "{text}");
    }
}

/// What `SQLite` would do for a statement.
fn plan(control: &Control, sql: &str, values: Vec<rusqlite::types::Value>) -> Vec<String> {
    let reader = control.reader().expect("reader");
    let mut statement = reader.connection().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
    let lines = statement.query_map(params_from_iter(values), |row| row.get(3)).expect(sql);
    lines.collect::<Result<_, _>>().expect("a plan")
}

#[test]
fn every_list_is_served_by_an_index_that_holds_what_it_filters_by_and_its_order() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    fill(&mut control, 3);
    let marker = |sort: Sort| Some(Marker::after(&job(2, migrate()), sort.key));
    for filter in filters() {
        for sort in sorts() {
            for marker in [None, marker(sort)] {
                let query = Query::new(&filter, sort, 100, marker);
                let plan = plan(&control, &query.sql, query.values);
                let text = plan.join(" | ");
                assert!(!text.contains("TEMP B-TREE"), "sorted by hand: {text} for {}", query.sql);
                assert!(
                    plan.iter().filter(|line| line.contains(" job ")).all(|line| line.contains("COVERING INDEX")),
                    "{text} for {}",
                    query.sql
                );
                assert!(!text.contains("SCAN label"), "{text} for {}", query.sql);
            }
        }
    }
    let sought = [(BY_ID, vec!["x".to_owned().into()]), (SWEPT, vec![1.into(), 2.into()]), (UNFINISHED, vec![])];
    for (sql, values) in sought {
        let text = plan(&control, sql, values).join(" | ");
        assert!(text.contains("USING INDEX") && !text.contains("TEMP B-TREE"), "{text} for {sql}");
    }
}

#[test]
fn ten_thousand_jobs_are_listed_a_page_at_a_time() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut control = open(scratch.path()).expect("open");
    // In one transaction: what is looked at is the list.
    let jobs: Vec<Job> = (1..=10_000).map(|n| job(n, migrate())).collect();
    control.insert_all(&jobs).expect("insert");
    let reader = control.reader().expect("reader");
    let began = std::time::Instant::now();
    let (mut found, mut pages, mut marker) = (0, 0, None);
    loop {
        let page = reader.jobs(&JobFilter::default(), Sort::default(), 100, marker).expect("a page");
        (found, pages) = (found + page.items.len(), pages + 1);
        match page.next {
            None => break,
            Some(next) => marker = Some(next.parse().expect("a marker")),
        }
    }
    eprintln!("{pages} pages, {:?} each", began.elapsed() / pages);
    assert_eq!((found, pages), (10_000, 100));
    assert_eq!(
        reader.counts().expect("counts"),
        [StateCount { kind: Kind::Migrate, state: State::Queued, jobs: 10_000 }]
    );
}
