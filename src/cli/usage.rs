//! What the argument parser refuses, with a remedy: hints for rsync's flags and later verbs.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::hints;
use crate::error::ExitCode;
use crate::worker::escape_lines;

/// Letters that copyd itself knows; the rest of a cluster like `-avz` is rsync's.
const OWN_LETTERS: &str = "nvix0hV";

/// A refusal, or the answer to `--help` and `--version`.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong, in one line.
    pub what: String,
    pub text: String,
    pub exit: ExitCode,
}

/// Turns the parser's error into text and exit code; its own exit code 2 is never used.
pub fn refusal(error: &clap::Error, words: &[OsString]) -> Refusal {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Refusal { what: String::new(), text: error.render().to_string(), exit: ExitCode::Complete };
        }
        _ => {}
    }
    let rendered = escape_lines(error.render().to_string().trim_end());
    let what = rendered.lines().next().unwrap_or_default().to_owned();
    let hints = hints_for(error, words);
    let text = if hints.is_empty() {
        format!("copyd: {rendered}\n")
    } else {
        format!("copyd: {what}\n  help: {}\n\nFor every verb and flag, try `copyd help`.\n", hints.join("\n  help: "))
    };
    Refusal { what, text, exit: ExitCode::Usage }
}

fn hints_for(error: &clap::Error, words: &[OsString]) -> Vec<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            context(ContextKind::InvalidArg).map(|arg| unknown(arg, words)).unwrap_or_default()
        }
        ErrorKind::InvalidSubcommand => {
            context(ContextKind::InvalidSubcommand).and_then(hints::verb).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn unknown(argument: &str, words: &[OsString]) -> Vec<String> {
    if !argument.starts_with('-') {
        return vec!["copyd takes one SRC and one DST; --files-from and --include choose from SRC".into()];
    }
    if argument.starts_with("--") {
        return hints::flag(argument).into_iter().collect();
    }
    // The parser names one letter; the cluster it stands in tells what else was meant.
    let letter = argument.trim_start_matches('-');
    let cluster = words
        .iter()
        .filter_map(|word| word.to_str())
        .find(|word| word.starts_with('-') && !word.starts_with("--") && word.contains(letter));
    hints::cluster(cluster.unwrap_or(argument), OWN_LETTERS)
}
