//! The command line as data: verbs, flags, and their help.
//!
//! This is the one definition that parsing, `--help`, the man pages and the completions are made
//! from. Values stay the words that the user wrote; [`super::convert`] turns them into the
//! engine's types. Flags carry rsync's names and meaning where rsync has the thing. A flag that a
//! verb would have no use for does not exist there: nothing is accepted and then ignored.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::job::args::{ConnectArgs, GroupVerb, JobVerb};
use super::rules::FilterArgs;
use crate::pass::{BackendChoice, Provision, VerifyLevel};

/// What stands at the end of every verb's help and in the man pages.
const AFTER: &str = "A trailing slash means nothing: the contents of SRC go into DST. \
    SIGINT or SIGTERM stop at a safe point (exit 20); the same command again resumes. SIGUSR1 prints where it stands. \
    `copyd help` shows every verb, flag and exit code.";

#[derive(Debug, Parser)]
#[command(
    name = "copyd",
    bin_name = "copyd",
    version,
    about = "Copies file trees whole and proves every byte",
    long_about = "Copies file trees whole and proves every byte: names, contents, holes, hard links, owners, modes, \
                  ACLs, extended attributes and times. What the destination can't hold is named, never dropped in \
                  silence.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 110
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy SRC's contents into DST in passes until nothing changes any more, verify, report.
    #[command(after_help = AFTER)]
    Migrate(Box<CopyArgs>),
    /// Make DST a replica of SRC in one pass.
    #[command(after_help = AFTER)]
    Sync(Box<CopyArgs>),
    /// Compare by content and metadata; writes nothing into either tree.
    ///
    /// `copyd verify SRC DST` compares two trees, `copyd verify --manifest FILE DIR` compares a tree with a
    /// manifest that an earlier run or `b3sum` wrote. Prints `+ path` for what is missing at DST, `- path` for what
    /// is missing at SRC, `* path` for what differs and `! path` for what could not be compared.
    #[command(
        override_usage = "copyd verify [OPTIONS] <SRC> <DST>\n       copyd verify [OPTIONS] --manifest <FILE> <DIR>"
    )]
    Verify(Box<VerifyArgs>),
    /// What replicas kept of deletions at DST: list it, restore it, let it go.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Trash {
        #[command(subcommand)]
        verb: TrashVerb,
    },
    /// Hand jobs to a daemon, watch and steer them.
    #[command(subcommand_required = true, arg_required_else_help = true, subcommand_value_name = "VERB")]
    Job {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(subcommand)]
        verb: JobVerb,
    },
    /// Steer jobs that cut over together.
    #[command(subcommand_required = true, arg_required_else_help = true, subcommand_value_name = "VERB")]
    Group {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(subcommand)]
        verb: GroupVerb,
    },
    /// Carry out one specification in this process: events as JSON lines on stdout, commands on stdin.
    ///
    /// What the other verbs run their work in, and what a program calls that wants no command line: see docs/cli.md.
    /// The end of stdin means that the caller has gone: the worker stops at a safe point.
    Worker {
        /// The file that holds the specification; `-` takes the first line of stdin.
        #[arg(long, value_name = "FILE|-", default_value = "-")]
        spec: PathBuf,
        /// Write a log to stderr.
        #[arg(long)]
        log: bool,
        /// Enter namespaces of one's own first, and give up all that no run needs.
        #[arg(long, hide = true)]
        isolated: bool,
        /// With --isolated: the network namespace of that name instead of one without a network.
        #[arg(long, value_name = "NAME", requires = "isolated", hide = true)]
        network_namespace: Option<OsString>,
    },
    /// Run the daemon: it takes jobs over its API and carries each out in a worker of its own.
    ///
    /// Settings are read from copyd.toml; without any it listens on its unix socket and accepts no path. SIGTERM: jobs
    /// stop at a safe point within 5 s and resume at the next start.
    Serve(ServeArgs),
    /// Start workers for a daemon. Not for people: `copyd serve` starts it, or the service manager.
    #[command(hide = true)]
    Spawner(SpawnerArgs),
    /// Write a completion script for SHELL to stdout.
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write the man pages as roff: all of them to stdout, or one file each into DIR.
    Man {
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Show every verb and flag, or those of VERB (help job create).
    Help {
        #[arg(value_name = "VERB")]
        verb: Vec<String>,
    },
}

/// `copyd serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The file of settings [default: /etc/copyd/copyd.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The unix socket that the API is served on, instead of the one of the settings.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where jobs are kept [default: $STATE_DIRECTORY, or /var/lib/copyd].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the workers keep what they know of their jobs' entries [default: DIR/engine].
    #[arg(long, value_name = "DIR")]
    pub engine_dir: Option<PathBuf>,
    /// A spawner that runs already and listens on this socket; without it one is started.
    #[arg(long, value_name = "PATH")]
    pub spawner: Option<PathBuf>,
    /// Print a file of settings with every default and its reason, and do nothing else.
    #[arg(long)]
    pub example_config: bool,
}

/// `copyd spawner`.
#[derive(Debug, Args)]
pub struct SpawnerArgs {
    /// The descriptor of the link to the daemon that has started it; without it the service manager hands a socket over.
    #[arg(long, value_name = "FD")]
    pub link: Option<i32>,
    /// The file of settings [default: /etc/copyd/copyd.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where jobs are kept [default: $STATE_DIRECTORY, or /var/lib/copyd].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the workers keep what they know of their jobs' entries [default: DIR/engine].
    #[arg(long, value_name = "DIR")]
    pub engine_dir: Option<PathBuf>,
}

/// `copyd trash …`.
#[derive(Debug, Subcommand)]
pub enum TrashVerb {
    /// Print what the trash of DST holds, the newest first: time, why, kind and path, with tabs between.
    List {
        /// The directory that was the destination.
        #[arg(value_name = "DST")]
        destination: OsString,
        /// Print JSON lines on stdout, and people's text on stderr.
        #[arg(long)]
        json: bool,
    },
    /// Move entries back to the paths that they had, of each path the newest; print what came back.
    Restore {
        /// The directory that was the destination.
        #[arg(value_name = "DST")]
        destination: OsString,
        /// Print JSON lines on stdout, and people's text on stderr.
        #[arg(long)]
        json: bool,
        /// Paths from DST, each with everything below it; all there is where none is named.
        #[arg(value_name = "PATH")]
        paths: Vec<OsString>,
        /// Only what was moved away at TIME, as `list` prints it or as it begins (20261122).
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// What stands in the way goes into the trash; without this it stays (exit 23).
        #[arg(long)]
        overwrite: bool,
    },
    /// Remove for good what was kept long enough.
    Expire {
        /// The directory that was the destination.
        #[arg(value_name = "DST")]
        destination: OsString,
        /// Print JSON lines on stdout, and people's text on stderr.
        #[arg(long)]
        json: bool,
        /// What is older than DURATION [default: what the run with --trash said].
        #[arg(long, value_name = "DURATION")]
        older_than: Option<String>,
    },
}

/// What `migrate` and `sync` share.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The directory whose contents are copied: absolute, or beginning with `./` or `../`.
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// The directory they go into; it is created if its parent exists.
    #[arg(value_name = "DST")]
    pub destination: OsString,

    /// Write nothing; print what would be done, as -i does.
    #[arg(short = 'n', long, help_heading = "What is done")]
    pub dry_run: bool,
    #[command(flatten)]
    pub deletions: DeletionArgs,
    /// The file NAME at the root of SRC tells this share from every other; without it nothing is done (exit 43).
    #[arg(long, value_name = "NAME", help_heading = "What is done")]
    pub source_marker: Option<OsString>,
    /// DST was replaced on purpose: it may lie on another file system than before.
    #[arg(long, help_heading = "What is done")]
    pub new_destination: bool,
    /// Try only what an earlier run left as failed or hot; deletes nothing.
    #[arg(long, conflicts_with_all = ["dry_run", "delete"], help_heading = "What is done")]
    pub retry_failed: bool,
    /// At most N passes; what still changes after them is reported as hot. sync makes one in any case.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "What is done"
    )]
    pub max_passes: u32,
    /// Write b3sum's list of digests to FILE, and metadata to FILE.jsonl.
    #[arg(long, value_name = "FILE", help_heading = "Proof")]
    pub manifest: Option<PathBuf>,
    /// Standard digests in the manifest even for files of mostly zeros; costs CPU time for each zero.
    #[arg(long, requires = "manifest", help_heading = "Proof")]
    pub manifest_holes: bool,
    #[command(flatten)]
    pub proof: ProofArgs,

    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub ids: IdArgs,
    #[command(flatten)]
    pub speed: SpeedArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where jobs are kept [default: `$STATE_DIRECTORY`, else as root /var/lib/copyd, else `$XDG_STATE_HOME/copyd`].
    #[arg(long, value_name = "DIR", help_heading = "Output and state")]
    pub state_dir: Option<PathBuf>,
}

/// What a copy does with what only DST has.
#[derive(Debug, Args)]
pub struct DeletionArgs {
    /// Remove what only DST has (refused when SRC is empty, not listed whole, or another share than before).
    #[arg(long, conflicts_with = "keep_extra", help_heading = "What is done")]
    pub delete: bool,
    /// Leave entries of DST alone that no earlier run of this job put there.
    #[arg(long, help_heading = "What is done")]
    pub keep_extra: bool,
    /// Allow deletions although SRC is empty.
    #[arg(long, help_heading = "What is done")]
    pub allow_empty_source: bool,
    /// Delete nothing at all if more than N entries would go (exit 25).
    #[arg(long, value_name = "N", help_heading = "What is done")]
    pub max_delete: Option<u64>,
    /// Keep what is deleted or replaced for DURATION (30d) in .copyd-trash below DST.
    #[arg(long, value_name = "DURATION", help_heading = "What is done")]
    pub trash: Option<String>,
}

/// What a copy makes, how far it proves it, and what it may fall short of.
#[derive(Debug, Args)]
pub struct ProofArgs {
    /// Whether holes stay holes (thin) or every byte is allocated (thick).
    #[arg(long, value_name = "HOW", default_value = "thin", help_heading = "What is done")]
    pub provision: ProvisionWord,

    /// A file of more than SIZE bytes fails (over_limit) and is not copied; holes count.
    #[arg(long, value_name = "SIZE", help_heading = "Scope")]
    pub max_size: Option<String>,
    /// A file for which SRC has more than SIZE bytes allocated fails (over_limit) and is not copied.
    #[arg(long, value_name = "SIZE", help_heading = "Scope")]
    pub max_allocated: Option<String>,

    /// How far the copy is proved.
    #[arg(long, value_name = "LEVEL", default_value = "readback", help_heading = "Proof")]
    pub verify: VerifyWord,
    /// Classes of loss that are accepted: what DST can't hold of them is reported, but is no failure (41).
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',', help_heading = "Proof")]
    pub accept_loss: Vec<String>,
    /// Entries that vanished while copyd ran make the exit code 24.
    #[arg(long, help_heading = "Proof")]
    pub strict: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// SRC and DST; with --manifest of an existing FILE, the one DIR that it is held against.
    #[arg(value_name = "SRC DST", required = true, num_args = 1..=2)]
    pub roots: Vec<OsString>,

    /// With one DIR: compare it with FILE. With SRC and DST: write what both hold to the new FILE.
    #[arg(long, value_name = "FILE", help_heading = "Proof")]
    pub manifest: Option<PathBuf>,
    /// Standard digests in a manifest that is written, even for files of mostly zeros.
    #[arg(long, requires = "manifest", help_heading = "Proof")]
    pub manifest_holes: bool,
    /// Classes of loss that are not compared.
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',', help_heading = "Proof")]
    pub accept_loss: Vec<String>,

    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub ids: IdArgs,
    #[command(flatten)]
    pub speed: SpeedArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// Taken so that the flags of a copy serve its verify too; a verify keeps no state.
    #[arg(long, value_name = "DIR", help_heading = "Output and state")]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ScopeArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Also stop where the device changes without a mount (btrfs subvolumes); mounts are never crossed.
    #[arg(short = 'x', long, help_heading = "Scope")]
    pub one_file_system: bool,
    /// A directory that lists more than N entries fails: a server may list without end.
    #[arg(
        long,
        value_name = "N",
        default_value_t = crate::limits::DIRECTORY_ENTRIES_MAX,
        value_parser = clap::value_parser!(u64).range(1..),
        hide_default_value = true,
        help_heading = "Scope"
    )]
    pub max_dir_entries: u64,
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// Map owners: FROM:TO,... by name, number, range (0-99) or `*`.
    #[arg(long, value_name = "MAP", help_heading = "Owners")]
    pub usermap: Option<String>,
    /// Map groups, as --usermap does owners.
    #[arg(long, value_name = "MAP", help_heading = "Owners")]
    pub groupmap: Option<String>,
    /// Give everything to USER, to GROUP, or to both.
    #[arg(long, value_name = "USER:GROUP", help_heading = "Owners")]
    pub chown: Option<String>,
}

impl IdArgs {
    /// Whether nothing was asked.
    pub const fn is_empty(&self) -> bool {
        self.usermap.is_none() && self.groupmap.is_none() && self.chown.is_none()
    }
}

#[derive(Debug, Args)]
pub struct SpeedArgs {
    /// Data threads.
    #[arg(long, value_name = "N|auto", default_value = "auto", help_heading = "Speed")]
    pub jobs: Jobs,
    #[command(flatten)]
    pub pace: PaceArgs,
}

/// How fast.
#[derive(Debug, Args)]
pub struct PaceArgs {
    /// Who moves the blocks; auto measures both file systems.
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = "Speed")]
    pub backend: BackendWord,
    /// Limit the bytes moved a second: a number of KiB, or with a suffix (10M, 1.5G); 0 means no limit.
    #[arg(long, value_name = "RATE", help_heading = "Speed")]
    pub bwlimit: Option<String>,
    /// End the run (exit 30) when nothing moved for so long: seconds, or with a suffix (5m); 0 means never.
    #[arg(long, value_name = "TIME", help_heading = "Speed")]
    pub timeout: Option<String>,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Print more: paths; given twice, also what is unchanged.
    #[arg(short = 'v', long, action = ArgAction::Count, help_heading = "Output and state")]
    pub verbose: u8,
    /// Print rsync's eleven characters for each change (verify: what differs); given twice, also what is unchanged.
    #[arg(short = 'i', long, action = ArgAction::Count, help_heading = "Output and state")]
    pub itemize_changes: u8,
    /// Print a table of counts at the end.
    #[arg(long, help_heading = "Output and state")]
    pub stats: bool,
    /// Append a log with every failure to FILE.
    #[arg(long, value_name = "FILE", help_heading = "Output and state")]
    pub log_file: Option<PathBuf>,
    /// Events as one JSON object a line on stdout, the summary last; people's text goes to stderr.
    #[arg(long, help_heading = "Output and state")]
    pub json: bool,
}

/// `--jobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    Auto,
    Count(usize),
}

impl std::fmt::Display for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(n) => write!(f, "{n}"),
        }
    }
}

impl std::str::FromStr for Jobs {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word == "auto" {
            return Ok(Self::Auto);
        }
        match word.parse::<usize>() {
            Ok(n) if (1..=crate::limits::JOBS_MAX).contains(&n) => Ok(Self::Count(n)),
            _ => Err(format!("write auto, or a number from 1 to {}", crate::limits::JOBS_MAX)),
        }
    }
}

impl Jobs {
    /// `None` lets the probe decide.
    pub const fn count(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Count(n) => Some(n),
        }
    }
}

/// `--verify`, as words with their help.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum VerifyWord {
    /// no hash at all
    None,
    /// trust the hash made on the way
    Inline,
    /// read what is durable at the destination back past the cache and compare
    Readback,
    /// as readback, and read the source once more
    Full,
}

impl From<VerifyWord> for VerifyLevel {
    fn from(word: VerifyWord) -> Self {
        match word {
            VerifyWord::None => Self::None,
            VerifyWord::Inline => Self::Inline,
            VerifyWord::Readback => Self::Readback,
            VerifyWord::Full => Self::Full,
        }
    }
}

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendWord {
    Auto,
    Uring,
    Threads,
}

impl From<BackendWord> for BackendChoice {
    fn from(word: BackendWord) -> Self {
        match word {
            BackendWord::Auto => Self::Auto,
            BackendWord::Uring => Self::Uring,
            BackendWord::Threads => Self::Threads,
        }
    }
}

/// `--provision`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProvisionWord {
    Thin,
    Thick,
}

impl From<ProvisionWord> for Provision {
    fn from(word: ProvisionWord) -> Self {
        match word {
            ProvisionWord::Thin => Self::Thin,
            ProvisionWord::Thick => Self::Thick,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn jobs_are_auto_or_a_positive_number() {
        assert_eq!("auto".parse(), Ok(Jobs::Auto));
        assert_eq!("8".parse(), Ok(Jobs::Count(8)));
        for wrong in ["0", "-1", "many", "", "100000000"] {
            assert!(wrong.parse::<Jobs>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn delete_and_keep_extra_exclude_each_other() {
        let parsed = Cli::try_parse_from(["copyd", "sync", "--delete", "--keep-extra", "/a", "/b"]);
        assert_eq!(parsed.unwrap_err().kind(), clap::error::ErrorKind::ArgumentConflict);
    }
}
