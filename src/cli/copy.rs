//! `copyd migrate` and `copyd sync`.

use super::args::CopyArgs;
use super::output::View;
use super::run::{Request, conduct};
use super::{common, convert, location};
use crate::error::{Error, ExitCode};
use crate::pass::{self, Extras, JobKind, Options, VerifyLevel};

/// `copyd migrate SRC DST`.
pub fn migrate(args: &CopyArgs) -> ExitCode {
    run(JobKind::Migrate, args, args.max_passes)
}

/// `copyd sync SRC DST`.
pub fn sync(args: &CopyArgs) -> ExitCode {
    run(JobKind::Sync, args, 1)
}

fn run(kind: JobKind, args: &CopyArgs, max_passes: u32) -> ExitCode {
    let prepared = options(kind, args, max_passes).map(|options| Request {
        headline: common::headline(&options.source, &options.destination),
        work: move |observer: &dyn pass::Observer, progress: &pass::Progress, stop: &std::sync::Arc<pass::Stop>| {
            pass::run(&options, observer, progress, stop)
        },
    });
    conduct(&view(kind, args), prepared)
}

fn view(kind: JobKind, args: &CopyArgs) -> View {
    let mut detail = common::detail(&args.output);
    if args.dry_run {
        detail.itemize = detail.itemize.max(1);
    }
    View {
        kind: kind.word(),
        verify: VerifyLevel::from(args.verify).word(),
        dry_run: args.dry_run,
        json: args.output.json,
        stats: args.output.stats,
        detail,
        log_file: args.output.log_file.clone(),
        timeout: convert::timeout(args.speed.timeout.as_deref()).ok().flatten(),
    }
}

fn options(kind: JobKind, args: &CopyArgs, max_passes: u32) -> Result<Options, Error> {
    // The view has it; here a wrong one is refused.
    convert::timeout(args.speed.timeout.as_deref())?;
    let source = location::local(&args.source, "SRC")?;
    let destination = location::local(&args.destination, "DST")?;
    Ok(Options {
        kind,
        filter: convert::filter(&args.scope.filter)?,
        id_map: convert::id_map(&args.ids)?,
        bytes_per_second: convert::rate(args.speed.bwlimit.as_deref())?,
        accept_loss: convert::accepted(&args.accept_loss)?,
        source,
        destination,
        verify: args.verify.into(),
        dry_run: args.dry_run,
        items: args.dry_run || common::detail(&args.output).any(),
        extras: extras(args),
        allow_empty_source: args.allow_empty_source,
        max_delete: args.max_delete,
        trash: convert::keep(args.trash.as_deref())?,
        max_passes,
        retry_failed: args.retry_failed,
        one_file_system: args.scope.one_file_system,
        backend: args.speed.backend.into(),
        provision: args.provision.into(),
        jobs: args.speed.jobs.count(),
        state_dir: args.state_dir.clone(),
        strict: args.strict,
        manifest: args.manifest.clone(),
        manifest_holes: args.manifest_holes,
    })
}

const fn extras(args: &CopyArgs) -> Extras {
    match (args.delete, args.keep_extra) {
        (true, _) => Extras::Delete,
        (false, true) => Extras::Keep,
        (false, false) => Extras::Guard,
    }
}
