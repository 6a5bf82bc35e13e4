//! Hard links: which names share an inode, on both sides.
//!
//! The first name of a group that the scan meets is its leader and is copied like any entry; the
//! others follow once the leader stands at the destination. Only inodes with more than one name
//! are kept here, so a tree without hard links costs nothing. A destination inode is claimed by
//! one source inode at most: two files that are one at the destination must become two.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex};

use super::node::{Node, lock};

/// An inode: device and number.
pub type Inode = (u64, u64);

/// A name in a directory.
#[derive(Debug)]
pub struct Place<P> {
    pub node: Arc<Node<P>>,
    pub name: CString,
}

impl<P> Clone for Place<P> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), name: self.name.clone() }
    }
}

/// The names of one source inode.
#[derive(Debug)]
pub struct Group<P, S> {
    pub source: Inode,
    pub leader: Place<P>,
    /// What followers need to know of the leader, once it stands at the destination.
    pub settled: Option<S>,
    /// Names whose link is still to be looked at.
    pub followers: Vec<Place<P>>,
}

/// What a name is within its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role<S> {
    Leader,
    /// With what is known of the leader, where it is settled already.
    Follower(Option<S>),
}

/// All groups of a pass.
#[derive(Debug)]
pub struct Links<P, S> {
    groups: Mutex<HashMap<Inode, Group<P, S>>>,
    claims: Mutex<HashMap<Inode, Inode>>,
}

impl<P, S> Default for Links<P, S> {
    fn default() -> Self {
        Self { groups: Mutex::default(), claims: Mutex::default() }
    }
}

impl<P, S: Clone> Links<P, S> {
    /// Notes that `place` is a name of `source`, and says which part it plays.
    pub fn meet(&self, source: Inode, place: &Place<P>) -> Role<S> {
        use std::collections::hash_map::Entry;
        match lock(&self.groups).entry(source) {
            Entry::Occupied(group) => Role::Follower(group.get().settled.clone()),
            Entry::Vacant(vacant) => {
                vacant.insert(Group { source, leader: place.clone(), settled: None, followers: Vec::new() });
                Role::Leader
            }
        }
    }

    /// Leaves a follower for later, when its leader is settled.
    pub fn follow(&self, source: Inode, place: Place<P>) {
        if let Some(group) = lock(&self.groups).get_mut(&source) {
            group.followers.push(place);
        }
    }

    /// The leader of `source` stands at the destination.
    pub fn settle(&self, source: Inode, settled: S) {
        if let Some(group) = lock(&self.groups).get_mut(&source) {
            group.settled = Some(settled);
        }
    }

    /// Another name leads: the first one could not be copied.
    pub fn lead(&self, source: Inode, leader: Place<P>, followers: Vec<Place<P>>) {
        lock(&self.groups).insert(source, Group { source, leader, settled: None, followers });
    }

    /// Whether the destination inode may stand for this source inode: the first claim wins.
    pub fn claim(&self, destination: Inode, source: Inode) -> bool {
        *lock(&self.claims).entry(destination).or_insert(source) == source
    }

    /// The groups that have followers waiting, which are forgotten here.
    pub fn take_waiting(&self) -> Vec<Group<P, S>> {
        let mut groups = lock(&self.groups);
        let waiting: Vec<Inode> = groups.iter().filter(|(_, g)| !g.followers.is_empty()).map(|(k, _)| *k).collect();
        waiting
            .into_iter()
            .filter_map(|key| {
                let group = groups.get_mut(&key)?;
                let (followers, leader) = (std::mem::take(&mut group.followers), group.leader.clone());
                Some(Group { source: key, leader, settled: group.settled.clone(), followers })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::node::Handles;

    fn place(name: &std::ffi::CStr) -> Place<()> {
        let fd = Arc::new(crate::sys::open_root(std::path::Path::new("/")).unwrap());
        Place { node: Node::root(Handles::new(16), fd, None, ()), name: name.into() }
    }

    #[test]
    fn the_first_name_leads_and_the_others_follow() {
        let links: Links<(), Inode> = Links::default();
        assert_eq!(links.meet((1, 2), &place(c"a")), Role::Leader);
        assert_eq!(links.meet((1, 2), &place(c"b")), Role::Follower(None));
        links.follow((1, 2), place(c"b"));
        links.settle((1, 2), (9, 9));
        assert_eq!(links.meet((1, 2), &place(c"c")), Role::Follower(Some((9, 9))));
        let waiting = links.take_waiting();
        assert_eq!((waiting.len(), waiting[0].followers.len(), waiting[0].settled), (1, 1, Some((9, 9))));
        assert!(links.take_waiting().is_empty());
    }

    #[test]
    fn a_destination_inode_stands_for_one_source_inode_only() {
        let links: Links<(), ()> = Links::default();
        assert!(links.claim((5, 5), (1, 1)));
        assert!(links.claim((5, 5), (1, 1)));
        assert!(!links.claim((5, 5), (1, 2)));
    }
}
