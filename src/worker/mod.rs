//! One job in one process, and whoever looks after it.
//!
//! A call that a file system never answers can't be taken back, and the process that made it may not even be
//! killed. So the work runs in a process of its own ([`serve`], `copyd worker`), and [`supervise`] starts it,
//! hears it and ends it without ever touching a tenant's tree. Between them go lines of JSON: what is to be done
//! ([`spec`]) and what happens ([`wire`]). The command line is one supervisor; any other program may be one.
//!
//! ```text
//! supervisor ── specification, commands ──► worker ──► pass
//!            ◄──── events, heartbeat ──────    └── watch.rs, blame.rs: who does not answer
//! ```

mod blame;
mod emit;
mod isolate;
mod meter;
mod names;
mod serve;
mod spec;
mod supervise;
mod watch;
mod wire;

pub use crate::escape::{escape, escape_lines, escape_path};
pub use emit::Emitter;
pub use isolate::{Isolated, forget_the_caller, isolate};
pub use names::{Name, text_or_base64};
pub use serve::{Worker, read_specification};
pub use spec::{End, Filters, Ids, Kind, Limits, Line, Specification, marker_name};
pub use supervise::{Handle, Listener, Settings, Supervisor, Verdict};
pub use wire::{Command, Failure, Identity, Inspected, LastWord, OverLimit, Report, Stall, Standing, line};
