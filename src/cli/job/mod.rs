//! `copyd job …` and `copyd group …`: an admin's hand on a daemon.
//!
//! ```text
//! words ─► args.rs ─┬─► create.rs, set.rs (flags as a specification, or a change of one)
//!                   ├─► list.rs, show.rs, why.rs, report.rs: what the daemon answers, for people
//!                   ├─► watch.rs ◄── sse.rs: live, to the job's end
//!                   └─► client.rs ◄── endpoint.rs (where, and who asks)
//!                             └─► trouble.rs: refusals, with remedy and exit code
//! ```
//!
//! `--json` prints what the daemon answered as it is, but that control characters, which JSON lets through in
//! part, are escaped. Nothing here touches a tenant's tree.

pub mod args;
mod client;
mod create;
mod endpoint;
mod list;
mod path;
mod report;
mod set;
mod show;
mod sse;
mod table;
mod trouble;
mod watch;
mod why;

use std::io::{self, Write};

use hyper::Method;
use uuid::Uuid;

use super::output::report as report_failure;
use crate::error::{Error, ExitCode};
use args::{CommandArgs, ConnectArgs, GroupArgs, GroupVerb, JobVerb};
use client::{Ask, Client};
use endpoint::Endpoint;
use trouble::Trouble;

/// What a verb has to talk with.
struct Hand {
    client: Client,
    /// Print JSON.
    json: bool,
}

/// `copyd job VERB`.
pub fn job(connect: &ConnectArgs, verb: &JobVerb) -> ExitCode {
    ended(connect.json, Hand::of(connect).and_then(|hand| job_verb(&hand, verb)))
}

/// `copyd group VERB`.
pub fn group(connect: &ConnectArgs, verb: &GroupVerb) -> ExitCode {
    ended(connect.json, Hand::of(connect).and_then(|hand| group_verb(&hand, verb)))
}

fn job_verb(hand: &Hand, verb: &JobVerb) -> Result<ExitCode, Trouble> {
    match verb {
        JobVerb::Create(args) => create::run(hand, args),
        JobVerb::List(args) => list::jobs(hand, args),
        JobVerb::Show { job, events: true, .. } => show::events(hand, *job),
        JobVerb::Show { job, failures: true, .. } => show::failures(hand, *job),
        JobVerb::Show { job, losses: true, .. } => show::losses(hand, *job),
        JobVerb::Show { job, .. } => show::job(hand, *job),
        JobVerb::Watch { job, until } => watch::run(hand, *job, *until),
        JobVerb::Pause(args) => command(hand, args, "pause"),
        JobVerb::Resume(args) => command(hand, args, "resume"),
        JobVerb::Cancel(args) => command(hand, args, "cancel"),
        JobVerb::Cutover(args) => command(hand, args, "cutover"),
        JobVerb::Abort(args) => command(hand, args, "abort"),
        JobVerb::Verify(args) => command(hand, args, "verify"),
        JobVerb::RetryFailed(args) => command(hand, args, "retry-failed"),
        JobVerb::Set(args) => set::run(hand, args),
        JobVerb::Why { job, path } => why::run(hand, *job, path),
        JobVerb::Report { job, html } => report::run(hand, *job, html.as_deref()),
        JobVerb::Delete(args) => delete(hand, args),
    }
}

fn group_verb(hand: &Hand, verb: &GroupVerb) -> Result<ExitCode, Trouble> {
    match verb {
        GroupVerb::Create(args) => create::group(hand, args),
        GroupVerb::List { project } => list::groups(hand, project.as_deref()),
        GroupVerb::Show(args) => show::group(hand, args),
        GroupVerb::Cutover(args) => group_command(hand, args, "cutover"),
        GroupVerb::Abort(args) => group_command(hand, args, "abort"),
        GroupVerb::Pause(args) => group_command(hand, args, "pause"),
        GroupVerb::Resume(args) => group_command(hand, args, "resume"),
        GroupVerb::Cancel(args) => group_command(hand, args, "cancel"),
        GroupVerb::Delete(args) => {
            hand.client.call(&Ask { method: Method::DELETE, ..Ask::get(&group_path(args, "")) })?;
            hand.say(&format!("group {}: removed", crate::worker::escape(args.name.as_bytes())));
            Ok(ExitCode::Complete)
        }
    }
}

/// Gives every job that is named the command. All are tried; the first trouble that counts most is the verb's.
fn command(hand: &Hand, args: &CommandArgs, word: &str) -> Result<ExitCode, Trouble> {
    each(hand, args, |job| {
        let path = path::of_job(job, word);
        let body = hand.client.call(&Ask { if_match: args.if_generation, ..Ask::post(&path) })?;
        if hand.json {
            hand.print_json(&body);
            return Ok(());
        }
        let job: show::JobView = hand.read(&body)?;
        hand.say(&format!("{}: {}", job.job.id, show::standing(&job)));
        Ok(())
    })
}

fn delete(hand: &Hand, args: &CommandArgs) -> Result<ExitCode, Trouble> {
    each(hand, args, |job| {
        let path = path::of_job(job, "");
        hand.client.call(&Ask { method: Method::DELETE, if_match: args.if_generation, ..Ask::get(&path) })?;
        hand.say(&format!("{job}: its record is removed"));
        Ok(())
    })
}

fn each(hand: &Hand, args: &CommandArgs, one: impl Fn(Uuid) -> Result<(), Trouble>) -> Result<ExitCode, Trouble> {
    if let [job] = args.jobs.as_slice() {
        return one(*job).map(|()| ExitCode::Complete);
    }
    let mut holding = Vec::new();
    for job in &args.jobs {
        if let Err(trouble) = one(*job) {
            hand.note(&format!("copyd: {job}:"));
            holding.push(ended(hand.json, Err(trouble)));
        }
    }
    Ok(ExitCode::first(&holding))
}

fn group_command(hand: &Hand, args: &GroupArgs, word: &str) -> Result<ExitCode, Trouble> {
    let body = hand.client.call(&Ask::post(&group_path(args, word)))?;
    show::print_group(hand, &body)
}

fn group_path(args: &GroupArgs, word: &str) -> String {
    path::of_group(&args.name, word, &args.project)
}

impl Hand {
    fn of(connect: &ConnectArgs) -> Result<Self, Trouble> {
        Ok(Self { client: Client::new(Endpoint::of(connect)?)?, json: connect.json })
    }

    /// Reads an answer.
    fn read<T: serde::de::DeserializeOwned>(&self, body: &str) -> Result<T, Trouble> {
        let wrong = |error: serde_json::Error| {
            self.client.no_answer("answered in a form that this copyd does not know", Some(error.into()))
        };
        serde_json::from_str(body).map_err(wrong)
    }

    /// A line of the result, for people: with `--json` it is none.
    fn say(&self, text: &str) {
        if !self.json {
            // Whoever closed stdout does not want to know.
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// A line beside the result.
    fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn print_json(&self, body: &str) {
        let _ = writeln!(io::stdout(), "{}", printable(body.trim_end()));
    }
}

/// JSON with no raw control character in it. Outside of strings JSON has no DEL and no C1 characters, so each
/// one stands in a string, where its escape means the same.
fn printable(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\x7f'..='\u{9f}' => {
                // Writing to a `String` can't fail.
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text
}

/// Prints how a verb ended, and gives its exit code.
fn ended(json: bool, result: Result<ExitCode, Trouble>) -> ExitCode {
    let trouble = match result {
        Ok(exit) => return exit,
        Err(trouble) => trouble,
    };
    if let (true, Trouble::Problem(problem)) = (json, &trouble) {
        // Only a document of the daemon's own goes to programs.
        if serde_json::from_str::<serde_json::Value>(&problem.text).is_ok() {
            let _ = writeln!(io::stdout(), "{}", printable(problem.text.trim_end()));
        }
    }
    let _ = writeln!(io::stderr(), "{}", report_failure(&trouble.failure()));
    trouble.exit_code()
}

/// A file of this machine that the words name, which can't be read or written.
fn file_trouble(path: &std::path::Path, what: &'static str, source: io::Error) -> Trouble {
    Error::Output { path: path.to_owned(), what, source }.into()
}
