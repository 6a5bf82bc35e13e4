//! What a job of the daemon is: what is asked, how it goes from state to state, what is known of it.
//!
//! Pure code: no file, no clock, no chance. Times are arguments, in milliseconds since 1970. Whoever runs jobs
//! feeds [`step`] with commands, with what a run says, and with time that has passed; stores the record that comes
//! back; and only then carries out its actions.

mod check;
mod event;
mod forecast;
pub mod group;
mod input;
mod machine;
mod record;
mod schedule;
mod series;
mod spec;
mod window;

pub use check::word;
pub use event::{Event, StoredEvent, What};
pub use forecast::forecast;
pub use group::{Group, GroupState};
pub use input::{
    Action, Command, CommandName, Forced, GroupInput, Input, Purpose, Refusal, RefusalReason, RunCommand, RunError,
    RunInput, RunPlan, RunSummary, Transition,
};
pub use machine::{commands_allowed, created, step};
pub use record::{
    ActiveRun, CutoverFacts, Ending, Failure, Forecast, ForecastBasis, Job, Outcome, PassFacts, RECORD_SCHEMA,
    RecordError, State, Totals, Verification, Waiting,
};
pub use schedule::{Schedule, ScheduleError};
pub use series::{Meter, Series, Span};
pub use spec::{
    BackendChoice, Cutover, Filters, Ids, Invalid, JobPatch, JobSpec, Kind, Limits, LimitsPatch, Provision, SCHEMA,
    Side, VerifyLevel,
};
pub use window::{Now, Window, WindowError};
