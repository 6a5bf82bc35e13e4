//! The plan: what is to be done for one entry, as data.
//!
//! The dry run prints changes and the copy executes the very same values, so what `-n -i` showed
//! is what happens. [`Change::itemized`] gives rsync's eleven characters.

use crate::sys::Kind;

/// What differs between an entry at the source and its counterpart at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Content of a file, target of a symlink, number of a device.
    pub content: bool,
    pub size: bool,
    pub mtime: bool,
    pub mode: bool,
    pub owner: bool,
    pub group: bool,
    pub acl: bool,
    pub xattrs: bool,
    /// Inode flags or project id. No column of its own: shown with `p`.
    pub flags: bool,
    /// The entry belongs to another group of hard links than at the source.
    pub links: bool,
}

impl Differences {
    /// Whether nothing differs.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: equal by what the pass compares.
    Keep,
    /// Make the entry anew and publish it over whatever non-directory stands there.
    /// `exists` tells whether something stands there.
    Make { exists: bool },
    /// Another name of an inode that this pass has published or found equal.
    Link { exists: bool },
    /// Only metadata is set, in place.
    Adjust,
    /// An entry of another type stands there: it is removed first. Where that is a directory this
    /// is a deletion of everything in it, and stands under the deletion guards.
    Replace { old: Kind },
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path from the root, bytes; empty for the root itself.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub action: Action,
    pub differences: Differences,
}

impl Change {
    /// rsync's `YXcstpoguax`.
    #[must_use]
    pub fn itemized(&self) -> [u8; 11] {
        let d = &self.differences;
        let kind = match self.kind {
            Kind::File => b'f',
            Kind::Directory => b'd',
            Kind::Symlink => b'L',
            Kind::CharDevice | Kind::BlockDevice => b'D',
            Kind::Fifo | Kind::Socket => b'S',
        };
        let created = matches!(
            self.action,
            Action::Make { exists: false } | Action::Link { exists: false } | Action::Replace { .. }
        );
        let update = match self.action {
            Action::Keep | Action::Adjust => b'.',
            Action::Link { .. } => b'h',
            Action::Make { .. } | Action::Replace { .. } if self.kind == Kind::File => b'>',
            Action::Make { .. } | Action::Replace { .. } => b'c',
        };
        if created {
            return [update, kind, b'+', b'+', b'+', b'+', b'+', b'+', b'+', b'+', b'+'];
        }
        let mark = |on: bool, letter: u8| if on { letter } else { b'.' };
        [
            update,
            kind,
            mark(d.content, b'c'),
            mark(d.size, b's'),
            mark(d.mtime, b't'),
            mark(d.mode || d.flags, b'p'),
            mark(d.owner, b'o'),
            mark(d.group, b'g'),
            b'.',
            mark(d.acl, b'a'),
            mark(d.xattrs, b'x'),
        ]
    }
}
