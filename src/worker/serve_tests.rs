//! Commands are obeyed, the end of commands too, and whatever happens the summary is the last line.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;

/// What a worker has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn last(&self) -> Value {
        let last = self.lines().pop().unwrap();
        assert_eq!(last["event"], "summary");
        last
    }
}

fn commands() -> (io::BufReader<PipeReader>, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (io::BufReader::new(reader), writer)
}

/// Waits as the engine does, and ends as a stopped run may.
fn until_stopped(stop: &Stop) -> Result<Summary, Error> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !stop.requested() {
        assert!(Instant::now() < deadline, "nobody asked for a stop");
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(Error::Guard { what: "ended early".into(), remedy: "none" })
}

#[test]
fn a_cancel_and_the_end_of_commands_both_ask_for_a_stop_and_end_with_20() {
    for closes in [false, true] {
        let written = Written::default();
        let (reader, mut writer) = commands();
        let worker = Worker::new(written.clone());
        if !closes {
            writer.write_all(b"\n{\"command\":\"cancel\"}\n").unwrap();
        }
        let writer = (!closes).then_some(writer);
        let exit = worker.attend(reader, |_, _, stop| until_stopped(stop));
        drop(writer);
        assert_eq!(exit, ExitCode::Stopped);
        assert_eq!(written.last()["outcome"], "cancelled");
    }
}

#[test]
fn an_unknown_command_is_said_to_be_unknown_and_stops_nothing() {
    let written = Written::default();
    let (reader, mut writer) = commands();
    writer.write_all(b"{\"command\":\"dance\"}\nno JSON\x1b\n{\"command\":\"cancel\"}\n").unwrap();
    Worker::new(written.clone()).attend(reader, |_, _, stop| until_stopped(stop));
    let lines = written.lines();
    let unknown: Vec<_> = lines.iter().filter(|line| line["event"] == "unknown_command").collect();
    assert_eq!(unknown.len(), 2, "{lines:?}");
    assert_eq!(unknown[0]["command"], "{\"command\":\"dance\"}");
    assert_eq!(unknown[1]["command"], "no JSON\\#033");
}

#[test]
fn a_worker_gives_a_sign_of_life_at_least_once_a_second_and_says_how_long_nothing_moved() {
    let written = Written::default();
    let (reader, _writer) = commands();
    Worker::new(written.clone()).attend(reader, |_, _, _| {
        std::thread::sleep(Duration::from_millis(3300));
        Err(Error::DeletionLimit { wanted: 2, limit: 1 })
    });
    let lines = written.lines();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert!(of("progress") >= 3, "{lines:?}");
    let stall = lines.iter().find(|line| line["event"] == "stall").expect("nothing moved");
    assert_eq!((&stall["side"], stall["seconds"].as_u64()), (&Value::Null, Some(2)), "{stall}");
    assert_eq!(written.last()["exit_code"], 25);
}

#[test]
fn a_panic_of_the_engine_is_an_internal_error_with_a_summary() {
    let written = Written::default();
    let (reader, _writer) = commands();
    let exit = Worker::new(written.clone()).attend(reader, |_, _, _| panic!("a defect"));
    assert_eq!(exit, ExitCode::Internal);
    assert_eq!(written.last()["error"]["class"], "internal");
}

#[test]
fn a_specification_that_is_refused_ends_with_1_and_a_summary() {
    for text in ["", "{}\n", "{\"schema\":1}\n"] {
        let written = Written::default();
        let mut input = io::BufReader::new(text.as_bytes());
        let specification = read_specification(&mut input);
        let exit = Worker::new(written.clone()).run(specification, io::BufReader::new(io::empty()));
        assert_eq!(written.last()["error"]["class"], "usage", "{text}");
        // The end of the commands is a cancel, which counts for more only where something was to be stopped.
        assert_eq!(exit, ExitCode::Usage, "{text}");
    }
}
