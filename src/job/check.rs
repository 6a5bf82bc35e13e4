//! What makes a specification one that can be carried out: bounds of each field, and what excludes what.
//!
//! The same functions that the engine reads its options with are asked, so that nothing which is accepted here
//! is refused by a worker for its form.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use super::schedule::Schedule;
use super::spec::{Cutover, Invalid, JobSpec, Kind, Provision, SCHEMA, VerifyLevel};
use super::window::Window;
use crate::fidelity::IdMap;
use crate::limits;
use crate::tree::filter::{Ending, FilesFrom, Filter};
use crate::units::parse_duration;

/// Reads a form, and names the field that is to blame.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Invalid> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        blamed(&path, &error.into_inner())
    })?;
    deserializer.end().map_err(|error| blamed(".", &error))?;
    Ok(found)
}

fn blamed(path: &str, error: &serde_json::Error) -> Invalid {
    let what = error.to_string();
    // The path leads to where the name of an unknown or missing field stands, not to the field.
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| what.strip_prefix(start)?.split_once('`').map(|(field, _)| field));
    // Where the text ends before the next field is named, its place is a question mark.
    let path = path.strip_suffix('?').unwrap_or(path).trim_end_matches('.');
    let field = match named {
        Some(name) if path.is_empty() || path == name => name.to_owned(),
        Some(name) if path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    };
    let remedy = match named {
        Some(_) => "the OpenAPI file (/openapi.json) names every field that this version knows",
        None => "the OpenAPI file (/openapi.json) says what each field may hold",
    };
    Invalid::new(field, what, remedy)
}

fn wrong(field: &str, what: impl Into<String>) -> Invalid {
    Invalid::new(field, what, "correct the field, and send it again")
}

/// As [`JobSpec::check`].
pub(super) fn specification(s: &JobSpec) -> Result<(), Invalid> {
    if s.schema != SCHEMA {
        return Err(wrong("schema", format!("{} is not known here, only {SCHEMA}", s.schema)));
    }
    sides(s)?;
    foreign(s)?;
    if s.deletes() && s.keep_extra {
        return Err(wrong("keep_extra", "excludes delete, which restore implies"));
    }
    values(s)?;
    scope(s)?;
    names(s)
}

fn sides(s: &JobSpec) -> Result<(), Invalid> {
    let source = s.source.path("source")?;
    let destination = s.destination.path("destination")?;
    if source == destination {
        return Err(wrong("destination.export", "is the source"));
    }
    for (side, field) in [(&s.source, "source"), (&s.destination, "destination")] {
        if let Some(name) = &side.network_namespace {
            // A file below /run/netns, see ip-netns(8).
            word(&format!("{field}.network_namespace"), name)?;
        }
        if let Some(zone) = &side.availability_zone {
            text(&format!("{field}.availability_zone"), zone, limits::NAME_BYTES_MAX)?;
        }
    }
    Ok(())
}

/// What the kind has no use for, and whether it was said.
fn foreign(s: &JobSpec) -> Result<(), Invalid> {
    let only = |kinds: &[Kind], said: bool, field: &str| {
        if !said || kinds.contains(&s.kind) {
            return Ok(());
        }
        Err(wrong(field, format!("a job of kind {} has no use for it", s.kind.word())))
    };
    let copies = [Kind::Migrate, Kind::Replicate, Kind::Restore];
    let copy = |said, field| only(&copies, said, field);
    copy(s.verify != VerifyLevel::default(), "verify")?;
    copy(s.delete, "delete")?;
    copy(s.keep_extra, "keep_extra")?;
    copy(s.allow_empty_source, "allow_empty_source")?;
    copy(s.max_delete.is_some(), "max_delete")?;
    copy(s.trash.is_some(), "trash")?;
    copy(s.provisioning != Provision::default(), "provisioning")?;
    copy(s.strict, "strict")?;
    copy(s.limits.file_bytes.is_some(), "limits.file_bytes")?;
    copy(s.limits.file_allocated_bytes.is_some(), "limits.file_allocated_bytes")?;
    only(&[Kind::Migrate, Kind::Replicate], s.schedule.is_some(), "schedule")?;
    only(&[Kind::Replicate], s.rpo_s.is_some(), "rpo_s")?;
    only(&[Kind::Migrate], s.cutover != Cutover::default(), "cutover")?;
    only(&[Kind::Migrate], s.cutover_deadline_s.is_some(), "cutover_deadline_s")?;
    only(&[Kind::Migrate], s.group.is_some(), "group")?;
    only(&[Kind::Migrate], s.max_passes.is_some(), "max_passes")?;
    if s.group.is_some() && s.cutover == Cutover::Auto {
        return Err(wrong("cutover", "members of a group cut over together, when the group is told to"));
    }
    Ok(())
}

fn values(s: &JobSpec) -> Result<(), Invalid> {
    if s.priority > limits::PRIORITY_MAX {
        return Err(wrong("priority", format!("is a number from 0 to {}", limits::PRIORITY_MAX)));
    }
    if let Some(trash) = &s.trash {
        parse_duration(trash).map_err(|e| wrong("trash", e.to_string()))?;
    }
    if let Some(schedule) = &s.schedule {
        schedule.parse::<Schedule>().map_err(|e| wrong("schedule", e.to_string()))?;
    }
    if let Some(window) = &s.limits.window {
        window.parse::<Window>().map_err(|e| wrong("limits.window", e.to_string()))?;
    }
    let least = limits::RATE_BYTES_PER_SECOND_MIN;
    if s.limits.bytes_per_s.is_some_and(|rate| !(least..=limits::SIZE_BYTES_MAX).contains(&rate)) {
        return Err(wrong("limits.bytes_per_s", format!("is at least {least}; leave it out for no limit")));
    }
    for (seconds, field) in
        [(s.rpo_s, "rpo_s"), (s.cutover_deadline_s, "cutover_deadline_s"), (s.timeout_s, "timeout_s")]
    {
        if seconds.is_some_and(|seconds| !(1..=limits::SECONDS_MAX).contains(&seconds)) {
            return Err(wrong(field, format!("is a number of seconds from 1 to {}", limits::SECONDS_MAX)));
        }
    }
    if s.max_passes == Some(0) {
        return Err(wrong("max_passes", "is at least 1"));
    }
    if s.limits.directory_entries == Some(0) {
        return Err(wrong("limits.directory_entries", "is at least 1"));
    }
    let sizes =
        [(s.limits.file_bytes, "limits.file_bytes"), (s.limits.file_allocated_bytes, "limits.file_allocated_bytes")];
    for (size, field) in sizes {
        if size.is_some_and(|size| size > limits::SIZE_BYTES_MAX) {
            return Err(wrong(field, format!("is at most {}", limits::SIZE_BYTES_MAX)));
        }
    }
    Ok(())
}

fn scope(s: &JobSpec) -> Result<(), Invalid> {
    let mut builder = Filter::builder();
    for (at, rule) in s.filters.rules.iter().enumerate() {
        let wrong = |e: &dyn std::fmt::Display| wrong(&format!("filters.rules[{at}]"), e.to_string());
        builder = builder.exclude(rule.as_bytes()).map_err(|e| wrong(&e))?;
    }
    drop(builder.build());
    if let Some(lines) = &s.filters.files_from {
        let list: Vec<u8> = lines.iter().flat_map(|line| line.bytes().chain([0])).collect();
        if let Some(at) = lines.iter().position(|line| line.contains('\0')) {
            return Err(wrong(&format!("filters.files_from[{at}]"), "holds a NUL byte"));
        }
        FilesFrom::parse(list.as_slice(), Ending::Nul).map_err(|e| wrong("filters.files_from", e.to_string()))?;
    }
    let ids = &s.id_map;
    IdMap::parse(ids.users.as_deref(), ids.groups.as_deref(), None).map_err(|e| wrong("id_map", e.to_string()))?;
    Ok(())
}

fn names(s: &JobSpec) -> Result<(), Invalid> {
    word("project", &s.project)?;
    if let Some(group) = &s.group {
        word("group", group)?;
    }
    map("labels", &s.labels)?;
    map("private_data", &s.private_data)
}

fn map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if map.len() > limits::LABELS_MAX {
        return Err(wrong(field, format!("has at most {} entries", limits::LABELS_MAX)));
    }
    for (key, value) in map {
        let field = format!("{field}.{key}");
        if key.is_empty() {
            return Err(wrong(&field, "has an empty name"));
        }
        text(&field, key, limits::NAME_BYTES_MAX)?;
        text(&field, value, limits::LABEL_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn text(field: &str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() > bytes_max {
        return Err(wrong(field, format!("has {} bytes, {bytes_max} are the most", text.len())));
    }
    if text.contains('\0') {
        return Err(wrong(field, "holds a NUL byte"));
    }
    Ok(())
}

/// A name that is safe in a path, a URL and a metric's label.
///
/// # Errors
/// It has other characters, or too many.
pub fn word(field: &str, name: &str) -> Result<(), Invalid> {
    let fits = (1..=limits::WORD_BYTES_MAX).contains(&name.len());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits && plain && !name.starts_with('.') {
        return Ok(());
    }
    let most = limits::WORD_BYTES_MAX;
    Err(wrong(field, format!("has 1 to {most} letters, digits, '-', '_' and '.', and begins with no '.'")))
}

/// As [`super::Side::path`].
pub(super) fn export(export: &str, side: &str) -> Result<PathBuf, Invalid> {
    let field = format!("{side}.export");
    let refuse = |what: &str| {
        let remedy = "name a directory of this machine as /absolute/path or file:///absolute/path";
        Err(Invalid::new(field.clone(), what, remedy))
    };
    let path = match export.strip_prefix("file://") {
        Some(path) if path.contains(['%', '?', '#']) => {
            return refuse("has characters with a meaning of their own in a URL: give the plain path");
        }
        Some(path) => path,
        None => export,
    };
    if !path.starts_with('/') {
        let share = export.contains("://") || export.starts_with("\\\\") || export.contains(":/");
        return refuse(if share { "is a share: not in this version" } else { "is no absolute path" });
    }
    if path.len() > limits::OPEN_PATH_BYTES_MAX || path.contains('\0') {
        return refuse("is no path that can be opened");
    }
    let path = Path::new(path);
    if path.components().any(|part| part == Component::ParentDir) {
        return refuse("leads upwards (..)");
    }
    // Without doubled and trailing slashes and `.`, which mean nothing.
    Ok(path.components().collect())
}
