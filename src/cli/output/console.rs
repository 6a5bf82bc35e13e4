//! The two streams: results on stdout, everything else on stderr, and the progress line between.
//!
//! A closed stdout (`copyd … | head`) ends the printing, never the run: what was asked for is the
//! copy. The progress line is taken off the terminal while another line is printed there.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::limits::PROGRESS_HZ;

/// Writes whole lines until the reader has gone, and then nothing.
#[derive(Debug)]
struct Lines<W: Write> {
    to: W,
    closed: bool,
}

impl<W: Write> Lines<W> {
    fn line(&mut self, text: &str) {
        self.attempt(|to| to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")));
    }

    fn flush(&mut self) {
        self.attempt(W::flush);
    }

    /// EPIPE, or whatever else makes output impossible, must not stop a copy.
    fn attempt(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if !self.closed && write(&mut self.to).is_err() {
            self.closed = true;
        }
    }
}

/// Where a run prints. Shared by the data threads' events, the ticker and the signal thread.
#[derive(Debug)]
pub struct Console {
    json: bool,
    out: Mutex<Lines<BufWriter<io::Stdout>>>,
    out_terminal: bool,
    bar: Option<ProgressBar>,
    /// False once the bar is off the terminal for good: it must not be drawn again by a later line.
    drawing: AtomicBool,
}

impl Console {
    /// `json` sends people's text to stderr, and leaves stdout to the events.
    pub fn new(json: bool) -> Self {
        let capable = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            json,
            out: Mutex::new(Lines { to: BufWriter::new(io::stdout()), closed: false }),
            out_terminal: io::stdout().is_terminal(),
            bar: (io::stderr().is_terminal() && capable).then(bar),
            drawing: AtomicBool::new(true),
        }
    }

    /// Whether a progress line is drawn.
    pub const fn draws(&self) -> bool {
        self.bar.is_some()
    }

    /// A line of the result: stdout for people, stderr where stdout carries JSON.
    pub fn say(&self, text: &str) {
        if self.json {
            self.note(text);
        } else {
            self.print(text);
        }
    }

    /// A line on stdout. It may stay in the buffer until [`Self::flush`]; a terminal sees it at once.
    pub fn print(&self, text: &str) {
        let write = || {
            let mut out = self.lock();
            out.line(text);
            if self.out_terminal {
                out.flush();
            }
        };
        match self.drawn() {
            Some(bar) if self.out_terminal => bar.suspend(write),
            _ => write(),
        }
    }

    /// A line on stderr.
    pub fn note(&self, text: &str) {
        let write = || {
            // Whoever closed stderr does not want to know.
            let _ = writeln!(io::stderr().lock(), "{text}");
        };
        match self.drawn() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub fn draw(&self, line: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(line);
        }
    }

    /// Draws no more. The last line stays above what is printed next.
    pub fn finish_drawing(&self, line: Option<&str>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.drawing.store(false, Ordering::Relaxed);
            if let Some(line) = line {
                self.note(line);
            }
        }
    }

    pub fn flush(&self) {
        self.lock().flush();
    }

    /// Prints a last line on stdout if nobody holds the stream: the process is about to end at once,
    /// and waiting for a thread that may hang would defeat that.
    pub fn print_if_free(&self, text: &str) {
        if let Ok(mut out) = self.out.try_lock() {
            out.line(text);
            out.flush();
        }
    }

    fn drawn(&self) -> Option<&ProgressBar> {
        self.bar.as_ref().filter(|_| self.drawing.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Lines<BufWriter<io::Stdout>>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(PROGRESS_HZ));
    // The template is a constant; were it wrong, the default style would still draw the message.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closing {
        room: usize,
        calls: usize,
    }

    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_the_reader_has_gone_nothing_is_written_any_more() {
        let mut lines = Lines { to: Closing { room: 4, calls: 0 }, closed: false };
        lines.line("abcdef");
        let calls = lines.to.calls;
        lines.line("ghi");
        lines.flush();
        assert!(lines.closed);
        assert_eq!(lines.to.calls, calls);
    }
}
