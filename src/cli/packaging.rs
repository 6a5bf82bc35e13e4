//! For packagers: completions, man pages, and the help of everything.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Cli;
use super::output::meaning;
use crate::error::{Error, ExitCode};
use crate::escape::escape;

/// The exit codes that this version can end with.
const CODES: [ExitCode; 12] = [
    ExitCode::Complete,
    ExitCode::Usage,
    ExitCode::Internal,
    ExitCode::Root,
    ExitCode::Stopped,
    ExitCode::SomeFailed,
    ExitCode::Vanished,
    ExitCode::DeletionLimit,
    ExitCode::Timeout,
    ExitCode::Mismatch,
    ExitCode::LossRefused,
    ExitCode::Guard,
];

/// A completion script for `shell`.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "copyd", &mut out);
    out
}

/// Every verb with every flag, or the help of one verb (`job`, `job create`) and of those inside it.
///
/// # Errors
/// [`Error::Usage`] for a verb that copyd does not have.
pub fn help(words: &[String]) -> Result<String, Error> {
    let mut command = Cli::command();
    command.build();
    let Some((first, inner)) = words.split_first() else {
        return Ok(whole_help(&mut command));
    };
    let unknown = |what: String| Error::Usage { what, remedy: "`copyd help` shows the verbs of this version" };
    let mut found = command.find_subcommand_mut(first).ok_or_else(|| {
        unknown(super::hints::verb(first).unwrap_or_else(|| format!("copyd has no verb {}", escape(first.as_bytes()))))
    })?;
    let mut name = format!("copyd {first}");
    for word in inner {
        let missing = format!("{name} has no verb {}", escape(word.as_bytes()));
        found = found.find_subcommand_mut(word).ok_or_else(|| unknown(missing))?;
        name = format!("{name} {word}");
    }
    let mut text = found.render_long_help().to_string();
    for verb in found.get_subcommands_mut() {
        chapters(verb, &name, &mut text);
    }
    Ok(text)
}

fn whole_help(command: &mut Command) -> String {
    let mut text = command.render_long_help().to_string();
    for verb in command.get_subcommands_mut() {
        chapters(verb, "copyd", &mut text);
    }
    text.push_str("\nExit codes\n");
    for code in CODES {
        // Writing to a `String` can't fail.
        let _ = writeln!(text, "  {:>2}  {}", code as u8, meaning(code));
    }
    text
}

/// The help of a verb that has flags, and of those inside it.
fn chapters(verb: &mut Command, above: &str, text: &mut String) {
    let name = format!("{above} {}", verb.get_name());
    if verb.get_opts().next().is_some() {
        let help = verb.render_help();
        let _ = write!(text, "\n──── {name} ────\n\n{help}");
    }
    for inner in verb.get_subcommands_mut() {
        chapters(inner, &name, text);
    }
}

/// All man pages, one after the other.
///
/// # Errors
/// Those of `out`.
pub fn man_to(out: &mut dyn io::Write) -> io::Result<()> {
    pages().iter().try_for_each(|page| render(page, out))
}

/// All man pages, a file each.
///
/// # Errors
/// [`Error::Output`] with the file that could not be written.
pub fn man_into(directory: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Output { path, what: "can't write", source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for page in pages() {
        let path = directory.join(Man::new(page.clone()).get_filename());
        let mut text = Vec::new();
        render(&page, &mut text).and_then(|()| std::fs::write(&path, &text)).map_err(failed(&path))?;
    }
    Ok(())
}

/// `copyd` itself, each verb under the name `copyd-VERB`, and each inside one under `copyd-VERB-VERB`.
fn pages() -> Vec<Command> {
    let mut command = Cli::command();
    command.build();
    let mut pages = vec![command];
    let mut at = 0;
    while let Some(page) = pages.get(at) {
        let inner: Vec<Command> = page.get_subcommands().cloned().collect();
        pages.extend(inner);
        at += 1;
    }
    pages
}

fn render(page: &Command, out: &mut dyn io::Write) -> io::Result<()> {
    let has_version = page.get_version().is_some();
    let man = Man::new(page.clone()).manual("copyd").source(concat!("copyd ", env!("CARGO_PKG_VERSION")));
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if page.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    man.render_extra_section(out)?;
    let mut tail = Roff::new();
    exit_status(&mut tail);
    signals(&mut tail);
    tail.to_writer(out)?;
    if has_version { man.render_version_section(out) } else { Ok(()) }
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for code in CODES {
        roff.control("TP", []);
        roff.text([bold((code as u8).to_string())]);
        roff.text([roman(meaning(code))]);
    }
}

fn signals(roff: &mut Roff) {
    roff.control("SH", ["SIGNALS"]);
    for (name, does) in [
        ("SIGINT, SIGTERM", "stop at a safe point; the same command again resumes"),
        ("SIGINT, a second time", "stop at once; temporaries are left to the next run"),
        ("SIGUSR1", "print to stderr where the run stands"),
    ] {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(does)]);
    }
}
