//! `copyd job create` and `copyd group create`: flags as a specification.
//!
//! The daemon judges a specification, and its word is what is printed; here flags become fields, and what has no
//! form at all is refused with the flag's name. A path is absolute: a daemon knows no working directory of ours.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use super::args::{CreateArgs, CutoverWord, GroupArgs, KindWord, PlaceArgs, TimingArgs};
use super::client::Ask;
use super::path::Query;
use super::show::{JobView, standing};
use super::trouble::Trouble;
use super::{Hand, file_trouble, show};
use crate::cli::convert;
use crate::error::{Error, ExitCode};
use crate::job::{Cutover, Filters, Ids, JobSpec, Kind, Limits, Side};
use crate::limits::{DIRECTORY_ENTRIES_MAX, SPECIFICATION_BYTES_MAX};
use crate::units::parse_duration;
use crate::worker::{self, Line, escape};

/// `copyd job create`. Prints the id alone on stdout, so that a script has it, and the rest on stderr.
pub fn run(hand: &Hand, args: &CreateArgs) -> Result<ExitCode, Trouble> {
    let body = match &args.spec {
        Some(file) => read_spec(file)?,
        None => text(&specification(args)?)?,
    };
    // With a key of its own, the request may be made again where no answer came, and makes one job.
    let key = args.idempotency_key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let ask = Ask { body: Some(body), idempotency_key: Some(&key), ..Ask::post("/v1/jobs") };
    let answer = match hand.client.call(&ask) {
        Err(trouble) if trouble.may_pass() => hand.client.call(&ask),
        answer => answer,
    }?;
    if hand.json {
        hand.print_json(&answer);
        return Ok(ExitCode::Complete);
    }
    let job: JobView = hand.read(&answer)?;
    hand.note(&format!("copyd: {}; `copyd job watch {}` follows it", standing(&job), job.job.id));
    hand.say(&job.job.id.to_string());
    Ok(ExitCode::Complete)
}

/// `copyd group create`.
pub fn group(hand: &Hand, args: &GroupArgs) -> Result<ExitCode, Trouble> {
    let body = text(&serde_json::json!({ "name": args.name, "project": args.project }))?;
    let answer = hand.client.call(&Ask { body: Some(body), ..Ask::post(&Query::on("/v1/groups").path()) })?;
    show::print_group(hand, &answer)
}

pub(super) fn text(value: &impl Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|error| Error::Internal { what: format!("no JSON: {error}") }.into())
}

/// A specification as it was written: what is wrong in it, the daemon says.
fn read_spec(file: &Path) -> Result<String, Trouble> {
    let opened: io::Result<Box<dyn Read>> = if file == Path::new("-") {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(file).map(|file| Box::new(file) as _)
    };
    let mut text = String::new();
    opened
        .and_then(|from| from.take(SPECIFICATION_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|source| file_trouble(file, "can't read the specification", source))?;
    if text.len() as u64 > SPECIFICATION_BYTES_MAX {
        return Err(usage(format!("--spec: more than {SPECIFICATION_BYTES_MAX} bytes are no specification")));
    }
    Ok(text)
}

fn specification(args: &CreateArgs) -> Result<JobSpec, Trouble> {
    let side = |export: Option<&OsStr>, role: &str, namespace: &Option<String>, zone: &Option<String>| {
        let export = absolute(export.unwrap_or_default(), role)?;
        Ok::<_, Trouble>(Side { export, network_namespace: namespace.clone(), availability_zone: zone.clone() })
    };
    let PlaceArgs { source_namespace, source_zone, destination_namespace, destination_zone, .. } = &args.place;
    let mut spec = JobSpec::new(args.kind.into(), "", "");
    spec.source = side(args.source.as_deref(), "SRC", source_namespace, source_zone)?;
    spec.destination = side(args.destination.as_deref(), "DST", destination_namespace, destination_zone)?;
    what(args, &mut spec)?;
    when(&args.timing, &mut spec)?;
    whose(&args.place, &mut spec)?;
    Ok(spec)
}

/// What is done, and with what.
fn what(args: &CreateArgs, spec: &mut JobSpec) -> Result<(), Trouble> {
    let (deletions, proof) = (&args.deletions, &args.proof);
    convert::keep(deletions.trash.as_deref())?;
    spec.delete = deletions.delete;
    spec.keep_extra = deletions.keep_extra;
    spec.allow_empty_source = deletions.allow_empty_source;
    spec.max_delete = deletions.max_delete;
    spec.trash.clone_from(&deletions.trash);
    spec.max_passes = args.max_passes;
    spec.verify = proof.verify.into();
    spec.provisioning = proof.provision.into();
    spec.backend = args.pace.backend.into();
    spec.accept_loss = convert::accepted(&proof.accept_loss)?;
    spec.strict = proof.strict;
    spec.filters = filters(&convert::filters(&args.scope.filter)?)?;
    spec.one_file_system = args.scope.one_file_system;
    let worker::Ids { users, groups } = convert::ids(&args.ids)?;
    spec.id_map = Ids { users, groups };
    let entries = args.scope.max_dir_entries;
    spec.limits = Limits {
        bytes_per_s: convert::rate(args.pace.bwlimit.as_deref())?,
        window: args.timing.window.clone(),
        file_bytes: convert::size("--max-size", proof.max_size.as_deref())?,
        file_allocated_bytes: convert::size("--max-allocated", proof.max_allocated.as_deref())?,
        directory_entries: (entries != DIRECTORY_ENTRIES_MAX).then_some(entries),
    };
    spec.timeout_s = convert::timeout(args.pace.timeout.as_deref())?.map(|time| time.as_secs());
    Ok(())
}

fn when(timing: &TimingArgs, spec: &mut JobSpec) -> Result<(), Trouble> {
    spec.priority = timing.priority.unwrap_or(spec.priority);
    spec.schedule.clone_from(&timing.schedule);
    spec.rpo_s = seconds("--rpo", timing.rpo.as_deref())?;
    spec.cutover_deadline_s = seconds("--cutover-deadline", timing.cutover_deadline.as_deref())?;
    Ok(())
}

fn whose(place: &PlaceArgs, spec: &mut JobSpec) -> Result<(), Trouble> {
    spec.cutover = place.cutover.into();
    spec.group.clone_from(&place.group);
    if let Some(project) = &place.project {
        spec.project.clone_from(project);
    }
    spec.labels = pairs("--label", &place.labels)?;
    spec.private_data = pairs("--private-data", &place.private_data)?;
    Ok(())
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Migrate => Self::Migrate,
            KindWord::Replicate => Self::Replicate,
            KindWord::Verify => Self::Verify,
            KindWord::Restore => Self::Restore,
        }
    }
}

impl From<CutoverWord> for Cutover {
    fn from(word: CutoverWord) -> Self {
        match word {
            CutoverWord::Wait => Self::Wait,
            CutoverWord::Auto => Self::Auto,
        }
    }
}

/// A path of the daemon's machine. What looks like a share goes there as it is: the daemon says whether it can.
fn absolute(path: &OsStr, role: &str) -> Result<String, Trouble> {
    let text = path
        .to_str()
        .ok_or_else(|| usage(format!("{role} {}: a job's roots are UTF-8", escape(path.as_encoded_bytes()))))?;
    if text.is_empty() || text == "-" || text.starts_with('.') {
        return Err(usage(format!("{role} {} is no absolute path on the daemon's machine", escape(text.as_bytes()))));
    }
    Ok(text.to_owned())
}

/// The rules as the API takes them. It takes text only, which every pattern is that can be typed into JSON.
fn filters(from: &worker::Filters) -> Result<Filters, Trouble> {
    let lines = |flag: &str, lines: &[Line]| {
        let text = |line: &Line| match line {
            Line::Text(text) => Ok(text.clone()),
            Line::Coded(_) => Err(usage(format!("{flag}: a job's patterns and names are UTF-8"))),
        };
        lines.iter().map(text).collect::<Result<Vec<_>, Trouble>>()
    };
    Ok(Filters {
        rules: lines("--exclude, --include", &from.rules)?,
        files_from: from.files_from.as_deref().map(|list| lines("--files-from", list)).transpose()?,
    })
}

/// A duration in whole seconds.
pub(super) fn seconds(flag: &str, text: Option<&str>) -> Result<Option<u64>, Trouble> {
    let time = text.map(parse_duration).transpose();
    Ok(time
        .map_err(|error| usage(format!("{flag}: {}", escape(error.to_string().as_bytes()))))?
        .map(|time| time.as_secs()))
}

fn pairs(flag: &str, words: &[String]) -> Result<BTreeMap<String, String>, Trouble> {
    let mut map = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(usage(format!("{flag}: {} is no KEY=VALUE", escape(word.as_bytes()))));
        };
        if map.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("{flag}: {} is given twice", escape(key.as_bytes()))));
        }
    }
    Ok(map)
}

pub(super) fn usage(what: String) -> Trouble {
    Error::Usage { what, remedy: "`copyd job create --help` shows what each flag takes" }.into()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::JobVerb;
    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn of(words: &[&str]) -> Result<JobSpec, Trouble> {
        let all = ["copyd", "job", "create"].iter().chain(words);
        match Cli::try_parse_from(all).unwrap().verb {
            Verb::Job { verb: JobVerb::Create(args), .. } => specification(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_a_job_is_the_default_of_the_form() {
        assert_eq!(of(&["/a", "/b"]).unwrap(), JobSpec::new(Kind::Migrate, "/a", "/b"));
        for kind in [Kind::Migrate, Kind::Replicate, Kind::Verify, Kind::Restore] {
            let spec = of(&["--kind", kind.word(), "/a", "/b"]).unwrap();
            assert_eq!(spec.check(), Ok(()), "{}", kind.word());
        }
    }

    #[test]
    fn every_flag_arrives_in_its_field() {
        let spec = of(&[
            "--kind=replicate",
            "--delete",
            "--allow-empty-source",
            "--max-delete=7",
            "--trash=30d",
            "--provision=thick",
            "--max-size=1M",
            "--max-allocated=2M",
            "--verify=full",
            "--accept-loss=owner,acl",
            "--strict",
            "--exclude=*.o",
            "--include=k",
            "-x",
            "--max-dir-entries=9",
            "--usermap=1:2",
            "--groupmap=3:4",
            "--backend=threads",
            "--bwlimit=10M",
            "--timeout=5m",
            "--priority=80",
            "--window=22:00-06:00",
            "--schedule=every 15m",
            "--rpo=1h",
            "--project=p",
            "--label=a=b=c",
            "--private-data=k=",
            "--source-namespace=n",
            "--destination-namespace=m",
            "--source-zone=z",
            "--destination-zone=y",
            "/a",
            "/b",
        ])
        .unwrap();
        let expected = r#"{"schema":1,"kind":"replicate",
            "source":{"export":"/a","network_namespace":"n","availability_zone":"z"},
            "destination":{"export":"/b","network_namespace":"m","availability_zone":"y"},
            "verify":"full","delete":true,"allow_empty_source":true,"max_delete":7,"trash":"30d",
            "filters":{"rules":["- *.o","+ k"]},"one_file_system":true,"id_map":{"users":"1-1:2","groups":"3-3:4"},
            "provisioning":"thick","backend":"threads",
            "limits":{"bytes_per_s":10485760,"window":"22:00-06:00","file_bytes":1048576,
                      "file_allocated_bytes":2097152,"directory_entries":9},
            "priority":80,"schedule":"every 15m","rpo_s":3600,"project":"p","labels":{"a":"b=c"},
            "private_data":{"k":""},"accept_loss":["owner","acl"],"strict":true,"timeout_s":300}"#;
        assert_eq!(spec, serde_json::from_str(expected).unwrap());
        let spec =
            of(&["--max-passes=3", "--cutover=auto", "--cutover-deadline=10m", "--keep-extra", "/a", "/b"]).unwrap();
        assert_eq!((spec.max_passes, spec.cutover, spec.cutover_deadline_s), (Some(3), Cutover::Auto, Some(600)));
        assert!(spec.keep_extra);
        assert_eq!(of(&["--group=g", "/a", "/b"]).unwrap().group.as_deref(), Some("g"));
    }

    #[test]
    fn what_has_no_form_is_refused_here_with_the_flag() {
        for (words, named) in [
            (&["./a", "/b"][..], "SRC ./a"),
            (&["/a", "-"][..], "DST -"),
            (&["--rpo=soon", "/a", "/b"][..], "--rpo"),
            (&["--label=x", "/a", "/b"][..], "--label"),
            (&["--label==x", "/a", "/b"][..], "--label"),
            (&["--label=a=1", "--label=a=2", "/a", "/b"][..], "given twice"),
            (&["--bwlimit=fast", "/a", "/b"][..], "--bwlimit"),
            (&["--trash=0", "/a", "/b"][..], "--trash"),
        ] {
            let trouble = of(words).unwrap_err();
            assert!(trouble.to_string().contains(named), "{words:?}: {trouble}");
            assert_eq!(trouble.exit_code(), ExitCode::Usage);
        }
    }
}
