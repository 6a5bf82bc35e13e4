//! A pure model of `copyd sync`, and the machine that holds the binary to it.
//!
//! - [`tree`]: what a tree is to the model, and how a directory is read into it.
//! - [`predict`]: from two trees, what the job remembers and the flags of a run, to what has to come of
//!   it. No file system, no clock, no copyd.
//! - [`steps`]: changes that anybody may make on either side, and how they are made up.
//! - [`history`]: changes and runs in turn, each run held to its prediction; and how a history that fails
//!   is made shorter.

pub mod history;
pub mod predict;
pub mod steps;
pub mod tree;
