//! Hard links: two names that share an inode on one side must share one on the other.
//!
//! Names are met in the order of the walk. The first name of a pair of inodes is compared like any
//! entry; the others of the same pair are the same two files and share its verdict, so that a tree
//! of snapshots that share most files is read once. Only inodes with several names are kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use crate::hash::Digest;
use crate::sys::{Kind, Stat};
use crate::tree::links::Inode;
use crate::tree::node::lock;

use super::judge::Aspects;

/// An inode's identity.
#[must_use]
pub const fn inode(stat: &Stat) -> Inode {
    (stat.dev, stat.ino)
}

/// Whether a name may share its inode. Directories have several links by nature.
#[must_use]
pub fn shares(stat: &Stat) -> bool {
    stat.nlink > 1 && stat.kind != Kind::Directory
}

/// What is known of a pair of inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Equal { digest: Option<Digest>, xattrs: Option<[u8; 32]> },
    Differs(Aspects),
}

/// What a name is to be done with.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// Compare it for itself. `broken`: it shares its inode on one side only.
    Single { broken: bool },
    /// Compare it, and [`Links::settle`] the pair.
    Leader,
    /// The same two inodes are being compared under another name; it is kept until that is settled.
    Waits,
    /// The same two inodes were compared.
    Known(Verdict),
}

#[derive(Debug)]
enum Standing<F> {
    Pending(Vec<F>),
    Settled(Verdict),
    /// Each name is compared for itself.
    Each,
}

#[derive(Debug)]
struct Group<F> {
    destination: Inode,
    /// Names met at the source.
    names: u32,
    standing: Standing<F>,
}

#[derive(Debug)]
struct State<F> {
    groups: HashMap<Inode, Group<F>>,
    claims: Claims<Inode, Inode>,
}

/// All names that share an inode; `F` is a name that waits.
#[derive(Debug)]
pub struct Links<F>(Mutex<State<F>>);

impl<F> Default for Links<F> {
    fn default() -> Self {
        Self(Mutex::new(State { groups: HashMap::new(), claims: Claims::default() }))
    }
}

impl<F> Links<F> {
    /// Notes a name that stands on both sides. It is taken out of `name` where it has to wait.
    pub fn meet(&self, source: &Stat, there: &Stat, name: &mut Option<F>) -> Role {
        if !shares(source) && !shares(there) {
            return Role::Single { broken: false };
        }
        let mut state = lock(&self.0);
        let State { groups, claims } = &mut *state;
        let broken = shares(there) && !claims.claim(inode(there), inode(source));
        if !shares(source) {
            return Role::Single { broken };
        }
        let leads = source.kind == Kind::File && !broken;
        let mut fresh = false;
        let group = groups.entry(inode(source)).or_insert_with(|| {
            fresh = true;
            let standing = if leads { Standing::Pending(Vec::new()) } else { Standing::Each };
            Group { destination: inode(there), names: 0, standing }
        });
        group.names += 1;
        if group.destination != inode(there) {
            return Role::Single { broken: true };
        }
        match &mut group.standing {
            Standing::Each => Role::Single { broken },
            Standing::Pending(_) if fresh => Role::Leader,
            Standing::Pending(waiting) => {
                waiting.extend(name.take());
                Role::Waits
            }
            Standing::Settled(verdict) => Role::Known(*verdict),
        }
    }

    /// A leader was compared, or (`None`) could not be: the names that waited for it.
    #[must_use]
    pub fn settle(&self, source: Inode, verdict: Option<Verdict>) -> Vec<F> {
        let mut state = lock(&self.0);
        let Some(group) = state.groups.get_mut(&source) else { return Vec::new() };
        match std::mem::replace(&mut group.standing, verdict.map_or(Standing::Each, Standing::Settled)) {
            Standing::Pending(waiting) => waiting,
            Standing::Settled(_) | Standing::Each => Vec::new(),
        }
    }

    /// The inodes with two or more names within the share, once all are met.
    #[must_use]
    pub fn shared(self) -> std::collections::HashSet<Inode> {
        let state = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.groups.into_iter().filter(|(_, group)| group.names > 1).map(|(inode, _)| inode).collect()
    }
}

/// Which one of the other side stands for each one of this side.
#[derive(Debug)]
pub struct Claims<A, B>(HashMap<A, B>);

impl<A, B> Default for Claims<A, B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<A: Eq + Hash, B: Eq> Claims<A, B> {
    /// Whether `other` may stand for `this`: the first claim wins.
    pub fn claim(&mut self, this: A, other: B) -> bool {
        let claimed = self.0.entry(this);
        match claimed {
            std::collections::hash_map::Entry::Occupied(known) => *known.get() == other,
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(other);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Time;

    fn stat(ino: u64, nlink: u32, kind: Kind) -> Stat {
        let time = Time { seconds: 0, nanoseconds: 0 };
        Stat {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink,
            size: 0,
            blocks: 0,
            ino,
            dev: 1,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            mount_id: 0,
            mount_root: false,
        }
    }

    fn meet(links: &Links<u8>, source: (u64, u32), there: (u64, u32)) -> Role {
        links.meet(&stat(source.0, source.1, Kind::File), &stat(there.0, there.1, Kind::File), &mut Some(1))
    }

    #[test]
    fn names_of_the_same_two_inodes_wait_for_the_first_and_share_its_verdict() {
        let links = Links::default();
        assert_eq!(meet(&links, (1, 3), (8, 3)), Role::Leader);
        assert_eq!(meet(&links, (1, 3), (8, 3)), Role::Waits);
        let verdict = Verdict::Equal { digest: None, xattrs: None };
        assert_eq!(links.settle((1, 1), Some(verdict)), [1]);
        assert_eq!(meet(&links, (1, 3), (8, 3)), Role::Known(verdict));
        assert_eq!(links.shared().len(), 1);
    }

    #[test]
    fn a_link_on_one_side_only_is_broken_whichever_side_it_is() {
        let single = |broken| Role::Single { broken };
        let links = Links::default();
        assert_eq!(meet(&links, (1, 2), (8, 1)), Role::Leader);
        assert_eq!(meet(&links, (1, 2), (9, 1)), single(true), "two inodes there");
        let links = Links::default();
        assert_eq!(meet(&links, (1, 1), (8, 2)), single(false));
        assert_eq!(meet(&links, (2, 1), (8, 2)), single(true), "one inode there");
        let links = Links::default();
        assert_eq!(meet(&links, (1, 2), (8, 2)), Role::Leader);
        assert_eq!(meet(&links, (2, 2), (8, 2)), single(true), "other names, but one inode there");
        assert_eq!(meet(&links, (3, 2), (7, 1)), Role::Leader, "its other name lies outside the share");
    }

    #[test]
    fn names_of_a_pair_that_could_not_be_compared_are_compared_for_themselves() {
        let links = Links::default();
        assert_eq!(meet(&links, (1, 2), (8, 2)), Role::Leader);
        assert_eq!(meet(&links, (1, 2), (8, 2)), Role::Waits);
        assert_eq!(links.settle((1, 1), None), [1]);
        assert_eq!(meet(&links, (1, 2), (8, 2)), Role::Single { broken: false });
    }

    #[test]
    fn links_of_other_types_are_judged_and_compared_one_by_one() {
        let links = Links::<u8>::default();
        let fifo = |ino, nlink| stat(ino, nlink, Kind::Fifo);
        for _ in 0..2 {
            assert_eq!(links.meet(&fifo(1, 2), &fifo(8, 2), &mut None), Role::Single { broken: false });
        }
        assert_eq!(links.meet(&fifo(1, 2), &fifo(9, 1), &mut None), Role::Single { broken: true });
        let directory = stat(5, 9, Kind::Directory);
        assert_eq!(links.meet(&directory, &directory, &mut None), Role::Single { broken: false });
    }
}
