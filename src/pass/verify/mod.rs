//! Comparing: two trees with one another, or one with a manifest. Writes into neither.

mod big;
mod chain;
mod compare;
mod content;
mod judge;
mod links;
mod manifest;
mod trees;
mod walk;

pub use manifest::run as manifest;
pub use trees::run as trees;
