//! Lists in pages: `limit`, `marker`, and what a list can be filtered and sorted by.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, Object, Type};
use utoipa::{IntoParams, ToSchema};

use super::backend::{Caller, Projects, Role};
use super::input::{Query, Who};
use super::problem::Problem;
use crate::job::{Kind, State, word};
use crate::store::control::{JobFilter, Marker, Sort, SortKey};

/// Entries of a page that asks for no number.
pub const LIMIT_DEFAULT: usize = 100;
/// Entries of a page: some MiB of JSON at most.
pub const LIMIT_MAX: usize = 1000;

/// Whose a thing is.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes parameters, which are read by hand")]
pub struct OfProject {
    /// The project.
    #[param(default = "default", pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", required = false)]
    project: String,
}

/// A page of what is numbered.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes parameters, which are read by hand")]
pub struct NumberedPage {
    /// Entries of the page, at most.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: u32,
    /// The number after which the page begins: `next` of the page before.
    #[param(minimum = 0, maximum = 999_999_999_999_999_999_u64, default = 0, required = false)]
    marker: u64,
}

/// A page of jobs.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes parameters, which are read by hand")]
pub struct JobPage {
    /// Jobs of the page, at most.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: u32,
    /// `next` of the page before.
    #[param(
        required = false,
        pattern = r"^([0-9]{1,18}\.)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    marker: String,
    /// What the list is sorted by; `-` before it turns it round. Jobs that are equal in it are sorted by
    /// the time they were made.
    #[param(inline, default = "created", required = false)]
    sort: SortBy,
    /// Only jobs of this project.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", required = false)]
    project: String,
    /// Only jobs in one of these states.
    #[param(style = Form, explode = false, min_items = 1, required = false)]
    state: Vec<State>,
    /// Only jobs of one of these kinds.
    #[param(style = Form, explode = false, min_items = 1, required = false)]
    kind: Vec<Kind>,
    /// Only members of this group.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", required = false)]
    group: String,
    /// Only jobs with this label, as `name=value`. May be there several times: all must fit.
    #[param(style = Form, explode = true, min_items = 1, max_items = 8, required = false,
        schema_with = label_schema)]
    label: Vec<String>,
}

/// Labels as `name=value`.
fn label_schema() -> Array {
    let label = Object::builder()
        .schema_type(Type::String)
        .pattern(Some(r"^[^=\x00]{1,63}=[^\x00]{0,255}$"))
        .examples([serde_json::json!("team=storage")]);
    Array::builder().items(label).min_items(Some(1)).max_items(Some(8)).build()
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    Created,
    #[serde(rename = "-created")]
    CreatedLast,
    Updated,
    #[serde(rename = "-updated")]
    UpdatedLast,
    Priority,
    #[serde(rename = "-priority")]
    PriorityLast,
}

impl SortBy {
    const fn order(self) -> Sort {
        let (key, descending) = match self {
            Self::Created => (SortKey::Created, false),
            Self::CreatedLast => (SortKey::Created, true),
            Self::Updated => (SortKey::Updated, false),
            Self::UpdatedLast => (SortKey::Updated, true),
            Self::Priority => (SortKey::Priority, false),
            Self::PriorityLast => (SortKey::Priority, true),
        };
        Sort { key, descending }
    }
}

/// Which jobs, in which order, from where.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub filter: JobFilter,
    pub sort: Sort,
    pub limit: usize,
    pub marker: Option<Marker>,
}

impl Wanted {
    /// Reads the query, within what the caller may see.
    ///
    /// # Errors
    /// A value is wrong, or the project is not the caller's.
    pub fn read(query: &mut Query, who: &Who) -> Result<Self, Problem> {
        let limit = limit(query)?;
        let marker = query.one("marker")?.map(|text| marker(&text)).transpose()?;
        let sort = query.one("sort")?.map(|text| value::<SortBy>("sort", &text)).transpose()?;
        let project = query.one("project")?;
        if let Some(project) = &project {
            word("project", project).map_err(super::input::invalid)?;
            who.may(Role::Read, project)?;
        }
        let group = query.one("group")?;
        if let Some(group) = &group {
            word("group", group).map_err(super::input::invalid)?;
        }
        let filter = JobFilter {
            projects: visible(&who.0, project),
            states: values("state", query.one("state")?)?,
            kinds: values("kind", query.one("kind")?)?,
            group,
            labels: labels(&query.all("label"))?,
        };
        Ok(Self { filter, sort: sort.map(SortBy::order).unwrap_or_default(), limit, marker })
    }
}

/// The projects that a list shows; `None` for all.
pub fn visible(caller: &Caller, asked: Option<String>) -> Option<Vec<String>> {
    match (asked, &caller.projects) {
        (Some(project), _) => Some(vec![project]),
        (None, Projects::All) => None,
        (None, Projects::Named(names)) => Some(names.clone()),
    }
}

/// `limit`.
pub fn limit(query: &mut Query) -> Result<usize, Problem> {
    let Some(text) = query.one("limit")? else { return Ok(LIMIT_DEFAULT) };
    number(&text)
        .filter(|limit| (1..=LIMIT_MAX as u64).contains(limit))
        .and_then(|limit| usize::try_from(limit).ok())
        .ok_or_else(|| Problem::invalid("limit", format!("it is a number from 1 to {LIMIT_MAX}")))
}

/// `marker`, where it is a number.
pub fn after(query: &mut Query) -> Result<u64, Problem> {
    let Some(text) = query.one("marker")? else { return Ok(0) };
    number(&text).ok_or_else(|| Problem::invalid("marker", "it is a number of at most 18 digits"))
}

/// Digits alone: no sign, no blank.
pub fn number(text: &str) -> Option<u64> {
    let plain = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn marker(text: &str) -> Result<Marker, Problem> {
    let wrong = || Problem::invalid("marker", "it is not what the page before names in `next`");
    let (value, id) = text.split_once('.').map_or((None, text), |(value, id)| (Some(value), id));
    if super::input::uuid(id).is_none() || value.is_some_and(|value| number(value).is_none()) {
        return Err(wrong());
    }
    Marker::from_str(text).map_err(|_| wrong())
}

fn value<T: DeserializeOwned>(field: &str, text: &str) -> Result<T, Problem> {
    let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        serde::de::IntoDeserializer::into_deserializer(text);
    T::deserialize(word).map_err(|error| Problem::invalid(field, error.to_string()))
}

/// Words with commas between.
fn values<T: DeserializeOwned>(field: &str, text: Option<String>) -> Result<Vec<T>, Problem> {
    let text = text.as_deref();
    text.into_iter().flat_map(|text| text.split(',')).map(|word| value(field, word)).collect()
}

fn labels(texts: &[String]) -> Result<Vec<(String, String)>, Problem> {
    let wrong = |what: &str| Problem::invalid("label", what);
    if texts.len() > 8 {
        return Err(wrong("at most 8 can be asked for"));
    }
    let label = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => Ok((name.into(), value.into())),
        _ => Err(wrong("it is of the form name=value")),
    };
    texts.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let id = "0199b3a0-0000-7000-8000-000000000001";
        for text in [id.to_owned(), format!("50.{id}")] {
            assert_eq!(marker(&text).map(|m| m.to_string()).ok(), Some(text));
        }
        for wrong in ["", "50", "50.", &format!(".{id}"), &format!("+5.{id}"), &id.replace('-', "")] {
            assert!(marker(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_with_commas_are_a_list() {
        assert_eq!(values("state", Some("ready,in_sync".into())).ok(), Some(vec![State::Ready, State::InSync]));
        assert_eq!(values::<State>("state", None).ok(), Some(Vec::new()));
        for wrong in ["", "ready,", "Ready", "redy", "ready queued"] {
            assert!(values::<State>("state", Some(wrong.into())).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_order_has_its_word() {
        for (text, key, descending) in [
            ("created", SortKey::Created, false),
            ("-created", SortKey::Created, true),
            ("-priority", SortKey::Priority, true),
        ] {
            assert_eq!(value::<SortBy>("sort", text).map(SortBy::order).ok(), Some(Sort { key, descending }));
        }
        assert!(value::<SortBy>("sort", "created_last").is_err());
    }

    #[test]
    fn a_list_shows_no_project_but_the_caller_s() {
        let caller = |projects| Caller { name: String::new(), role: Role::Read, projects };
        assert_eq!(visible(&caller(Projects::All), None), None);
        assert_eq!(visible(&caller(Projects::Named(vec!["a".into()])), None), Some(vec!["a".into()]));
        assert_eq!(visible(&caller(Projects::Named(Vec::new())), None), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn only_digits_are_a_number(text in "[0-9+ -]{0,20}") {
            let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
            prop_assert_eq!(number(&text).is_some(), digits);
        }
    }
}
