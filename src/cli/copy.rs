//! `copyd migrate` and `copyd sync`.

use super::args::CopyArgs;
use super::output::View;
use super::run::{Request, conduct};
use super::{common, convert, location};
use crate::error::{Error, ExitCode};
use crate::pass::VerifyLevel;
use crate::worker::{Kind, Limits, Specification};

/// `copyd migrate SRC DST`.
pub fn migrate(args: &CopyArgs) -> ExitCode {
    conduct(&view(Kind::Migrate, args), request(Kind::Migrate, args))
}

/// `copyd sync SRC DST`.
pub fn sync(args: &CopyArgs) -> ExitCode {
    conduct(&view(Kind::Sync, args), request(Kind::Sync, args))
}

fn view(kind: Kind, args: &CopyArgs) -> View {
    let mut detail = common::detail(&args.output);
    if args.dry_run {
        detail.itemize = detail.itemize.max(1);
    }
    View {
        kind: kind.word(),
        verify: VerifyLevel::from(args.proof.verify).word(),
        dry_run: args.dry_run,
        json: args.output.json,
        stats: args.output.stats,
        detail,
        log_file: args.output.log_file.clone(),
        timeout: convert::timeout(args.speed.pace.timeout.as_deref()).ok().flatten(),
    }
}

fn request(kind: Kind, args: &CopyArgs) -> Result<Request, Error> {
    // The view has it; here a wrong one is refused.
    convert::timeout(args.speed.pace.timeout.as_deref())?;
    let source = location::local(&args.source, "SRC")?;
    let destination = location::local(&args.destination, "DST")?;
    // Looked at here for the sake of the words in which they are refused.
    convert::keep(args.deletions.trash.as_deref())?;
    convert::marker(args.source_marker.as_deref())?;
    let specification = Specification {
        filters: convert::filters(&args.scope.filter)?,
        id_map: convert::ids(&args.ids)?,
        limits: Limits {
            bytes_per_s: convert::rate(args.speed.pace.bwlimit.as_deref())?,
            file_bytes: convert::size("--max-size", args.proof.max_size.as_deref())?,
            file_allocated_bytes: convert::size("--max-allocated", args.proof.max_allocated.as_deref())?,
            directory_entries: Some(args.scope.max_dir_entries),
        },
        accept_loss: convert::accepted(&args.proof.accept_loss)?,
        verify: args.proof.verify.into(),
        dry_run: args.dry_run,
        items: args.dry_run || common::detail(&args.output).any(),
        delete: args.deletions.delete,
        keep_extra: args.deletions.keep_extra,
        allow_empty_source: args.deletions.allow_empty_source,
        new_destination: args.new_destination,
        max_delete: args.deletions.max_delete,
        trash: args.deletions.trash.clone(),
        max_passes: (kind == Kind::Migrate).then_some(args.max_passes),
        retry_failed: args.retry_failed,
        one_file_system: args.scope.one_file_system,
        backend: args.speed.pace.backend.into(),
        provisioning: args.proof.provision.into(),
        jobs: args.speed.jobs.count(),
        strict: args.proof.strict,
        manifest_holes: args.manifest_holes,
        ..Specification::new(kind, Some(&source), &destination)
    };
    Ok(Request {
        headline: common::headline(&source, &destination),
        specification: specification
            .with_source_marker(args.source_marker.as_deref())
            .with_state_dir(args.state_dir.as_deref())
            .with_manifest(args.manifest.as_deref()),
    })
}
