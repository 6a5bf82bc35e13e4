//! A panic anywhere is exit 2 with a message, never a hang and never another code.
//!
//! The main thread unwinds to [`super::main`] (or to the worker, which still says its summary). A
//! panic in any other thread ends the process at once: the threads that wait for it would wait for
//! ever. That is as safe as a kill, because a final name never holds a torn object.

use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};

use super::output::Reporter;
use crate::error::{Error, ExitCode};
use crate::worker::{Emitter, escape};

/// Says what is to be said of a panic before the process ends, without waiting for anyone.
pub trait Speaker: Send + Sync {
    fn remark(&self, text: &str);
    fn last_words(&self, error: &Error);
}

impl Speaker for Reporter {
    fn remark(&self, text: &str) {
        self.note(text);
    }

    fn last_words(&self, error: &Error) {
        Self::last_words(self, error);
    }
}

impl Speaker for Emitter {
    fn remark(&self, text: &str) {
        eprint_lossy(text);
    }

    fn last_words(&self, error: &Error) {
        Self::last_words(self, error);
    }
}

static SPEAKER: OnceLock<Arc<dyn Speaker>> = OnceLock::new();

/// Makes `speaker` print the last words of a process that a panic ends.
pub fn speak_through(speaker: Arc<dyn Speaker>) {
    // A process has one run; of two, the first speaks.
    let _ = SPEAKER.set(speaker);
}

/// Installs the hook.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let text = describe(info);
        match SPEAKER.get() {
            Some(speaker) => speaker.remark(&text),
            None => eprint_lossy(&text),
        }
        if std::thread::current().name() != Some("main") {
            if let Some(speaker) = SPEAKER.get() {
                let what = info.payload_as_str().unwrap_or("no message").to_owned();
                speaker.last_words(&Error::Internal { what });
            }
            signal_hook::low_level::exit(i32::from(ExitCode::Internal as u8));
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!(
        "internal error: {} (at {place})\n  help: please report it with the command and the log; the destination holds \
         only whole files",
        escape(what.as_bytes())
    )
}

/// `eprintln!` panics where stderr is closed, and a panic inside the hook would abort.
fn eprint_lossy(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "copyd: {text}");
}
