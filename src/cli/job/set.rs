//! `copyd job set`: a change of a job while it waits or runs, as a merge patch (RFC 7396).
//!
//! What is not named stays. The word `none`, and 0 where a number means a limit, take away.

use std::collections::BTreeMap;

use hyper::Method;

use super::args::SetArgs;
use super::client::Ask;
use super::create::{seconds, text, usage};
use super::show::{JobView, standing};
use super::trouble::Trouble;
use super::{Hand, path};
use crate::cli::convert;
use crate::error::ExitCode;
use crate::job::{JobPatch, LimitsPatch};
use crate::worker::escape;

pub fn run(hand: &Hand, args: &SetArgs) -> Result<ExitCode, Trouble> {
    let patch = patch(args)?;
    if patch == JobPatch::default() {
        return Err(usage("nothing is to be set".into()));
    }
    let of_job = path::of_job(args.job, "");
    let body = Some(text(&patch)?);
    let ask = Ask { method: Method::PATCH, body, if_match: args.if_generation, ..Ask::get(&of_job) };
    let answer = hand.client.call(&ask)?;
    if hand.json {
        hand.print_json(&answer);
        return Ok(ExitCode::Complete);
    }
    let job: JobView = hand.read(&answer)?;
    hand.say(&format!("{}: {}; generation {}", job.job.id, standing(&job), job.job.generation));
    Ok(ExitCode::Complete)
}

fn patch(args: &SetArgs) -> Result<JobPatch, Trouble> {
    let timing = &args.timing;
    let bytes_per_s = args.bwlimit.as_deref().map(|rate| convert::rate(Some(rate))).transpose()?;
    let limits = LimitsPatch { bytes_per_s, window: timing.window.as_deref().map(or_none) };
    let time = |flag, text: Option<&str>| -> Result<Option<Option<u64>>, Trouble> {
        match text.map(or_none) {
            None => Ok(None),
            Some(None) => Ok(Some(None)),
            Some(Some(text)) => Ok(Some(seconds(flag, Some(&text))?.filter(|seconds| *seconds > 0))),
        }
    };
    Ok(JobPatch {
        priority: timing.priority,
        limits: (limits != LimitsPatch::default()).then_some(limits),
        schedule: timing.schedule.as_deref().map(or_none),
        rpo_s: time("--rpo", timing.rpo.as_deref())?,
        max_delete: args.max_delete.as_deref().map(count).transpose()?,
        cutover: args.cutover.map(Into::into),
        cutover_deadline_s: time("--cutover-deadline", timing.cutover_deadline.as_deref())?,
        labels: pairs("--label", &args.labels)?,
        private_data: pairs("--private-data", &args.private_data)?,
        accept_loss: match args.accept_loss.as_slice() {
            [] => None,
            [word] if word == "none" => Some(Vec::new()),
            words => Some(convert::accepted(words)?),
        },
    })
}

fn or_none(text: &str) -> Option<String> {
    (text != "none").then(|| text.to_owned())
}

fn count(text: &str) -> Result<Option<u64>, Trouble> {
    let wrong = |_| usage(format!("--max-delete: {} is neither a number nor none", escape(text.as_bytes())));
    or_none(text).map(|number| number.parse().map_err(wrong)).transpose()
}

fn pairs(flag: &str, words: &[String]) -> Result<Option<BTreeMap<String, Option<String>>>, Trouble> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut map = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').map_or((word.as_str(), None), |(key, value)| (key, Some(value)));
        if key.is_empty() || map.insert(key.to_owned(), value.map(ToOwned::to_owned)).is_some() {
            return Err(usage(format!("{flag}: {} has no name, or one that is given twice", escape(word.as_bytes()))));
        }
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::JobVerb;
    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn of(words: &[&str]) -> Result<String, Trouble> {
        let all = ["copyd", "job", "set", "0190a6f0-0000-7000-8000-000000000001"].iter().chain(words);
        match Cli::try_parse_from(all).unwrap().verb {
            Verb::Job { verb: JobVerb::Set(args), .. } => text(&patch(&args)?),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_named_stays_and_none_takes_away() {
        for (words, body) in [
            (&[][..], "{}"),
            (&["--priority=7", "--bwlimit=1M"], r#"{"priority":7,"limits":{"bytes_per_s":1048576}}"#),
            (&["--bwlimit=0", "--window=none"], r#"{"limits":{"bytes_per_s":null,"window":null}}"#),
            (
                &["--schedule=none", "--rpo=0", "--max-delete=none"],
                r#"{"schedule":null,"rpo_s":null,"max_delete":null}"#,
            ),
            (&["--rpo=1h", "--cutover-deadline=none"], r#"{"rpo_s":3600,"cutover_deadline_s":null}"#),
            (&["--label=a=b", "--label=c", "--label=d="], r#"{"labels":{"a":"b","c":null,"d":""}}"#),
            (&["--accept-loss=none", "--cutover=auto"], r#"{"cutover":"auto","accept_loss":[]}"#),
            (&["--accept-loss=owner,acl"], r#"{"accept_loss":["owner","acl"]}"#),
        ] {
            assert_eq!(of(words).unwrap(), body, "{words:?}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused_with_the_flag() {
        for (words, flag) in [
            (["--max-delete=x"], "--max-delete"),
            (["--label==x"], "--label"),
            (["--rpo=x"], "--rpo"),
            (["--bwlimit=x"], "--bwlimit"),
        ] {
            assert!(of(&words).unwrap_err().to_string().contains(flag));
        }
    }
}
