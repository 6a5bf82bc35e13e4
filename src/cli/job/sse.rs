//! Server-sent events, read piece by piece (WHATWG HTML, "server-sent events", 9.2.6).
//!
//! Pure: bytes come in as the connection gives them, whole events go out. A line without end, which only a
//! server gone wrong sends, is an error and not memory.

use crate::limits::SSE_LINE_BYTES_MAX;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Where to go on after it; none for an event that is not kept.
    pub id: Option<String>,
    /// Its type, `message` where it says none.
    pub kind: String,
    pub data: String,
}

/// A line, or the data of one event, is longer than any that copyd sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {SSE_LINE_BYTES_MAX} bytes")]
pub struct TooLong;

/// What was read and is no whole event yet.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The line end before was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    id: Option<String>,
    kind: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Takes more bytes, and gives the events that they complete.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let joined = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if joined => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_of_line(&String::from_utf8_lossy(&line)));
                }
                _ if self.line.len() >= SSE_LINE_BYTES_MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
            if self.data.len() > SSE_LINE_BYTES_MAX {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment (nothing before the colon), `retry`, and what this version does not know.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let Self { id, kind, data, has_data, .. } = self;
        let event = Event { id: id.take(), kind: std::mem::take(kind), data: std::mem::take(data) };
        if !std::mem::take(has_data) {
            return None;
        }
        let kind = if event.kind.is_empty() { "message".into() } else { event.kind };
        Some(Event { kind, ..event })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: Option<&str>, kind: &str, data: &str) -> Event {
        Event { id: id.map(Into::into), kind: kind.into(), data: data.into() }
    }

    #[test]
    fn events_comments_and_fields_read_as_the_standard_has_them() {
        let text = ": alive\n\nid: 7\nevent: state_changed\ndata: {\"a\":1}\n\nevent:progress\ndata:x\ndata: y\n\nid: 9\n\n\
                    retry: 10\ndata\n\n";
        assert_eq!(
            Parser::default().feed(text.as_bytes()).unwrap(),
            [
                event(Some("7"), "state_changed", "{\"a\":1}"),
                event(None, "progress", "x\ny"),
                event(None, "message", "")
            ]
        );
    }

    #[test]
    fn a_half_event_is_none() {
        let mut parser = Parser::default();
        assert!(parser.feed(b"data: x\n").unwrap().is_empty());
        assert_eq!(parser.feed(b"\n").unwrap().len(), 1);
    }

    #[test]
    fn a_line_and_an_event_without_end_are_errors() {
        assert_eq!(Parser::default().feed(&vec![b'a'; SSE_LINE_BYTES_MAX + 1]), Err(TooLong));
        let mut parser = Parser::default();
        let mut lines = [&b"data: "[..], &[b'a'; 1000], b"\n"].concat();
        lines = lines.repeat(SSE_LINE_BYTES_MAX / 1000 + 2);
        assert_eq!(parser.feed(&lines), Err(TooLong));
    }

    fn ending() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("\n"), Just("\r\n"), Just("\r")]
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_events_are_the_same(
            events in proptest::collection::vec((proptest::option::of("[0-9]{1,4}"), "[a-z_]{1,9}", "[^\r\n]{0,40}"), 0..6),
            end in ending(),
            cut in 1_usize..9,
        ) {
            let mut text = String::new();
            for (id, kind, data) in &events {
                for line in [id.as_ref().map(|id| format!("id: {id}")), Some(format!("event: {kind}")), Some(format!("data: {data}")), Some(String::new())].into_iter().flatten() {
                    text.push_str(&line);
                    text.push_str(end);
                }
            }
            let expected: Vec<_> = events.iter().map(|(id, kind, data)| event(id.as_deref(), kind, data)).collect();
            prop_assert_eq!(Parser::default().feed(text.as_bytes()).unwrap(), expected.clone());
            let mut parser = Parser::default();
            let pieces: Vec<Event> = text.as_bytes().chunks(cut).flat_map(|piece| parser.feed(piece).unwrap()).collect();
            prop_assert_eq!(pieces, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Parser::default().feed(&bytes);
        }
    }
}
