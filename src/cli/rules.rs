//! `--exclude`, `--include` and their `-from` forms, in the order they were written.
//!
//! rsync's rules work by order ("the first match decides"), across all four flags. A derived
//! struct would keep one list for each flag and lose that order, so these arguments are declared
//! by hand and merged by the position that the parser recorded.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

const HEADING: &str = "Scope";

/// One rule as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleArg {
    Exclude(OsString),
    Include(OsString),
    ExcludeFrom(PathBuf),
    IncludeFrom(PathBuf),
}

/// What limits a run to a part of the trees.
#[derive(Clone, Debug, Default)]
pub struct FilterArgs {
    /// In the order of the command line.
    pub rules: Vec<RuleArg>,
    pub files_from: Option<PathBuf>,
    pub from0: bool,
}

impl FilterArgs {
    /// Whether nothing was asked.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.files_from.is_none()
    }
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        let pattern = |name: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("PATTERN")
                .value_parser(value_parser!(OsString))
                .allow_hyphen_values(true)
                .action(ArgAction::Append)
                .help_heading(HEADING)
                .help(help)
        };
        let file = |name: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help_heading(HEADING)
                .help(help)
        };
        command
            .arg(pattern(
                "exclude",
                "Leave out what matches PATTERN (rsync's patterns; the first rule that matches decides)",
            ))
            .arg(pattern("include", "Keep what matches PATTERN in scope, against the excludes after it"))
            .arg(file("exclude-from", "Read exclude patterns from FILE").action(ArgAction::Append))
            .arg(file("include-from", "Read include patterns from FILE").action(ArgAction::Append))
            .arg(file("files-from", "Only the entries that FILE names, one a line, relative to SRC"))
            .arg(
                Arg::new("from0")
                    .short('0')
                    .long("from0")
                    .action(ArgAction::SetTrue)
                    .help_heading(HEADING)
                    .help("Entries of all -from files end with a NUL byte, not with a line end"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut placed: Vec<(usize, RuleArg)> = Vec::new();
        patterns(matches, "exclude", RuleArg::Exclude, &mut placed);
        patterns(matches, "include", RuleArg::Include, &mut placed);
        patterns(matches, "exclude-from", RuleArg::ExcludeFrom, &mut placed);
        patterns(matches, "include-from", RuleArg::IncludeFrom, &mut placed);
        placed.sort_by_key(|(index, _)| *index);
        Ok(Self {
            rules: placed.into_iter().map(|(_, rule)| rule).collect(),
            files_from: matches.get_one::<PathBuf>("files-from").cloned(),
            from0: matches.get_flag("from0"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn patterns<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    name: &str,
    make: fn(T) -> RuleArg,
    placed: &mut Vec<(usize, RuleArg)>,
) {
    let indices = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<T>(name).into_iter().flatten();
    placed.extend(indices.zip(values).map(|(index, value)| (index, make(value.clone()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> FilterArgs {
        let command = FilterArgs::augment_args(Command::new("t").no_binary_name(true));
        FilterArgs::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    #[test]
    fn rules_keep_the_order_of_the_command_line_across_all_four_flags() {
        let args = parse(&[
            "--include=*/",
            "--exclude",
            "- a",
            "--include-from=i",
            "--exclude=b",
            "--exclude-from",
            "e",
            "--include=z",
        ]);
        assert_eq!(
            args.rules,
            [
                RuleArg::Include("*/".into()),
                RuleArg::Exclude("- a".into()),
                RuleArg::IncludeFrom("i".into()),
                RuleArg::Exclude("b".into()),
                RuleArg::ExcludeFrom("e".into()),
                RuleArg::Include("z".into()),
            ]
        );
    }

    #[test]
    fn no_rule_means_empty() {
        assert!(parse(&["--from0"]).is_empty());
        assert!(!parse(&["--files-from=x"]).is_empty());
    }
}
