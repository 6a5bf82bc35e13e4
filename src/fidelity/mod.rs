//! Metadata: capture at the source, apply at the destination, name what is lost.

/// What a destination can't hold, by enumerated class (promise P8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossClass {
    Owner,
}

/// `--usermap`, `--groupmap`, `--chown`.
#[derive(Clone, Debug, Default)]
pub struct IdMap;
