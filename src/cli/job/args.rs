//! `copyd job …` and `copyd group …` as data.
//!
//! What a job is asked stands in the same flags as with `migrate` and `sync`, from the same definitions. Flags
//! that say how a run prints, and paths of this machine that a daemon would open, do not exist here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::cli::args::{DeletionArgs, IdArgs, PaceArgs, ProofArgs, ScopeArgs};

/// What says a specification in flags: groups are those of the structs below, the rest stands by name.
const INSTEAD_OF_SPEC: [&str; 18] = [
    "source",
    "destination",
    "kind",
    "max_passes",
    "DeletionArgs",
    "ProofArgs",
    "one_file_system",
    "max_dir_entries",
    "exclude",
    "include",
    "exclude-from",
    "include-from",
    "files-from",
    "from0",
    "IdArgs",
    "PaceArgs",
    "TimingArgs",
    "PlaceArgs",
];

/// Which daemon, and who asks. These stand before or after the verb.
#[derive(Clone, Debug, Default, Args)]
pub struct ConnectArgs {
    /// Where the daemon listens: unix:PATH, https://HOST:PORT, or http://127.0.0.1:PORT
    /// [default: `$COPYD_URL`, else unix:/run/copyd/copyd.sock].
    #[arg(long, global = true, value_name = "URL", help_heading = "Daemon")]
    pub url: Option<String>,
    /// Who signed the daemon's certificate (PEM) [default: those that this machine trusts].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Daemon")]
    pub ca: Option<PathBuf>,
    /// This side's certificate (PEM), with --key.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Daemon")]
    pub certificate: Option<PathBuf>,
    /// The private key of --certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", help_heading = "Daemon")]
    pub key: Option<PathBuf>,
    /// A file with the token that says who asks [default: `$COPYD_TOKEN_FILE`].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Daemon")]
    pub token_file: Option<PathBuf>,
    /// Print the daemon's JSON as it is.
    #[arg(long, global = true, help_heading = "Daemon")]
    pub json: bool,
}

/// `copyd job …`.
#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// Hand a job to the daemon; prints its id.
    ///
    /// The same flags as `copyd migrate` and `copyd sync`, or a whole specification in JSON with --spec. SRC and DST
    /// are absolute paths of the daemon's machine, below a root that its settings allow.
    #[command(
        override_usage = "copyd job create [OPTIONS] <SRC> <DST>\n       copyd job create [OPTIONS] --spec <FILE|->"
    )]
    Create(Box<CreateArgs>),
    /// Print the jobs that there are.
    List(ListArgs),
    /// Print one job: where it stands, what it did, what it can be told.
    Show {
        #[arg(value_name = "JOB")]
        job: Uuid,
        /// Its events, the oldest first.
        #[arg(long, conflicts_with_all = ["failures", "losses"])]
        events: bool,
        /// The entries that failed.
        #[arg(long, conflicts_with = "losses")]
        failures: bool,
        /// Examples of what the destination can't hold.
        #[arg(long)]
        losses: bool,
    },
    /// Follow a job live, and exit with its code.
    ///
    /// A connection that breaks is made again and goes on where it was. ^C ends the watching, not the job.
    Watch {
        #[arg(value_name = "JOB")]
        job: Uuid,
        /// How long to watch: to its end, or until it is ready for the cutover (a replica: in sync).
        #[arg(long, value_name = "WHEN", default_value = "end")]
        until: Until,
    },
    /// Stop at a safe point, and wait for resume.
    Pause(CommandArgs),
    /// Go on with a job that is paused or failed.
    Resume(CommandArgs),
    /// Stop for good, at a safe point.
    Cancel(CommandArgs),
    /// Make the last pass now. Nothing may write to the source from here on.
    Cutover(CommandArgs),
    /// Go back from the cutover to ready.
    Abort(CommandArgs),
    /// Compare both sides, reading all of both.
    Verify(CommandArgs),
    /// Try again what failed or was hot.
    RetryFailed(CommandArgs),
    /// Change a job while it waits or runs.
    Set(Box<SetArgs>),
    /// Say what happened to one entry, and why.
    Why {
        #[arg(value_name = "JOB")]
        job: Uuid,
        /// The entry's path from the root of the source.
        #[arg(value_name = "PATH")]
        path: OsString,
    },
    /// What was moved, proved, lost and failed: in words, as JSON, or as a page to keep.
    Report {
        #[arg(value_name = "JOB")]
        job: Uuid,
        /// Write a page that needs nothing beside it to FILE, or to stdout.
        #[arg(long, value_name = "FILE|-", conflicts_with = "json")]
        html: Option<PathBuf>,
    },
    /// Remove the record of jobs that have ended.
    Delete(CommandArgs),
}

/// `copyd group …`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Make a group; jobs join it with `copyd job create --group NAME`.
    Create(GroupArgs),
    /// Print the groups that there are.
    List {
        /// Of this project only.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// Print one group with its members.
    Show(GroupArgs),
    /// Cut all members over together, once every one is ready.
    Cutover(GroupArgs),
    /// Bring all members back from the cutover.
    Abort(GroupArgs),
    /// Stop all members at a safe point.
    Pause(GroupArgs),
    /// Go on with all members.
    Resume(GroupArgs),
    /// Stop all members for good.
    Cancel(GroupArgs),
    /// Remove a group whose members have ended.
    Delete(GroupArgs),
}

#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The project that it belongs to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub project: String,
}

#[derive(Clone, Debug, Args)]
pub struct CommandArgs {
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<Uuid>,
    /// Only if the job's generation is still N, as `copyd job show` printed it (exit 43).
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Of this project only.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// In these states only.
    #[arg(long, value_name = "STATE,...")]
    pub state: Option<String>,
    /// Of this kind only.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<KindWord>,
    /// Of this group only.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// With this label only; may be given again, and all must fit.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// By created, updated or priority; `-` before it turns it round.
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most N jobs.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Those after the one where an earlier list ended.
    #[arg(long, value_name = "MARKER")]
    pub marker: Option<String>,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The directory whose contents are copied, on the daemon's machine.
    #[arg(value_name = "SRC", required_unless_present = "spec")]
    pub source: Option<OsString>,
    /// The directory they go into.
    #[arg(value_name = "DST", required_unless_present = "spec")]
    pub destination: Option<OsString>,

    /// A whole specification in JSON, from FILE or stdin, instead of the flags below; docs/cli.md names its fields.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = INSTEAD_OF_SPEC, help_heading = "What is done")]
    pub spec: Option<PathBuf>,
    /// A migration, a replica that is kept, a comparison, or DST made equal to SRC.
    #[arg(long, value_name = "KIND", default_value = "migrate", help_heading = "What is done")]
    pub kind: KindWord,
    #[command(flatten)]
    pub deletions: DeletionArgs,
    /// At most N passes before the job is ready; what still changes is left to the cutover.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "What is done")]
    pub max_passes: Option<u32>,
    #[command(flatten)]
    pub proof: ProofArgs,
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub ids: IdArgs,
    #[command(flatten)]
    pub pace: PaceArgs,
    #[command(flatten)]
    pub timing: TimingArgs,
    #[command(flatten)]
    pub place: PlaceArgs,

    /// The same KEY again gives the same job, and makes no second one.
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    pub idempotency_key: Option<String>,
}

/// When it runs.
#[derive(Clone, Debug, Default, Args)]
pub struct TimingArgs {
    /// Which of the jobs that wait comes first: 0 to 100, the highest first [default: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Job")]
    pub priority: Option<u8>,
    /// The hours in which it runs: "22:00-06:00 Europe/Berlin", UTC without a zone.
    #[arg(long, value_name = "TIMES", help_heading = "Job")]
    pub window: Option<String>,
    /// How often a replica follows, and a job that is ready looks again: "every 15m".
    #[arg(long, value_name = "SCHEDULE", help_heading = "Job")]
    pub schedule: Option<String>,
    /// How far a replica may lie behind: seconds, or with a suffix (1h).
    #[arg(long, value_name = "TIME", help_heading = "Job")]
    pub rpo: Option<String>,
    /// A cutover that takes longer goes back to ready: seconds, or with a suffix (10m).
    #[arg(long, value_name = "TIME", help_heading = "Job")]
    pub cutover_deadline: Option<String>,
}

/// Where it belongs.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Whether a job that is ready waits for `copyd job cutover`, or goes on by itself.
    #[arg(long, value_name = "HOW", default_value = "wait", help_heading = "Job")]
    pub cutover: CutoverWord,
    /// The group that it cuts over with.
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub group: Option<String>,
    /// The project that it belongs to [default: default].
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub project: Option<String>,
    /// A label to find it by; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", help_heading = "Job")]
    pub labels: Vec<String>,
    /// Data that the caller gets back unchanged; may be given again.
    #[arg(long = "private-data", value_name = "KEY=VALUE", help_heading = "Job")]
    pub private_data: Vec<String>,
    /// The network namespace in which SRC is reached.
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub source_namespace: Option<String>,
    /// The network namespace in which DST is reached.
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub destination_namespace: Option<String>,
    /// The availability zone of SRC.
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub source_zone: Option<String>,
    /// The availability zone of DST.
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub destination_zone: Option<String>,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    #[arg(value_name = "JOB")]
    pub job: Uuid,
    /// Limit the bytes moved a second: a number of KiB, or with a suffix (10M, 1.5G); 0 means no limit.
    #[arg(long, value_name = "RATE", help_heading = "Job")]
    pub bwlimit: Option<String>,
    /// Delete nothing at all if more than N entries would go; none takes the limit away.
    #[arg(long, value_name = "N|none", help_heading = "Job")]
    pub max_delete: Option<String>,
    /// Classes of loss that are accepted from the next run on: the whole list, or none.
    #[arg(long, value_name = "CLASS,...|none", value_delimiter = ',', help_heading = "Job")]
    pub accept_loss: Vec<String>,
    /// Whether a job that is ready waits for `copyd job cutover`, or goes on by itself.
    #[arg(long, value_name = "HOW", help_heading = "Job")]
    pub cutover: Option<CutoverWord>,
    #[command(flatten)]
    pub timing: TimingArgs,
    /// A label to set, or with none after KEY to remove; may be given again.
    #[arg(long = "label", value_name = "KEY[=VALUE]", help_heading = "Job")]
    pub labels: Vec<String>,
    /// Data to set, or with none after KEY to remove; may be given again.
    #[arg(long = "private-data", value_name = "KEY[=VALUE]", help_heading = "Job")]
    pub private_data: Vec<String>,
    /// Only if the job's generation is still N (exit 43).
    #[arg(long, value_name = "N", help_heading = "Job")]
    pub if_generation: Option<u64>,
}

/// `--kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum KindWord {
    /// passes until little changes, then a cutover
    Migrate,
    /// passes on a schedule, for as long as the job stands
    Replicate,
    /// compare; writes nothing
    Verify,
    /// make DST equal to SRC, deleting what only DST has
    Restore,
}

/// `--cutover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CutoverWord {
    Wait,
    Auto,
}

/// `--until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// it is ready for the cutover, or a replica is in sync
    Ready,
    /// it has ended
    End,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::cli::args::Cli;

    /// Flags of `create` that a specification leaves room for: how it is asked, not what.
    const BESIDE_A_SPEC: [&str; 9] =
        ["spec", "url", "ca", "certificate", "key", "token_file", "json", "idempotency_key", "help"];

    #[test]
    fn no_flag_beside_a_specification_is_accepted_and_ignored() {
        let mut command = Cli::command();
        command.build();
        let create = command.find_subcommand("job").unwrap().find_subcommand("create").unwrap();
        for arg in create.get_arguments().filter(|arg| !BESIDE_A_SPEC.contains(&arg.get_id().as_str())) {
            let mut words: Vec<String> = ["copyd", "job", "create", "--spec", "x"].map(Into::into).into();
            words.extend(arg.get_long().map(|long| format!("--{long}")));
            let value = arg.get_possible_values().first().map_or("1", |value| value.get_name()).to_owned();
            if arg.get_action().takes_values() {
                words.push(value);
            }
            let error = Cli::try_parse_from(&words).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{words:?}: {error}");
        }
    }
}
