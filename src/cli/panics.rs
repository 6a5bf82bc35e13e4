//! A panic anywhere is exit 2 with a message, never a hang and never another code.
//!
//! The main thread unwinds to [`super::main`] (or to the run, which still prints its summary). A
//! panic in any other thread ends the process at once: the threads that wait for it would wait for
//! ever. That is as safe as a kill, because a final name never holds a torn object.

use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};

use super::output::{Reporter, escape};
use crate::error::ExitCode;

static REPORTER: OnceLock<Arc<Reporter>> = OnceLock::new();

/// Makes `reporter` print the last words of a process that a panic ends.
pub fn speak_through(reporter: Arc<Reporter>) {
    // A process has one run; of two, the first speaks.
    let _ = REPORTER.set(reporter);
}

/// Installs the hook.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let text = describe(info);
        match REPORTER.get() {
            Some(reporter) => reporter.remark(&text),
            None => eprint_lossy(&text),
        }
        if std::thread::current().name() != Some("main") {
            if let Some(reporter) = REPORTER.get() {
                reporter.last_words(ExitCode::Internal);
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
