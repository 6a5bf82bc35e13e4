//! What a worker is asked to do, as JSON: all that the engine's options hold, and nothing else.
//!
//! The command line, a daemon and a control plane that wants none hand over the very same form
//! (`docs/cli.md`). Unknown fields, and fields that the kind has no use for, are refused: a guard that was
//! misspelt must not vanish. Names are bytes: what is no UTF-8 goes into the field with `_b64` after its name.
//!
//! `kind` is what one worker does: `migrate` (passes until nothing changes), `sync` (one pass) or `verify`. A
//! job that replicates is a row of `sync` runs; who starts them is not the worker's business.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names;
use crate::error::Error;
use crate::fidelity::{IdMap, LossClass};
use crate::pass::{
    BackendChoice, Bounds, Extras, InspectOptions, JobKind, ManifestOptions, Options, Provision, VerifyLevel,
    VerifyOptions,
};
use crate::throttle::Throttle;
use crate::tree::filter::{Ending, FilesFrom, Filter};
use crate::units::parse_duration;

/// Version of the form; a new field does not raise it, a changed one does.
pub const SCHEMA: u32 = 1;

/// Passes of a `migrate` that says nothing of them.
const PASSES: u32 = 10;

/// What one worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Migrate,
    Sync,
    /// Two trees, or with `manifest` and no `source` one tree against that.
    Verify,
    /// Tell what the state of `job` knows of the entry at `path`, or of all; touches no tree.
    Inspect,
}

impl Kind {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Sync => "sync",
            Self::Verify => "verify",
            Self::Inspect => "inspect",
        }
    }
}

/// One run's specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    pub schema: u32,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<End>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub destination: End,
    /// Of an `inspect`: the id of a job that ran with this state directory, as `started` gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Of an `inspect`: an entry from the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Of a `migrate` or `sync`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: VerifyLevel,
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// Send an event for each change, and of a `verify` for what is equal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub items: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub delete: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_extra: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_empty_source: bool,
    /// A file at the source's root, see `--source-marker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_marker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_marker_b64: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub new_destination: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete: Option<u64>,
    /// A duration as `--trash` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_passes: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_failed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub filters: Filters,
    #[serde(default, skip_serializing_if = "is_default")]
    pub one_file_system: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub id_map: Ids,
    #[serde(default, skip_serializing_if = "is_default")]
    pub backend: BackendChoice,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provisioning: Provision,
    /// Data threads; without it a probe decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "is_default")]
    pub accept_loss: Vec<LossClass>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict: bool,
    /// Directories of which one has to hold each root, reached from there without a symlink. None: the
    /// worker's own rights are the bound.
    #[serde(default, skip_serializing_if = "is_default")]
    pub within: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_b64: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub manifest_holes: bool,
}

/// One side. A path is relative to the worker's working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_b64: Option<String>,
}

/// What is in scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// In order, each with its sign: `- *.o`, `+ /keep/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Line>,
    /// As the lines of `--files-from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_from: Option<Vec<Line>>,
}

/// A text in a list, or `{"b64": …}` where it is no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Text(String),
    Coded(Coded),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coded {
    b64: String,
}

/// Owners in numbers, as `--usermap` and `--groupmap` take them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Content bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// A larger file fails, see `--max-size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// A file with more bytes allocated at the source fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_allocated_bytes: Option<u64>,
    /// A directory that lists more fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_entries: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The name of a marker: that of a file at a root.
#[must_use]
pub fn marker_name(bytes: &[u8]) -> Option<CString> {
    let single = !matches!(bytes, b"" | b"." | b"..") && !bytes.contains(&b'/');
    CString::new(bytes).ok().filter(|_| single)
}

/// What a specification comes to.
#[derive(Debug)]
pub enum Work {
    Copy(Options),
    Compare(VerifyOptions),
    AgainstManifest(ManifestOptions),
    Inspect(InspectOptions),
}

impl From<&Path> for End {
    fn from(path: &Path) -> Self {
        let (export, export_b64) = names::text_or_base64(path.as_os_str().as_bytes());
        Self { export, export_b64 }
    }
}

impl From<&[u8]> for Line {
    fn from(bytes: &[u8]) -> Self {
        match names::text_or_base64(bytes) {
            (_, Some(b64)) => Self::Coded(Coded { b64 }),
            (text, None) => Self::Text(text.unwrap_or_default()),
        }
    }
}

impl Line {
    fn bytes(&self, field: &str) -> Result<Vec<u8>, Error> {
        let found = match self {
            Self::Text(text) => names::bytes(Some(text), None),
            Self::Coded(Coded { b64 }) => names::bytes(None, Some(b64)),
        };
        Ok(found.map_err(|e| wrong(field, &e))?.unwrap_or_default())
    }
}

impl From<&Filter> for Filters {
    /// The rules alone: the list is too large to be kept twice, and is added from its lines.
    fn from(filter: &Filter) -> Self {
        Self { rules: filter.rules().map(|rule| Line::from(rule.as_slice())).collect(), files_from: None }
    }
}

impl From<&IdMap> for Ids {
    fn from(map: &IdMap) -> Self {
        Self { users: map.users_text(), groups: map.groups_text() }
    }
}

impl Specification {
    /// The least: a kind and where it leads to.
    #[must_use]
    pub fn new(kind: Kind, source: Option<&Path>, destination: &Path) -> Self {
        Self {
            schema: SCHEMA,
            kind,
            source: source.map(End::from),
            destination: destination.into(),
            job: None,
            path: None,
            path_b64: None,
            verify: VerifyLevel::default(),
            dry_run: false,
            items: false,
            delete: false,
            keep_extra: false,
            allow_empty_source: false,
            source_marker: None,
            source_marker_b64: None,
            new_destination: false,
            max_delete: None,
            trash: None,
            max_passes: None,
            retry_failed: false,
            filters: Filters::default(),
            one_file_system: false,
            id_map: Ids::default(),
            backend: BackendChoice::default(),
            provisioning: Provision::default(),
            jobs: None,
            limits: Limits::default(),
            accept_loss: Vec::new(),
            strict: false,
            within: Vec::new(),
            state_dir: None,
            state_dir_b64: None,
            manifest: None,
            manifest_b64: None,
            manifest_holes: false,
        }
    }

    /// Where jobs are kept.
    #[must_use]
    pub fn with_state_dir(mut self, path: Option<&Path>) -> Self {
        (self.state_dir, self.state_dir_b64) =
            path.map_or((None, None), |path| names::text_or_base64(path.as_os_str().as_bytes()));
        self
    }

    /// The file that tells the source from every other share.
    #[must_use]
    pub fn with_source_marker(mut self, name: Option<&OsStr>) -> Self {
        (self.source_marker, self.source_marker_b64) =
            name.map_or((None, None), |name| names::text_or_base64(name.as_bytes()));
        self
    }

    /// The manifest that is written, or compared with.
    #[must_use]
    pub fn with_manifest(mut self, path: Option<&Path>) -> Self {
        (self.manifest, self.manifest_b64) =
            path.map_or((None, None), |path| names::text_or_base64(path.as_os_str().as_bytes()));
        self
    }

    /// Reads a specification.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no JSON, has unknown fields or values, or is of another version.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let found: Self = serde_json::from_str(text).map_err(|e| wrong("", &e.to_string()))?;
        if found.schema != SCHEMA {
            return Err(wrong("schema", &format!("{} is not known here, only {SCHEMA}", found.schema)));
        }
        Ok(found)
    }

    /// As one line.
    #[must_use]
    pub fn line(&self) -> String {
        // Every key is a string, so this can't fail; an empty line would be refused by the worker.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Where its jobs are kept, as the specification has it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name in two forms.
    pub fn state_path(&self) -> Result<Option<PathBuf>, Error> {
        path_of("state_dir", self.state_dir.as_deref(), self.state_dir_b64.as_deref())
    }

    /// The manifest, as the specification has it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name in two forms.
    pub fn manifest_path(&self) -> Result<Option<PathBuf>, Error> {
        path_of("manifest", self.manifest.as_deref(), self.manifest_b64.as_deref())
    }

    /// The level that the summary names: a verify compares content.
    #[must_use]
    pub const fn level(&self) -> &'static str {
        match self.kind {
            Kind::Verify => "full",
            Kind::Inspect => "none",
            _ => self.verify.word(),
        }
    }

    /// What is to be done. The rate of `throttle` becomes the one asked for, and stays in the caller's hand.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the field.
    pub fn work(&self, throttle: &Throttle) -> Result<Work, Error> {
        throttle.set(self.limits.bytes_per_s);
        if self.kind == Kind::Inspect {
            return self.inspect().map(Work::Inspect);
        }
        self.refuse_foreign(self.kind.word(), &self.of_an_inspect())?;
        let destination = self.destination.path("destination")?;
        let source = self.source.as_ref().map(|end| end.path("source")).transpose()?;
        let manifest = self.manifest_path()?;
        match (self.kind, source, manifest) {
            (Kind::Migrate, Some(source), manifest) => {
                self.copy(JobKind::Migrate, source, destination, manifest, throttle).map(Work::Copy)
            }
            (Kind::Sync, Some(source), manifest) => {
                self.copy(JobKind::Sync, source, destination, manifest, throttle).map(Work::Copy)
            }
            (Kind::Verify, Some(source), manifest) => {
                self.compare(source, destination, manifest, throttle).map(Work::Compare)
            }
            (Kind::Verify, None, Some(manifest)) => {
                self.against(manifest, destination, throttle).map(Work::AgainstManifest)
            }
            (_, None, _) => Err(wrong("source", "is missing")),
            (Kind::Inspect, ..) => Err(wrong("kind", "inspect reads no tree")),
        }
    }

    /// What only an `inspect` has a use for, and whether it was said.
    fn of_an_inspect(&self) -> [(bool, &'static str); 2] {
        [(self.job.is_some(), "job"), (self.path.is_some() || self.path_b64.is_some(), "path")]
    }

    /// The three fields that an `inspect` has, and no other.
    fn inspect(&self) -> Result<InspectOptions, Error> {
        let bare = Self {
            job: self.job.clone(),
            path: self.path.clone(),
            path_b64: self.path_b64.clone(),
            state_dir: self.state_dir.clone(),
            state_dir_b64: self.state_dir_b64.clone(),
            destination: End::default(),
            ..Self::new(Kind::Inspect, None, Path::new(""))
        };
        if *self != bare {
            return Err(wrong("kind", "an inspect has a use for job, path and state_dir only"));
        }
        let job = self.job.as_deref().ok_or_else(|| wrong("job", "is missing"))?;
        let job = uuid::Uuid::parse_str(job).map_err(|e| wrong("job", &e.to_string()))?;
        let path = names::bytes(self.path.as_deref(), self.path_b64.as_deref()).map_err(|e| wrong("path", &e))?;
        Ok(InspectOptions { job, path, state_dir: self.state_path()? })
    }

    fn copy(
        &self,
        kind: JobKind,
        source: PathBuf,
        destination: PathBuf,
        manifest: Option<PathBuf>,
        throttle: &Throttle,
    ) -> Result<Options, Error> {
        let trash =
            self.trash.as_deref().map(parse_duration).transpose().map_err(|e| wrong("trash", &e.to_string()))?;
        Ok(Options {
            kind,
            source,
            destination,
            within: self.allowed()?,
            verify: self.verify,
            dry_run: self.dry_run,
            items: self.items,
            extras: match (self.delete, self.keep_extra) {
                (true, true) => return Err(wrong("delete", "excludes keep_extra")),
                (true, false) => Extras::Delete,
                (false, true) => Extras::Keep,
                (false, false) => Extras::Guard,
            },
            allow_empty_source: self.allow_empty_source,
            source_marker: self.marker()?,
            new_destination: self.new_destination,
            max_delete: self.max_delete,
            trash: trash.filter(|keep| *keep > Duration::ZERO),
            max_passes: if kind == JobKind::Sync { 1 } else { self.max_passes.unwrap_or(PASSES) },
            retry_failed: self.retry_failed,
            filter: self.filter()?,
            one_file_system: self.one_file_system,
            bounds: Bounds {
                size: self.limits.file_bytes,
                allocated: self.limits.file_allocated_bytes,
                directory_entries: self.directory_entries()?,
            },
            id_map: self.ids()?,
            backend: self.backend,
            provision: self.provisioning,
            jobs: self.jobs()?,
            throttle: throttle.clone(),
            accept_loss: self.accept_loss.clone(),
            state_dir: self.state_path()?,
            strict: self.strict,
            manifest,
            manifest_holes: self.manifest_holes,
            confine: true,
        })
    }

    fn compare(
        &self,
        source: PathBuf,
        destination: PathBuf,
        manifest: Option<PathBuf>,
        throttle: &Throttle,
    ) -> Result<VerifyOptions, Error> {
        self.refuse_foreign("a verify", &self.of_a_copy())?;
        Ok(VerifyOptions {
            source,
            destination,
            within: self.allowed()?,
            items: self.items,
            filter: self.filter()?,
            one_file_system: self.one_file_system,
            directory_entries: self.directory_entries()?,
            id_map: self.ids()?,
            backend: self.backend,
            jobs: self.jobs()?,
            throttle: throttle.clone(),
            manifest,
            manifest_holes: self.manifest_holes,
            accept_loss: self.accept_loss.clone(),
            confine: true,
        })
    }

    fn against(&self, manifest: PathBuf, directory: PathBuf, throttle: &Throttle) -> Result<ManifestOptions, Error> {
        self.refuse_foreign("a verify", &self.of_a_copy())?;
        self.refuse_foreign(
            "a verify against a manifest",
            &[
                (!is_default(&self.filters), "filters"),
                (self.limits.directory_entries.is_some(), "limits.directory_entries"),
                (self.one_file_system, "one_file_system"),
                (!self.within.is_empty(), "within"),
                (!is_default(&self.id_map), "id_map"),
                (!self.accept_loss.is_empty(), "accept_loss"),
                (self.manifest_holes, "manifest_holes"),
                (!is_default(&self.backend), "backend"),
            ],
        )?;
        let (jobs, throttle) = (self.jobs()?, throttle.clone());
        Ok(ManifestOptions { manifest, directory, items: self.items, jobs, throttle, confine: true })
    }

    /// What only a copy has a use for, and whether it was said.
    fn of_a_copy(&self) -> [(bool, &'static str); 16] {
        [
            (!is_default(&self.verify), "verify"),
            (self.dry_run, "dry_run"),
            (self.delete, "delete"),
            (self.keep_extra, "keep_extra"),
            (self.allow_empty_source, "allow_empty_source"),
            (self.source_marker.is_some() || self.source_marker_b64.is_some(), "source_marker"),
            (self.new_destination, "new_destination"),
            (self.max_delete.is_some(), "max_delete"),
            (self.trash.is_some(), "trash"),
            (self.max_passes.is_some(), "max_passes"),
            (self.retry_failed, "retry_failed"),
            (!is_default(&self.provisioning), "provisioning"),
            (self.strict, "strict"),
            (self.limits.file_bytes.is_some(), "limits.file_bytes"),
            (self.limits.file_allocated_bytes.is_some(), "limits.file_allocated_bytes"),
            (self.state_dir.is_some() || self.state_dir_b64.is_some(), "state_dir"),
        ]
    }

    fn refuse_foreign(&self, what: &str, fields: &[(bool, &'static str)]) -> Result<(), Error> {
        match fields.iter().find(|(said, _)| *said) {
            Some((_, field)) => Err(wrong(field, &format!("{what} has no use for it"))),
            None => Ok(()),
        }
    }

    pub(super) fn allowed(&self) -> Result<Vec<PathBuf>, Error> {
        let path = |line: &Line| line.bytes("within").map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let paths: Vec<PathBuf> = self.within.iter().map(path).collect::<Result<_, _>>()?;
        match paths.iter().find(|path| !path.is_absolute()) {
            Some(path) => Err(wrong("within", &format!("{} is no absolute path", path.display()))),
            None => Ok(paths),
        }
    }

    fn marker(&self) -> Result<Option<CString>, Error> {
        let bytes = names::bytes(self.source_marker.as_deref(), self.source_marker_b64.as_deref());
        let Some(bytes) = bytes.map_err(|e| wrong("source_marker", &e))? else { return Ok(None) };
        marker_name(&bytes).map(Some).ok_or_else(|| wrong("source_marker", "names no file at the root of the source"))
    }

    fn filter(&self) -> Result<Filter, Error> {
        let mut builder = Filter::builder();
        for rule in &self.filters.rules {
            let text = rule.bytes("filters.rules")?;
            builder = builder.exclude(&text).map_err(|e| wrong("filters.rules", &e.to_string()))?;
        }
        let Some(lines) = &self.filters.files_from else { return Ok(builder.build()) };
        let mut list = Vec::new();
        for line in lines {
            list.extend(line.bytes("filters.files_from")?);
            list.push(0);
        }
        let list = FilesFrom::parse(list.as_slice(), Ending::Nul);
        Ok(builder.build().with_files_from(list.map_err(|e| wrong("filters.files_from", &e.to_string()))?))
    }

    fn ids(&self) -> Result<IdMap, Error> {
        let Ids { users, groups } = &self.id_map;
        IdMap::parse(users.as_deref(), groups.as_deref(), None).map_err(|e| wrong("id_map", &e.to_string()))
    }

    fn directory_entries(&self) -> Result<u64, Error> {
        match self.limits.directory_entries {
            Some(0) => Err(wrong("limits.directory_entries", "is at least 1")),
            most => Ok(most.unwrap_or(crate::limits::DIRECTORY_ENTRIES_MAX)),
        }
    }

    fn jobs(&self) -> Result<Option<usize>, Error> {
        match self.jobs {
            Some(n) if !(1..=crate::limits::JOBS_MAX).contains(&n) => {
                Err(wrong("jobs", &format!("is a number from 1 to {}", crate::limits::JOBS_MAX)))
            }
            jobs => Ok(jobs),
        }
    }
}

impl End {
    /// The path as the specification has it.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is empty or in two forms, naming `field`.
    pub fn path(&self, field: &str) -> Result<PathBuf, Error> {
        let found = path_of(field, self.export.as_deref(), self.export_b64.as_deref())?;
        found.filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| wrong(field, "names no export"))
    }
}

fn path_of(field: &str, text: Option<&str>, coded: Option<&str>) -> Result<Option<PathBuf>, Error> {
    let bytes = names::bytes(text, coded).map_err(|e| wrong(field, &e))?;
    Ok(bytes.map(|bytes| OsString::from_vec(bytes).into()))
}

fn wrong(field: &str, what: &str) -> Error {
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    Error::Usage {
        what: format!("specification: {field}{what}"),
        remedy: "docs/cli.md describes what a worker is asked, each field and its values",
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
