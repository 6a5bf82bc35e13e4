//! The daemon: jobs of a control plane, each carried out by a worker of its own.
//!
//! ```text
//! copyd serve                                                    copyd spawner (root)
//! ┌──────────────────────────────────────────────┐               ┌──────────────────────────────┐
//! │ api ─ backend.rs ─► manager.rs ◄─ scheduler   │ ── link.rs ─► │ spawner.rs ─ allow.rs         │
//! │                      │    ▲                   │ ◄──────────── │    └─ worker::Supervisor ─► copyd worker
//! │                 store::control  runs.rs       │               │                              │
//! └──────────────────────────────────────────────┘               └──────────────────────────────┘
//! ```
//!
//! `serve` has the network, the callers and the records, and no right to any tenant's data; the spawner has the
//! rights, listens to nobody but `serve`, and starts nothing that the allow-lists don't allow. Every job's state is
//! written by one thread ([`manager`]): stored first, then acted on, then published. A restart resumes every job; a
//! worker whose daemon has gone stops at a safe point by itself.

mod allow;
mod backend;
mod clock;
mod config;
mod inspect;
pub(crate) mod link;
mod manager;
mod notify;
mod requests;
mod runs;
mod scheduler;
mod serve;
mod shared;
mod spawner;
mod spawner_child;
mod user;

pub use config::{Access, Config, DEFAULT_FILE, Role};
pub use notify::handed_over;
pub use serve::{Options, serve};
pub use spawner::{Place, Setup, spawn_for};
use user::user_of;
