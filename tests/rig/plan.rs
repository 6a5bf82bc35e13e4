//! What the file system of the rig does wrong, and when.
//!
//! A rule looks at each call before it is carried out and may answer with a [`Fault`]; the first
//! rule that does decides. As a rule is a closure, it is also the hook that acts exactly at the n-th
//! call: it acts, and answers nothing. Calls are counted by their kind, so that a test first counts
//! those of a clean run and then lets each of them fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// The calls that a rule can tell apart. Those that only tidy up (release, forget) can't fail: the
/// kernel does not look at their answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Create,
    Fallocate,
    /// Sent by each close(2).
    Flush,
    Fsync,
    Fsyncdir,
    Getattr,
    Getxattr,
    Link,
    Listxattr,
    Lookup,
    Lseek,
    Mkdir,
    Mknod,
    Open,
    Opendir,
    Read,
    Readdir,
    Readlink,
    Removexattr,
    Rename,
    Rmdir,
    Setattr,
    Setxattr,
    Statfs,
    Symlink,
    Unlink,
    Write,
}

/// One call, as a rule sees it.
#[derive(Debug)]
pub struct Call<'c> {
    pub kind: Kind,
    /// Which of its kind, from 1.
    pub nth: u64,
    /// The inode, or the directory that holds the name.
    pub inode: u64,
    /// Empty where the call has none.
    pub name: &'c [u8],
    /// Of reads and writes, in bytes.
    pub offset: u64,
    /// How many bytes a read wants.
    pub wanted: u64,
    /// What is to be written.
    pub data: &'c [u8],
}

/// What happens instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and this is the answer.
    Fails(Errno),
    /// The call is carried out, and this is the answer all the same, as where a server's own is lost.
    FailsDone(Errno),
    /// A read or write moves at most so many bytes.
    Short(usize),
    /// A write stores this byte of it flipped, and says that all is well.
    Flips(usize),
    /// A write stores nothing, and says that all is well.
    Loses,
    /// A write stores at another offset, so many bytes further, and says that all is well.
    Misplaces(u64),
    /// A question for data or a hole is answered with this offset, whatever lies there.
    Claims(u64),
    /// A name is that of this inode, which the kernel knows already.
    Becomes(u64),
    /// A listing holds this name besides.
    Lists(&'static str),
    /// A listing goes on without end, with names that it makes up.
    NeverEnds,
    /// No answer until [`Plan::release`]; then it is carried out.
    Hangs,
}

type Rule = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;
type Held = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    counts: BTreeMap<Kind, u64>,
    rules: Vec<Rule>,
    held: Vec<Held>,
    /// How often a rule answered with a fault.
    faults: u64,
}

/// The rules of one file system, its counts, and the answers that it withholds.
#[derive(Default)]
pub struct Plan(Mutex<State>);

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("counts", &self.state().counts).finish_non_exhaustive()
    }
}

impl Plan {
    fn state(&self) -> MutexGuard<'_, State> {
        // A rule that panics fails its test; the others still have to be served to their end.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule. It runs under the plan's lock, so it may not ask the plan, and may not touch the
    /// mounted side, which would wait for the thread that it runs on.
    pub fn on(&self, rule: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        self.state().rules.push(Box::new(rule));
    }

    /// The n-th call of a kind, from 1 and from now on, fails so once.
    pub fn nth(&self, kind: Kind, nth: u64, fault: Fault) {
        let from = self.count(kind);
        self.on(move |call| (call.kind == kind && call.nth == from + nth).then_some(fault));
    }

    /// Every call of a kind fails so.
    pub fn every(&self, kind: Kind, fault: Fault) {
        self.on(move |call| (call.kind == kind).then_some(fault));
    }

    /// Forgets all rules and counts.
    pub fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.counts.clear();
        state.faults = 0;
    }

    /// Calls of a kind since the last [`Self::clear`].
    pub fn count(&self, kind: Kind) -> u64 {
        self.state().counts.get(&kind).copied().unwrap_or(0)
    }

    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.state().counts.clone()
    }

    /// How many calls were answered with a fault since the last [`Self::clear`].
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    /// Answers withheld now.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Carries out what hangs.
    pub fn release(&self) {
        let held = std::mem::take(&mut self.state().held);
        for work in held {
            work();
        }
    }

    /// Counts a call and asks the rules.
    pub(super) fn judge(&self, mut call: Call<'_>) -> Option<Fault> {
        let mut state = self.state();
        let count = state.counts.entry(call.kind).or_default();
        *count += 1;
        call.nth = *count;
        let fault = state.rules.iter_mut().find_map(|rule| rule(&call));
        state.faults += u64::from(fault.is_some());
        fault
    }

    pub(super) fn hold(&self, work: Held) {
        self.state().held.push(work);
    }
}
