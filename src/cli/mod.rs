//! The command line: parse, dispatch, print.
//!
//! ```text
//! words ─► args.rs (clap) ─┬─► copy.rs, verify.rs ─► run.rs ─► worker::Supervisor ─► copyd worker
//!                          │      convert.rs, location.rs          ▲        │ lines       (worker.rs ─► pass)
//!                          ├─► trash.rs ─► pass::{trash_list, trash_restore, trash_expire}
//!                          ├─► job/: a daemon's jobs, over HTTP
//!                          ├─► serve.rs ─► daemon::{serve, spawn_for}
//!                          ├─► packaging.rs (man, completions)   signals.rs ▼
//!                          └─► usage.rs, hints.rs (refusals)              output/
//! ```

mod args;
mod common;
mod convert;
mod copy;
mod hints;
mod job;
pub(crate) mod location;
mod output;
mod packaging;
mod panics;
mod rules;
mod run;
mod serve;
mod signals;
mod trash;
mod usage;
mod verify;
mod worker;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::catch_unwind;
use std::path::Path;

use clap::Parser;

use crate::error::{Error, ExitCode};
use args::{Cli, Verb};

/// The whole program: takes the process's arguments, gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    panics::install();
    crate::sys::keep_pages_small();
    // What panicked has been said by the hook.
    catch_unwind(|| dispatch(&std::env::args_os().collect::<Vec<_>>())).unwrap_or(ExitCode::Internal)
}

fn dispatch(words: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, words),
    };
    match cli.verb {
        Verb::Migrate(args) => copy::migrate(&args),
        Verb::Sync(args) => copy::sync(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Trash { verb } => trash::run(&verb),
        Verb::Worker { spec, log, isolated, network_namespace } => {
            worker::run(&spec, log, isolated, network_namespace.as_deref())
        }
        Verb::Job { connect, verb } => job::job(&connect, &verb),
        Verb::Group { connect, verb } => job::group(&connect, &verb),
        Verb::Serve(args) => serve::serve(&args),
        Verb::Spawner(args) => serve::spawner(&args),
        Verb::Completions { shell } => printed(Ok(packaging::completions(shell))),
        Verb::Man { directory } => man(directory.as_deref()),
        Verb::Help { verb } => printed(packaging::help(&verb).map(String::into_bytes)),
    }
}

fn refuse(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let refusal = usage::refusal(error, words);
    if refusal.exit == ExitCode::Complete {
        return printed(Ok(refusal.text.into_bytes()));
    }
    // Whoever closed stderr does not want to know.
    let _ = io::stderr().write_all(refusal.text.as_bytes());
    if words.iter().any(|word| word == "--json") {
        output::print_refusal(verb_of(words), refusal.what);
    }
    refusal.exit
}

/// The verb that was meant, for the summary of words that could not be parsed.
fn verb_of(words: &[OsString]) -> &'static str {
    let known = ["migrate", "sync", "verify"];
    known.into_iter().find(|verb| words.get(1).is_some_and(|word| word == verb)).unwrap_or("unknown")
}

fn man(directory: Option<&Path>) -> ExitCode {
    if let Some(directory) = directory {
        return printed(packaging::man_into(directory).map(|()| Vec::new()));
    }
    let mut text = Vec::new();
    // Writing into memory can't fail.
    let _ = packaging::man_to(&mut text);
    printed(Ok(text))
}

/// Prints a whole text. A reader that has gone is no failure: `copyd man | head`.
fn printed(text: Result<Vec<u8>, Error>) -> ExitCode {
    match text {
        Ok(bytes) => match io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                failed(&Error::Output { path: "/dev/stdout".into(), what: "can't write to", source: error })
            }
            _ => ExitCode::Complete,
        },
        Err(error) => failed(&error),
    }
}

/// Prints an error with its remedy, and gives its exit code.
fn failed(error: &Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "{}", output::report_error(error));
    error.exit_code()
}
