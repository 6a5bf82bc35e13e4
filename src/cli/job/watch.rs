//! `copyd job watch`: what happens to a job, as it happens, to its end.
//!
//! ```text
//! ask for the job ─► ended already? its code
//!        │
//!        └─► stream of events ──┬─ event ──► a line; a state that may be the end: ask for the job again
//!               ▲               ├─ progress ──► the line of a terminal, or a plain one every 30 s
//!               │               └─ the connection breaks
//!               └─ wait, connect again after the last event that was seen ◄┘
//! ```
//!
//! A stream begins with the whole history, in which a job may have failed and have been resumed. So an event never
//! ends the watching by itself: the job's own record does.

use std::time::Instant;

use uuid::Uuid;

use super::args::Until;
use super::client::Ask;
use super::show::{JobView, event_line, standing};
use super::sse::Event;
use super::trouble::Trouble;
use super::{Hand, path, printable};
use crate::cli::output::{Console, plain_line, progress_line};
use crate::error::{Error, ExitCode};
use crate::escape::escape;
use crate::job::{Job, State, StoredEvent, What};
use crate::limits::{PLAIN_LINE_EVERY, RECONNECT_AFTER, RECONNECT_AFTER_MAX, RECONNECT_FOR};
use crate::worker::{Stall, Standing};

/// What is shown of a job that is watched.
struct Watch<'a> {
    hand: &'a Hand,
    job: Uuid,
    until: Until,
    console: Console,
    /// The id of the last event that was printed.
    after: Option<String>,
    stall: Option<Stall>,
    /// When a plain line was last due.
    plain: Instant,
}

pub fn run(hand: &Hand, job: Uuid, until: Until) -> Result<ExitCode, Trouble> {
    let mut watch =
        Watch { hand, job, until, console: Console::new(hand.json), after: None, stall: None, plain: Instant::now() };
    let ended = hand.client.run(async {
        tokio::select! {
            ended = watch.follow() => ended,
            interrupted = tokio::signal::ctrl_c() => match interrupted {
                Ok(()) => Ok(None),
                Err(source) => Err(Error::Resources { what: "no descriptor to watch for signals", source }.into()),
            },
        }
    });
    watch.console.finish_drawing(None);
    watch.console.flush();
    let Some(view) = ended? else {
        watch.console.note("copyd: the watching ends here, the job goes on");
        return Ok(ExitCode::Stopped);
    };
    Ok(watch.end(&view))
}

impl Watch<'_> {
    /// Follows the job until it is where it was to be watched to.
    async fn follow(&mut self) -> Result<Option<JobView>, Trouble> {
        if let Some(view) = self.is_there().await? {
            return Ok(Some(view));
        }
        let (mut wait, mut broken_since) = (RECONNECT_AFTER, None::<Instant>);
        loop {
            let heard = self.after.clone();
            let trouble = match self.connection().await {
                Ok(Some(view)) => return Ok(Some(view)),
                // A daemon that stops ends its streams, and so does one whose record of the job is removed.
                Ok(None) => None,
                Err(trouble) if trouble.may_pass() => Some(trouble),
                Err(trouble) => return Err(trouble),
            };
            if heard != self.after {
                (wait, broken_since) = (RECONNECT_AFTER, None);
            }
            let since = *broken_since.get_or_insert_with(|| {
                self.console.note("copyd: the connection to the daemon broke; trying again");
                Instant::now()
            });
            if let Some(trouble) = trouble.filter(|_| since.elapsed() > RECONNECT_FOR) {
                return Err(trouble);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RECONNECT_AFTER_MAX);
        }
    }

    /// One connection, to its end or to the job's.
    async fn connection(&mut self) -> Result<Option<JobView>, Trouble> {
        let hand = self.hand;
        let mut stream = hand.client.follow(&path::of_job(self.job, "events"), self.after.as_deref()).await?;
        // What happened while there was no connection is in the stream; an end may have come before its first event.
        if self.after.is_some()
            && let Some(view) = self.is_there().await?
        {
            self.drain(&mut stream).await;
            return Ok(Some(view));
        }
        while let Some(events) = stream.next().await? {
            for event in &events {
                if self.hear(event)
                    && let Some(view) = self.is_there().await?
                {
                    return Ok(Some(view));
                }
            }
            self.console.flush();
        }
        Ok(None)
    }

    /// Prints what a stream holds already, so that the last events are not missing before the end.
    async fn drain(&mut self, stream: &mut super::client::Stream<'_>) {
        while let Ok(Ok(Some(events))) = tokio::time::timeout(RECONNECT_AFTER, stream.next()).await {
            for event in &events {
                self.hear(event);
            }
        }
    }

    /// The job, if it is where it was to be watched to.
    async fn is_there(&self) -> Result<Option<JobView>, Trouble> {
        let path = path::of_job(self.job, "");
        let view: JobView = self.hand.read(&self.hand.client.answer(&Ask::get(&path)).await?)?;
        Ok(reached(&view.job, self.until).then_some(view))
    }

    /// Shows an event, and tells whether the job may be where it was to be watched to.
    fn hear(&mut self, event: &Event) -> bool {
        if event.id.is_some() {
            self.after.clone_from(&event.id);
        }
        if self.hand.json {
            self.console.print(&printable(&event.data));
        }
        if event.kind == "progress" {
            if let Ok(standing) = serde_json::from_str::<Standing>(&event.data) {
                self.progress(&standing);
            }
            return false;
        }
        let Ok(stored) = serde_json::from_str::<StoredEvent>(&event.data) else {
            // Of a later version.
            self.line(&format!("event {}", escape(event.kind.as_bytes())));
            return false;
        };
        match &stored.event.what {
            What::Stall { side, operation, seconds } => {
                self.stall = Some(Stall { side: *side, operation: operation.clone(), seconds: *seconds });
            }
            What::StallOver { .. } => self.stall = None,
            _ => {}
        }
        self.line(&event_line(&stored));
        matches!(stored.event.what, What::StateChanged { to, .. } if to.is_final() || is_ready(to))
    }

    fn line(&self, text: &str) {
        if !self.hand.json {
            self.console.print(text);
        }
    }

    fn progress(&mut self, standing: &Standing) {
        if standing.still_s == 0 {
            self.stall = None;
        }
        if self.console.draws() {
            self.console.draw(progress_line(standing, self.stall.as_ref(), false));
        } else if self.plain.elapsed() >= PLAIN_LINE_EVERY {
            self.plain = Instant::now();
            self.console.note(&plain_line(standing, self.stall.as_ref()));
        }
    }

    /// The last words, and the job's code.
    fn end(&self, view: &JobView) -> ExitCode {
        let exit = exit_code(&view.job);
        self.console.note(&format!("copyd: job {}: {}", view.job.id, standing(view)));
        if let Some(failure) = view.job.failure.as_ref().filter(|_| view.job.state == State::Failed) {
            self.console.note(&format!("  help: {}", escape(failure.remedy.as_bytes())));
        }
        if view.job.state == State::Completed {
            self.console.note(&format!("  `copyd job report {}` says what was moved, proved and left", view.job.id));
        }
        exit
    }
}

const fn is_ready(state: State) -> bool {
    matches!(state, State::Ready | State::InSync)
}

/// Whether the job is where it was to be watched to.
fn reached(job: &Job, until: Until) -> bool {
    match until {
        Until::End => job.state.is_final(),
        // Whoever waits for a job to be ready has missed it where the job went on by itself.
        Until::Ready => job.state.is_final() || is_ready(job.state),
    }
}

/// The code of a run that ended as the job did; 0 for one that has not ended.
fn exit_code(job: &Job) -> ExitCode {
    let number = match (job.outcome, job.state, &job.failure) {
        (Some(end), ..) => end.exit_code,
        (None, State::Cancelled, _) => ExitCode::Stopped as u8,
        (None, State::Failed, Some(failure)) => failure.exit_code.unwrap_or(ExitCode::Internal as u8),
        (None, State::Failed, None) => ExitCode::Internal as u8,
        _ => ExitCode::Complete as u8,
    };
    ExitCode::of(number).unwrap_or(ExitCode::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Ending, Outcome};
    use crate::report::sample::migration;

    #[test]
    fn the_code_is_the_job_s() {
        let mut job = migration(b"a").job;
        assert_eq!(exit_code(&job), ExitCode::SomeFailed);
        job.outcome = Some(Ending { outcome: Outcome::Completed, exit_code: 99 });
        assert_eq!(exit_code(&job), ExitCode::Internal, "a number that is none of copyd's");
        (job.outcome, job.state) = (None, State::Cancelled);
        assert_eq!(exit_code(&job), ExitCode::Stopped);
        job.state = State::Failed;
        assert_eq!(exit_code(&job), ExitCode::Internal);
        job.state = State::Ready;
        assert_eq!(exit_code(&job), ExitCode::Complete);
    }

    #[test]
    fn every_final_state_ends_the_watching_and_ready_only_where_it_was_asked() {
        let mut job = migration(b"a").job;
        for state in State::ALL {
            job.state = state;
            assert_eq!(reached(&job, Until::End), state.is_final(), "{}", state.word());
            let ready = state.is_final() || matches!(state, State::Ready | State::InSync);
            assert_eq!(reached(&job, Until::Ready), ready, "{}", state.word());
        }
    }
}
