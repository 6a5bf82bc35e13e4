//! The door for fuzzing: one function a parser, from bytes that anybody may have chosen.
//!
//! Everything that copyd reads and did not write itself a moment ago comes through one of these: the
//! command line and the files that it names, a manifest, the state directory, the trash, attributes
//! that a server shows. Each function parses, and holds the outcome to what its callers rely on; what
//! it finds is a panic. The targets in `fuzz/` are these functions and nothing else, and a test runs
//! the checked-in examples through them in every run of the gate. No other code uses this module.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::cli;
use crate::daemon::link;
use crate::fidelity::{self, IdMap, LossClass};
use crate::hash::manifest;
use crate::job::{JobPatch, JobSpec, Schedule, Window};
use crate::limits::SIZE_BYTES_MAX;
use crate::pass;
use crate::store;
use crate::tree::filter::{Descend, Ending, FilesFrom, Filter, Sense, Verdict};
use crate::units;
use crate::worker::{Command, Report, Specification, escape};

/// A parser under a name, which is that of its target and of its directory of examples.
pub type Target = (&'static str, fn(&[u8]));

/// Every parser that has a target.
pub const TARGETS: &[Target] = &[
    ("attributes", attributes),
    ("filter", filter),
    ("id_maps", id_maps),
    ("job", job),
    ("link", link),
    ("location", location),
    ("manifest", manifest),
    ("records", records),
    ("trash", trash),
    ("units", units),
    ("wire", wire),
];

/// Between the parts of an input that has several: seldom part of a name, and no line end.
const PART: u8 = 1;

/// The parts of an input; those that it lacks are empty.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == PART);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Extended attributes and access control lists.
///
/// # Panics
/// Where a promise of the parser does not hold.
pub fn attributes(data: &[u8]) {
    fidelity::fuzzing::attributes(data);
}

/// Filter rules, a list of files and paths that are held against both: three parts. A leading NUL asks
/// for entries that end with one.
///
/// # Panics
/// Where a directory that is not entered has something in scope, or a rule's text means another rule
/// when it is read again.
pub fn filter(data: &[u8]) {
    let (ending, data) = match data {
        [0, rest @ ..] => (Ending::Nul, rest),
        rest => (Ending::Newline, rest),
    };
    let [rules, list, paths] = parts(data);
    let Ok(builder) = Filter::builder().add_from(Sense::Exclude, rules, ending) else { return };
    let mut filter = builder.build();
    if !list.is_empty() {
        let Ok(list) = FilesFrom::parse(list, ending) else { return };
        filter = filter.with_files_from(list);
    }
    let _ = (filter.canonical(), filter.names_root());
    assert_eq!(filter.decide(b"", true), Verdict::Keep, "the root is in scope");
    for path in paths.split(|byte| *byte == b'\n').filter(|path| clean(path)) {
        let closed = filter.descend(path) == Descend::No;
        let below = [path, b"/x"].concat();
        for is_directory in [false, true] {
            let _ = filter.decide(path, is_directory);
            let skipped = filter.decide(&below, is_directory) == Verdict::Skip;
            assert!(!closed || skipped, "{} is in scope, and nobody comes by it", below.escape_ascii());
        }
    }
}

/// Whether the walk could have come by this path.
fn clean(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

/// `--usermap`, `--groupmap` and `--chown`: three parts.
///
/// # Panics
/// Where what a map means is not what it means when it is written out and read again.
pub fn id_maps(data: &[u8]) {
    let texts = parts::<3>(data).map(std::str::from_utf8);
    let [Ok(users), Ok(groups), Ok(chown)] = texts else { return };
    let Ok(map) = IdMap::parse(some(users), some(groups), some(chown)) else { return };
    let written = map.canonical();
    let part = |name: &str| written.split(';').find_map(|part| part.strip_prefix(name));
    let again = IdMap::parse(part("users="), part("groups="), None);
    assert_eq!(again.ok(), Some(map.clone()), "{written} is the same map");
    assert_eq!((map.uid(u32::MAX), map.gid(u32::MAX)), (u32::MAX, u32::MAX), "all ones names nobody");
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// What a caller asks of the daemon: a specification, a change to it, and the times in both: two parts.
///
/// # Panics
/// Where a specification that was taken is refused when it is written out and read again, or a change makes of
/// it one that would be.
pub fn job(data: &[u8]) {
    let [text, change] = parts::<2>(data);
    if let Ok(text) = std::str::from_utf8(text) {
        if let Ok(window) = text.parse::<Window>() {
            let _ = (window.at(0), window.at(1_770_000_000_000), window.at(u64::MAX));
        }
        if let Ok(schedule) = text.parse::<Schedule>() {
            assert!(schedule.next_ms(7, 0) > 7, "it goes on");
        }
    }
    let change = JobPatch::parse(change);
    match JobSpec::parse(text) {
        Ok(specification) => {
            taken_again(&specification);
            if let Ok(Ok(changed)) = change.map(|change| specification.patched(&change)) {
                taken_again(&changed);
                assert_eq!(changed.source, specification.source, "a change is to what may be changed");
            }
        }
        Err(refused) => assert!(!refused.what.is_empty() && !refused.remedy.is_empty(), "{refused:?}"),
    }
}

fn taken_again(specification: &JobSpec) {
    let text = serde_json::to_vec(specification).unwrap_or_default();
    assert_eq!(JobSpec::parse(&text).as_ref(), Ok(specification), "it is the same when it is read again");
    for (side, name) in [(&specification.source, "source"), (&specification.destination, "destination")] {
        assert!(side.path(name).is_ok_and(|path| path.is_absolute()), "{side:?}");
    }
}

/// SRC and DST, and the escaping of what is said of them.
///
/// # Panics
/// Where a path is taken for another one, or a control byte reaches a terminal.
pub fn location(data: &[u8]) {
    match cli::location::local(OsStr::from_bytes(data), "SRC") {
        Ok(path) => {
            assert_eq!(path.as_os_str().as_bytes(), data, "a path is taken as it is");
            assert!(data.starts_with(b"/") || data.starts_with(b"."), "a bare word is no path");
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{:?}", error.to_string()),
    }
    let shown = escape(data);
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(unescaped(&shown), data, "{shown:?} says which bytes it stands for");
}

/// The bytes that an escaped name stands for: `\#ooo` is one byte, all else is itself.
fn unescaped(shown: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), shown.as_bytes());
    while let [first, tail @ ..] = rest {
        let mark = match rest {
            [b'\\', b'#', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..] => {
                let digit = |byte: &u8| u32::from(byte - b'0');
                u8::try_from(digit(a) * 64 + digit(b) * 8 + digit(c)).ok().map(|byte| (byte, after))
            }
            _ => None,
        };
        let (byte, after) = mark.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// A line between the daemon and its spawner, either way, and a worker's line that is sent on there.
///
/// # Panics
/// Where a line means another one when it is written again, or what a worker says passes for its spawner's.
pub fn link(data: &[u8]) {
    fn again<T: serde::Serialize + for<'de> serde::Deserialize<'de>>(line: &[u8]) {
        let Ok(Some(found)) = link::read::<T>(&mut &*line) else { return };
        let mut written = Vec::new();
        let there = link::write(&mut written, &found).and_then(|()| link::read::<T>(&mut written.as_slice()));
        let [before, after] = [Some(found), there.ok().flatten()].map(|line| serde_json::to_value(line).ok());
        assert_eq!(before, after, "the line says what it said");
    }
    let mut line = data.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
    let said = String::from_utf8_lossy(&line).into_owned();
    line.push(b'\n');
    again::<link::Request>(&line);
    again::<link::Reply>(&line);
    let run = uuid::Uuid::from_u128(7);
    let report = Report::parse(&said).unwrap_or(Report::Note { text: said.clone().into() });
    let sent = link::event_line(run, &said, &report);
    assert_eq!(sent.iter().position(|byte| *byte == b'\n'), Some(sent.len() - 1), "one line stays one");
    let heard = link::read::<link::Reply>(&mut sent.as_slice());
    assert!(matches!(heard, Ok(Some(link::Reply::Event { run: of, .. })) if of == run), "{heard:?} of {said:?}");
}

/// Lines of a manifest, in either form.
///
/// # Panics
/// Where a path leads out of its root, or a line means another entry when it is written again.
pub fn manifest(data: &[u8]) {
    manifest::fuzzing::lines(data);
}

/// What the state directory holds: rows of a catalog, records of large files, and the mounts by which
/// a root is known. The first byte says which.
///
/// # Panics
/// Where a row means another one when it is written again.
pub fn records(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    match which % 3 {
        0 => store::fuzzing::row(data),
        1 => store::fuzzing::growing(data),
        _ => store::fuzzing::mounts(data),
    }
}

/// Names and records of what the trash keeps: the first line is a name.
///
/// # Panics
/// Where a name or a line means another one when it is written again.
pub fn trash(data: &[u8]) {
    pass::trash::fuzzing::generation(data);
}

/// Sizes, rates, durations and classes of loss, as flags take them.
///
/// # Panics
/// Where a value is out of its bounds, or is another one when it is written again.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(size) = units::parse_size(text) {
        assert!(size <= SIZE_BYTES_MAX, "{size} is within the bound");
        assert_eq!(units::parse_size(&size.to_string()), Ok(size));
        assert_eq!(units::grouped(size).replace(',', ""), size.to_string());
    }
    if let Ok(rate) = units::parse_rate(text) {
        assert!(rate.is_none_or(|rate| rate <= SIZE_BYTES_MAX && rate > 0), "{rate:?} is within the bound");
    }
    if let Ok(time) = units::parse_duration(text) {
        assert_eq!(units::parse_duration(&format!("{}s", time.as_secs())), Ok(time));
        let _ = (units::clock(time), units::rate(u64::MAX, time));
    }
    if let Ok(class) = text.parse::<LossClass>() {
        assert_eq!(class.word(), text);
    }
}

/// A line between a worker and its supervisor, either way: a specification, an event, a command.
///
/// # Panics
/// Where what a line means is not what it means when it is written out and read again, or a control byte
/// would reach a terminal.
pub fn wire(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(specification) = Specification::parse(&text) {
        assert_eq!(Specification::parse(&specification.line()).ok(), Some(specification.clone()), "{specification:?}");
        if let Err(error) = specification.work(&crate::throttle::Throttle::new(None)) {
            assert!(!escape(error.to_string().as_bytes()).contains(char::is_control));
        }
    }
    if let Ok(report) = Report::parse(&text) {
        let line = report.line();
        assert!(!line.contains(char::is_control), "{line:?}");
        let again = Report::parse(&line).map(|report| report.line());
        assert_eq!(again.ok().as_deref(), Some(&*line), "the line says what it said");
    }
    if let Ok(command) = serde_json::from_str::<Command>(&text) {
        let line = serde_json::to_string(&command).unwrap_or_default();
        assert_eq!(serde_json::from_str(&line).ok(), Some(command), "{line}");
    }
}
