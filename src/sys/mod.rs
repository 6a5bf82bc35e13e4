//! Every unsafe block of copyd, and the system calls that need one word more than `rustix` says.

mod stat;

pub use stat::{Kind, Stat, Time, stat_at, stat_fd};
