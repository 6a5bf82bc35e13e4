//! What copyd tells those who watch it: every metric stands in one table, with its unit and its help.
//!
//! Whoever has something to count takes the field of [`Metrics`] and counts; nobody registers
//! anything elsewhere, so the table is the whole of what `/metrics` says. Names follow the
//! conventions of Prometheus: base units (seconds, bytes), `_total` for what only grows.
//! Labels have few values by nature: never a job's id, a path or a caller's word.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends in seconds: from an answer out of memory to one that hits the limit of a request.
const ANSWER_S: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Upper ends in seconds: a commit is one sync of a disk, from flash to a disk that struggles.
const COMMIT_S: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// A request that was answered. `route` is the pattern, never the path; `status` the number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    pub route: String,
}

/// Why a connection was closed before its time: `idle`, `header`, `handshake`, `slow_reader`, `evicted`, `full`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    pub kind: &'static str,
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RunLabels {
    pub kind: &'static str,
    /// The worker's exit code.
    pub exit_code: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VersionLabels {
    pub version: &'static str,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Without the unit and `_total`, which the text form appends.
    pub name: &'static str,
    /// Empty for what is counted in pieces.
    pub unit: &'static str,
    pub help: &'static str,
}

macro_rules! table {
    ($($field:ident: $type:ty = $make:expr, $name:literal, $unit:literal, $help:literal;)*) => {
        /// Every metric, by the name of its field.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        /// The whole of what `/metrics` says.
        pub const TABLE: &[Row] = &[$(Row { name: $name, unit: $unit, help: $help }),*];

        impl Metrics {
            /// All of them, at nought.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("copyd");
                $(
                    let $field: $type = $make;
                    match unit($unit) {
                        Some(unit) => registry.register_with_unit($name, $help, unit, $field.clone()),
                        None => registry.register($name, $help, $field.clone()),
                    }
                )*
                Self { registry, $($field),* }
            }
        }
    };
}

table! {
    build: Family<VersionLabels, Gauge> = Family::default(), "build_info", "", "Which copyd this is; always 1";
    start_time: Gauge<f64, AtomicU64> = Gauge::default(), "start_time", "seconds", "When the daemon started, since 1970";
    jobs: Family<JobLabels, Gauge> = Family::default(), "jobs", "", "Jobs on record by kind and state";
    runs: Family<RunLabels, Counter> = Family::default(), "runs", "", "Runs of workers that ended, by exit code";
    workers: Gauge = Gauge::default(), "workers", "", "Workers that run now";
    worker_deaths: Counter = Counter::default(), "worker_deaths", "", "Workers that ended without a last word";
    stalls: Counter = Counter::default(), "stalls", "", "Times that a run had no answer from a file system";
    bytes_copied: Counter = Counter::default(), "copied", "bytes", "Bytes moved by all runs that ended";
    bytes_verified: Counter = Counter::default(), "verified", "bytes", "Bytes read back or compared by all runs that ended";
    entries_failed: Counter = Counter::default(), "entries_failed", "", "Entries that failed in runs that ended";
    events: Counter = Counter::default(), "events", "", "Events of jobs that were stored";
    commit: Histogram = Histogram::new(COMMIT_S), "store_commit", "seconds", "Time to make one change of a job durable";
    requests: Family<RequestLabels, Counter> = Family::default(), "api_requests", "", "Requests that were answered";
    answer: Family<RouteLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(answers),
        "api_answer", "seconds", "Time from a request's head to the answer's head";
    connections: Gauge = Gauge::default(), "api_connections", "", "Connections that are open";
    connections_closed: Family<ReasonLabels, Counter> = Family::default(), "api_connections_closed", "",
        "Connections closed by a limit, by which";
    streams: Gauge = Gauge::default(), "api_event_streams", "", "Streams of events that are open";
}

fn answers() -> Histogram {
    Histogram::new(ANSWER_S)
}

fn unit(word: &str) -> Option<Unit> {
    match word {
        "seconds" => Some(Unit::Seconds),
        "bytes" => Some(Unit::Bytes),
        _ => None,
    }
}

impl Metrics {
    /// Those of a daemon that starts now.
    #[must_use]
    pub fn starting() -> Self {
        let metrics = Self::new();
        let version = env!("CARGO_PKG_VERSION");
        metrics.build.get_or_create(&VersionLabels { version }).set(1);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.start_time.set(since.as_secs_f64());
        metrics
    }

    /// How many jobs there are of each kind in each state; of all others there are none.
    pub fn set_jobs(&self, counts: impl Iterator<Item = (JobLabels, u64)>) {
        self.jobs.clear();
        for (labels, count) in counts {
            self.jobs.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The text form, complete.
    ///
    /// # Errors
    /// Only if a label can't be written, which is a defect.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("rows", &TABLE.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_the_text_with_its_unit_and_help() {
        let metrics = Metrics::new();
        metrics.requests.get_or_create(&RequestLabels { method: "GET", route: "/v1/jobs".into(), status: 200 }).inc();
        // What has labels is shown once there is something to show.
        metrics.build.get_or_create(&VersionLabels { version: "1" }).set(1);
        metrics.jobs.get_or_create(&JobLabels { kind: "verify", state: "ready" }).set(1);
        metrics.runs.get_or_create(&RunLabels { kind: "verify", exit_code: 0 }).inc();
        metrics.connections_closed.get_or_create(&ReasonLabels { reason: "idle" }).inc();
        metrics.answer.get_or_create(&RouteLabels { route: "/v1/jobs".into() }).observe(0.002);
        let text = metrics.text().expect("labels can be written");
        for row in TABLE {
            let name = if row.unit.is_empty() { row.name.into() } else { format!("{}_{}", row.name, row.unit) };
            assert!(text.contains(&format!("# HELP copyd_{name} {}", row.help)), "{name} is missing in:\n{text}");
            assert!(row.unit.is_empty() || text.contains(&format!("# UNIT copyd_{name} {}", row.unit)), "{name}");
        }
        let line = r#"copyd_api_requests_total{method="GET",route="/v1/jobs",status="200"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn names_are_unique_and_speak_the_words_of_prometheus() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.name);
            assert!(!row.name.ends_with("_total") && ["", "seconds", "bytes"].contains(&row.unit), "{row:?}");
            assert!(TABLE[..at].iter().all(|other| other.name != row.name), "{} stands twice", row.name);
            assert!(!row.help.is_empty() && !row.help.ends_with('.'), "{row:?}");
        }
    }
}
