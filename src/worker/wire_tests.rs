//! Lines go out as the contract says, and come back as they were.

use serde_json::Value;

use super::*;
use crate::error::EntryError;
use crate::sys::Kind;
use crate::tree::plan::{Change, Differences};

fn parse(line: &str) -> Value {
    assert!(!line.contains('\n'));
    assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
    serde_json::from_str(line).unwrap()
}

/// A line, and what a supervisor makes of it: the very same line.
fn line(report: &Report<'_>) -> String {
    let line = report.line();
    let back = Report::parse(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(back.line(), line);
    line
}

fn of(event: &Event<'_>) -> Value {
    parse(&line(&Report::from(event)))
}

fn word() -> LastWord {
    let mut identity = Identity::of("migrate", "readback", false);
    identity.job = Some(uuid::Uuid::from_u128(7).to_string());
    let mut word = LastWord::counted(&identity, &Standing::default(), ExitCode::Complete, None);
    word.lost.insert(LossClass::Owner, 12);
    word.unsettable = LossClass::ALWAYS.to_vec();
    word
}

#[test]
fn every_line_begins_with_the_event_and_the_schema() {
    assert_eq!(line(&Report::PassStarted { pass: 3 }), r#"{"event":"pass_started","schema":1,"pass":3}"#);
}

#[test]
fn a_name_that_is_not_utf8_is_name_b64_and_comes_back_as_its_bytes() {
    let value = of(&Event::Deleted { path: b"a/\xff", kind: Kind::File });
    assert_eq!(value["name_b64"], "YS//");
    assert!(value.get("name").is_none());
    let value = of(&Event::Deleted { path: b"a/b", kind: Kind::Directory });
    assert_eq!(value["name"], "a/b");
    assert!(value.get("name_b64").is_none());
    let back = Report::parse(&Report::from(&Event::Deleted { path: b"a/\xff", kind: Kind::File }).line()).unwrap();
    assert!(matches!(back, Report::Deleted { name, .. } if name.bytes() == b"a/\xff"));
}

#[test]
fn no_control_byte_leaves_raw_and_the_name_comes_back_whole() {
    let name = "esc\x1b nl\n del\x7f csi\u{9b}2J quote\" back\\ ü";
    let value = of(&Event::Compared { sign: '*', path: name.as_bytes(), what: "content" });
    assert_eq!(value["name"], name);
    assert_eq!(value["sign"], "*");
}

#[test]
fn a_failure_carries_class_side_cause_and_remedy() {
    let error = EntryError::io(Side::Source, "open", b"x".to_vec(), io::Error::from_raw_os_error(libc::EACCES));
    let value = of(&Event::EntryFailed(&error));
    assert_eq!(value["event"], "entry_failed");
    assert_eq!(value["class"], "permission");
    assert_eq!(value["side"], "source");
    assert_eq!(value["remedy"], Class::Permission.remedy());
    assert!(value["error"].as_str().unwrap().contains("Permission denied"));
}

#[test]
fn an_item_carries_rsyncs_eleven_characters() {
    let (action, differences) = (Action::Make { exists: false }, Differences::default());
    let change = Change { path: b"d/f".to_vec(), kind: Kind::File, action, differences };
    let value = of(&Event::Item(&change));
    assert_eq!(
        (&value["itemized"], &value["action"], &value["kind"]),
        (&">f+++++++++".into(), &"make".into(), &"file".into())
    );
}

#[test]
fn every_other_event_comes_back_as_it_went() {
    let (source, destination) = (std::path::Path::new("/a"), std::path::Path::new("/b"));
    let job = uuid::Uuid::from_u128(9);
    let events = [
        Event::Started { job, epoch: 4, kind: "sync", resumed: true, source, destination },
        Event::Backend { backend: "uring", readback: "direct", jobs: 4, reason: "as asked" },
        Event::Loss { class: LossClass::TimeGrain, path: b"x", detail: "2 s" },
        Event::Ignored { path: b"lost+found", why: "made by mkfs" },
        Event::Note("by the way"),
        Event::PassEnded { pass: 1, copied: 2, hot: 3, failed: 4 },
    ];
    for event in &events {
        of(event);
    }
    line(&Report::Progress(Standing { elapsed_s: 1.25, left_s: Some(3), ..Standing::default() }));
    line(&Report::Stall(Stall { side: None, operation: None, seconds: 7 }));
    line(&Report::UnknownCommand { command: "dance".into() });
}

#[test]
fn a_stall_says_who_does_not_answer_to_what_for_how_long() {
    let stall = Stall { side: Some(Side::Source), operation: Some("read".into()), seconds: 40 };
    assert_eq!(stall.to_string(), "no answer from source for 40 s (read)");
    let expected = r#"{"event":"stall","schema":1,"side":"source","operation":"read","seconds":40}"#;
    assert_eq!(line(&Report::Stall(stall)), expected);
}

#[test]
fn every_class_has_the_same_word_here_as_everywhere() {
    for class in LossClass::ALL {
        assert_eq!(serde_json::to_value(class).unwrap(), class.word());
        assert_eq!(serde_json::from_value::<LossClass>(class.word().into()).unwrap(), class);
    }
    for class in [Class::NoSpace, Class::TooLarge, Class::ReadOnly, Class::Io] {
        assert_eq!(serde_json::to_value(class).unwrap(), class.word());
    }
}

#[test]
fn the_summary_holds_every_field_of_the_contract() {
    let value = parse(&line(&Report::Summary(Box::new(word()))));
    let fields = "job outcome exit_code verify passes entries files_copied files_unchanged bytes_copied bytes_verified \
                  proved assumed deleted renamed hot failed ignored lost degraded share_digest metadata_digest backend \
                  readback elapsed_s kind dry_run unsettable vanished differing missing extra directories_created \
                  links_made metadata_updated";
    for field in fields.split_whitespace() {
        assert!(value.get(field).is_some(), "{field}");
    }
    assert_eq!(value["event"], "summary");
    assert_eq!(value["outcome"], "completed");
    assert_eq!(value["lost"]["owner"], 12);
    assert!(value.get("error").is_none());
}

#[test]
fn a_run_that_a_guard_refused_says_so_in_its_summary() {
    let error = Error::Guard { what: "the source is empty".into(), remedy: "mount it" };
    let identity = Identity::of("sync", "readback", false);
    let word = LastWord::counted(&identity, &Standing::default(), error.exit_code(), Some(Failure::of(&error)));
    let value = parse(&line(&Report::Summary(Box::new(word))));
    assert_eq!(value["outcome"], "refused");
    assert_eq!(value["exit_code"], 43);
    assert_eq!(value["job"], Value::Null);
    assert_eq!(value["error"]["class"], "guard");
    assert_eq!(value["error"]["message"], "the source is empty");
    assert_eq!(value["error"]["remedy"], "mount it");
}

#[test]
fn an_error_keeps_its_causes_in_printable_characters() {
    let source = Some(io::Error::from_raw_os_error(libc::ENOENT));
    let (path, what, remedy) = ("/srv/\x1b[2J".into(), "can't be opened", "check the path");
    let failure = Failure::of(&Error::Root { side: Side::Source, path, what, remedy, source });
    assert_eq!(failure.message, "source /srv/\\#033[2J: can't be opened");
    assert_eq!(failure.why, ["No such file or directory (os error 2)"]);
}
