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

/// Every verb with every flag, or the help of one verb.
///
/// # Errors
/// [`Error::Usage`] for a verb that copyd does not have.
pub fn help(verb: Option<&str>) -> Result<String, Error> {
    let mut command = Cli::command();
    command.build();
    let Some(verb) = verb else {
        return Ok(whole_help(&mut command));
    };
    match command.find_subcommand_mut(verb) {
        Some(found) => Ok(found.render_long_help().to_string()),
        None => Err(Error::Usage {
            what: super::hints::verb(verb).unwrap_or_else(|| format!("copyd has no verb {verb}")),
            remedy: "`copyd help` shows the verbs of this version",
        }),
    }
}

fn whole_help(command: &mut Command) -> String {
    let mut text = command.render_long_help().to_string();
    // Writing to a `String` can't fail.
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_opts().next().is_some()) {
        let help = verb.render_help();
        let _ = write!(text, "\n──── copyd {} ────\n\n{help}", verb.get_name());
    }
    text.push_str("\nExit codes\n");
    for code in CODES {
        let _ = writeln!(text, "  {:>2}  {}", code as u8, meaning(code));
    }
    text
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

/// `copyd` itself, and each verb under the name `copyd-VERB`.
fn pages() -> Vec<Command> {
    let mut command = Cli::command();
    command.build();
    let verbs: Vec<Command> = command.get_subcommands().cloned().collect();
    std::iter::once(command).chain(verbs).collect()
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
