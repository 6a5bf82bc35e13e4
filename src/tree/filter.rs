//! Which entries are in scope: rsync's ordered include/exclude rules and `--files-from`.

/// The rules of one run.
#[derive(Clone, Debug, Default)]
pub struct Filter;
