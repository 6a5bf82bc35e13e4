//! One run, with everything around its worker: log, signals, progress, last words.
//!
//! Order matters: the log is opened before anything starts, signals are watched before the worker is heard, and
//! the worker is gone, or given up, before the summary is printed, so that the summary is the last line.

use std::sync::Arc;

use super::output::{Console, Reporter, View, open_log};
use super::{panics, signals};
use crate::error::{Error, ExitCode};
use crate::worker::{Listener, Settings, Specification, Supervisor};

/// A request after parsing: the first line to print, and what is to be done.
#[derive(Debug)]
pub struct Request {
    pub headline: String,
    pub specification: Specification,
}

/// Carries out `prepared` and prints how it went. A request that could not be prepared ends with
/// the same last words as a run that the engine refused.
pub fn conduct(view: &View, prepared: Result<Request, Error>) -> ExitCode {
    let (log, prepared) = match (&view.log_file, prepared) {
        (Some(path), Ok(request)) => match open_log(path) {
            Ok(log) => (Some(log), Ok(request)),
            Err(error) => (None, Err(error)),
        },
        (_, prepared) => (None, prepared),
    };
    let settings = Settings { timeout: view.timeout, log: log.is_some(), ..Settings::default() };
    let reporter = Arc::new(Reporter::new(view.clone(), Console::new(view.json), log));
    let mut stopped = false;
    let result = prepared.and_then(|request| {
        reporter.headline(&request.headline);
        panics::speak_through(Arc::clone(&reporter) as _);
        let supervisor = Supervisor::start(&request.specification, &settings)?;
        // A list of files in it may be large.
        drop(request);
        let handle = supervisor.handle();
        let watch = signals::Watch::start(handle.clone(), Arc::clone(&reporter))?;
        let listener: Arc<dyn Listener> = Arc::clone(&reporter) as _;
        let verdict = supervisor.attend(&listener);
        drop(watch);
        stopped = handle.cancelling();
        Ok(verdict)
    });
    reporter.finish(result, stopped)
}
