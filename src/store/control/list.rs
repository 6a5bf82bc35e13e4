//! Which jobs a list shows, in which order, and where its next page begins.
//!
//! A page is found by walking one index in order, from the marker on; the filters are checked against the index
//! alone. So a page costs its own rows, and neither jobs that come nor jobs that go move what is on later pages.

use std::fmt::Write as _;
use std::str::FromStr;

use rusqlite::types::Value;
use uuid::Uuid;

use crate::job::{Job, Kind, State};

/// Which jobs. What is empty excludes none, but for `projects`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// The projects that may be seen; `None` for all.
    pub projects: Option<Vec<String>>,
    pub states: Vec<State>,
    pub kinds: Vec<Kind>,
    pub group: Option<String>,
    /// All of them.
    pub labels: Vec<(String, String)>,
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    #[default]
    Created,
    Updated,
    Priority,
}

/// An order; jobs that are equal in it are sorted by the time they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    pub key: SortKey,
    pub descending: bool,
}

/// The last job of a page: the next one begins after it, even where it has been deleted meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// What it is sorted by; 0 where that is its time.
    value: u64,
    id: Uuid,
}

/// A text that is no marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no marker of a page: give the one that the page before names in `next`")]
pub struct MarkerError;

impl FromStr for Marker {
    type Err = MarkerError;

    fn from_str(text: &str) -> Result<Self, MarkerError> {
        let (value, id) = text.split_once('.').map_or((Ok(0), text), |(value, id)| (value.parse::<u64>(), id));
        let value = value.ok().filter(|value| i64::try_from(*value).is_ok()).ok_or(MarkerError)?;
        Uuid::try_parse(id).map(|id| Self { value, id }).map_err(|_| MarkerError)
    }
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value == 0 { write!(f, "{}", self.id) } else { write!(f, "{}.{}", self.value, self.id) }
    }
}

impl Marker {
    pub(super) fn after(job: &Job, key: SortKey) -> Self {
        let value = match key {
            SortKey::Created => 0,
            SortKey::Updated => job.updated_ms,
            SortKey::Priority => u64::from(job.spec.priority),
        };
        Self { value, id: job.id }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// The statement that finds the ids of a page, and what it is given.
#[derive(Debug)]
pub(super) struct Query {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Query {
    pub fn new(filter: &JobFilter, sort: Sort, limit: usize, marker: Option<Marker>) -> Self {
        let mut query = Self { sql: String::new(), values: Vec::new() };
        query.sql = match sort.key {
            // All jobs of a label stand together, in the order of their ids.
            SortKey::Created if !filter.labels.is_empty() => {
                "SELECT job.id FROM label CROSS JOIN job INDEXED BY job_list ON job.id = label.job WHERE 1".into()
            }
            _ => format!("SELECT job.id FROM job INDEXED BY {} WHERE 1", index(filter, sort.key)),
        };
        query.labels(filter, sort.key);
        query.any("job.project", filter.projects.as_deref().map(|all| all.iter().map(String::as_str)));
        let (states, kinds) = (&filter.states, &filter.kinds);
        query.any("job.state", (!states.is_empty()).then(|| states.iter().map(|state| state.word())));
        query.any("job.kind", (!kinds.is_empty()).then(|| kinds.iter().map(|kind| kind.word())));
        query.any("job.consistency_group", filter.group.as_deref().map(|group| [group].into_iter()));
        query.order(filter, sort, marker);
        query.sql.push_str(" LIMIT ?");
        query.values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        query
    }

    fn labels(&mut self, filter: &JobFilter, key: SortKey) {
        for (at, (name, value)) in filter.labels.iter().enumerate() {
            self.sql.push_str(if at == 0 && key == SortKey::Created {
                " AND label.key = ? AND label.value = ?"
            } else {
                " AND EXISTS (SELECT 1 FROM label AS l WHERE l.key = ? AND l.value = ? AND l.job = job.id)"
            });
            self.values.extend([Value::Text(name.clone()), Value::Text(value.clone())]);
        }
    }

    /// The column is one of these. None of them at all finds nothing.
    fn any<'a>(&mut self, column: &str, words: Option<impl Iterator<Item = &'a str>>) {
        let Some(words) = words else { return };
        let before = self.values.len();
        self.values.extend(words.map(|word| Value::Text(word.to_owned())));
        let marks = match self.values.len() - before {
            1 => " = ?".to_owned(),
            n => format!(" IN ({})", vec!["?"; n].join(", ")),
        };
        self.sql.push_str(" AND ");
        self.sql.push_str(column);
        self.sql.push_str(&marks);
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a text never fails.
        let _ = self.sql.write_fmt(text);
    }

    fn order(&mut self, filter: &JobFilter, sort: Sort, marker: Option<Marker>) {
        let (beyond, direction) = if sort.descending { ("<", " DESC") } else { (">", "") };
        let id = if sort.key == SortKey::Created && !filter.labels.is_empty() { "label.job" } else { "job.id" };
        let column = match sort.key {
            SortKey::Created => None,
            SortKey::Updated => Some("job.updated_ms"),
            SortKey::Priority => Some("job.priority"),
        };
        if let Some(marker) = marker {
            match column {
                None => self.say(format_args!(" AND {id} {beyond} ?")),
                Some(column) => {
                    self.say(format_args!(" AND ({column}, {id}) {beyond} (?, ?)"));
                    self.values.push(Value::Integer(marker.value.cast_signed()));
                }
            }
            self.values.push(Value::Text(marker.id.to_string()));
        }
        let first = column.map(|column| format!("{column}{direction}, ")).unwrap_or_default();
        self.say(format_args!(" ORDER BY {first}{id}{direction}"));
    }
}

fn index(filter: &JobFilter, key: SortKey) -> &'static str {
    match key {
        SortKey::Updated => "job_updated",
        SortKey::Priority => "job_priority",
        SortKey::Created if filter.states.len() == 1 => "job_state",
        SortKey::Created if filter.projects.as_ref().is_some_and(|all| all.len() == 1) => "job_project",
        SortKey::Created => "job_list",
    }
}
