//! `copyd verify SRC DST`, and `copyd verify --manifest FILE DIR`.

use std::path::{Path, PathBuf};

use super::args::{BackendWord, VerifyArgs};
use super::output::View;
use super::run::{Request, conduct};
use super::{common, convert, location};
use crate::error::{Error, ExitCode};
use crate::worker::{Kind, Limits, Specification, escape_path};

/// Carries the verb out.
pub fn run(args: &VerifyArgs) -> ExitCode {
    let view = View {
        kind: "verify",
        verify: "full",
        dry_run: false,
        json: args.output.json,
        stats: args.output.stats,
        detail: common::detail(&args.output),
        log_file: args.output.log_file.clone(),
        timeout: convert::timeout(args.speed.pace.timeout.as_deref()).ok().flatten(),
    };
    let prepared = match args.roots.as_slice() {
        [directory] => against_manifest(args, directory),
        roots => two_trees(args, roots),
    };
    conduct(&view, prepared)
}

fn two_trees(args: &VerifyArgs, roots: &[std::ffi::OsString]) -> Result<Request, Error> {
    let [source, destination] = roots else {
        return Err(Error::Usage { what: "verify needs SRC and DST".into(), remedy: "copyd verify SRC DST" });
    };
    if let Some(manifest) = &args.manifest {
        refuse_to_overwrite(manifest)?;
    }
    convert::timeout(args.speed.pace.timeout.as_deref())?;
    let (source, destination) = (location::local(source, "SRC")?, location::local(destination, "DST")?);
    let specification = Specification {
        items: common::detail(&args.output).any(),
        filters: convert::filters(&args.scope.filter)?,
        one_file_system: args.scope.one_file_system,
        id_map: convert::ids(&args.ids)?,
        backend: args.speed.pace.backend.into(),
        jobs: args.speed.jobs.count(),
        limits: Limits {
            bytes_per_s: convert::rate(args.speed.pace.bwlimit.as_deref())?,
            directory_entries: Some(args.scope.max_dir_entries),
            ..Limits::default()
        },
        manifest_holes: args.manifest_holes,
        accept_loss: convert::accepted(&args.accept_loss)?,
        ..Specification::new(Kind::Verify, Some(&source), &destination)
    };
    Ok(Request {
        headline: common::headline(&source, &destination),
        specification: specification.with_manifest(args.manifest.as_deref()),
    })
}

/// With two trees the manifest is an output. Whoever has one already more likely meant to check it.
fn refuse_to_overwrite(manifest: &Path) -> Result<(), Error> {
    if std::fs::symlink_metadata(manifest).is_err() {
        return Ok(());
    }
    Err(Error::Usage {
        what: format!("{} exists, and verify SRC DST would write a new manifest there", escape_path(manifest)),
        remedy: "to hold a tree against it, name that one DIR only; else name a new FILE",
    })
}

fn against_manifest(args: &VerifyArgs, directory: &std::ffi::OsStr) -> Result<Request, Error> {
    let manifest: PathBuf = args.manifest.clone().ok_or_else(|| Error::Usage {
        what: "verify of one directory needs a manifest".into(),
        remedy: "copyd verify --manifest FILE DIR, or copyd verify SRC DST",
    })?;
    let foreign = [
        (!args.scope.filter.is_empty() || args.scope.filter.from0, "--include, --exclude and --files-from"),
        (args.scope.one_file_system, "--one-file-system"),
        (args.scope.max_dir_entries != crate::limits::DIRECTORY_ENTRIES_MAX, "--max-dir-entries"),
        (!args.ids.is_empty(), "--usermap, --groupmap and --chown"),
        (!args.accept_loss.is_empty(), "--accept-loss"),
        (args.manifest_holes, "--manifest-holes"),
        (args.speed.pace.backend != BackendWord::Auto, "--backend"),
    ];
    if let Some((_, flags)) = foreign.iter().find(|(given, _)| *given) {
        return Err(Error::Usage {
            what: format!("{flags} do not apply where a tree is held against a manifest"),
            remedy: "the manifest says what is compared: leave them out",
        });
    }
    convert::timeout(args.speed.pace.timeout.as_deref())?;
    let directory = location::local(directory, "DIR")?;
    let specification = Specification {
        items: common::detail(&args.output).any(),
        jobs: args.speed.jobs.count(),
        limits: Limits { bytes_per_s: convert::rate(args.speed.pace.bwlimit.as_deref())?, ..Limits::default() },
        ..Specification::new(Kind::Verify, None, &directory)
    };
    Ok(Request {
        headline: format!("{} -> {}", escape_path(&manifest), common::inside(&directory)),
        specification: specification.with_manifest(Some(&manifest)),
    })
}
