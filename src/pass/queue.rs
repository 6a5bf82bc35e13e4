//! The work of a pass: lanes by urgency, and the moment when all of it is done.
//!
//! Urgent lanes are emptied first (what is nearly finished before what begins), and one lane, the
//! directories still to be scanned, is a stack: depth first. So the memory that waiting work takes
//! stays bounded by the width of a page times the depth, whatever the size of the tree.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use crate::tree::node::lock;

/// What a worker does next.
#[derive(Debug)]
pub enum Next<T> {
    Task(T),
    /// Everything is done and nothing runs: exactly one worker is told, and may add more.
    Idle,
    Closed,
}

#[derive(Debug)]
struct State<T, const LANES: usize> {
    lanes: [VecDeque<T>; LANES],
    /// Invitations to help with what others have begun, for whoever has nothing of his own.
    invitations: VecDeque<T>,
    /// Tasks handed out and not yet finished.
    running: usize,
    closed: bool,
}

/// Lanes `0..LANES`, the most urgent first; the last is a stack.
#[derive(Debug)]
pub struct Queue<T, const LANES: usize> {
    state: Mutex<State<T, LANES>>,
    wake: Condvar,
}

impl<T, const LANES: usize> Default for Queue<T, LANES> {
    fn default() -> Self {
        let state = State {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            invitations: VecDeque::new(),
            running: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }
}

impl<T, const LANES: usize> Queue<T, LANES> {
    /// Adds one task. After [`Self::close`] it is dropped.
    pub fn push(&self, lane: usize, task: T) {
        let mut state = lock(&self.state);
        if !state.closed {
            state.lanes[lane].push_back(task);
            self.wake.notify_one();
        }
    }

    /// Invites one worker to a task that another has begun. It is taken when every lane is empty.
    pub fn invite(&self, task: T) {
        let mut state = lock(&self.state);
        if !state.closed {
            state.invitations.push_back(task);
            self.wake.notify_one();
        }
    }

    /// Takes back the invitations that are over.
    pub fn disinvite(&self, over: impl Fn(&T) -> bool) {
        let mut state = lock(&self.state);
        let (gone, kept) = std::mem::take(&mut state.invitations).into_iter().partition::<VecDeque<T>, _>(over);
        state.invitations = kept;
        drop(state);
        // What they hold is let go outside the lock.
        drop(gone);
    }

    /// Waits for a task. Each [`Next::Task`] and [`Next::Idle`] must be answered by
    /// [`Self::finished`].
    pub fn next(&self) -> Next<T> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some(task) = Self::pop(&mut state, LANES).or_else(|| state.invitations.pop_front()) {
                state.running += 1;
                return Next::Task(task);
            }
            if state.running == 0 {
                state.running = 1;
                return Next::Idle;
            }
            state = self.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// A task of the first `lanes` lanes, if one waits: a worker whose own task makes more work
    /// than the queue should hold carries some of it out itself.
    pub fn help(&self, lanes: usize) -> Option<T> {
        let mut state = lock(&self.state);
        let task = Self::pop(&mut state, lanes)?;
        state.running += 1;
        Some(task)
    }

    fn pop(state: &mut State<T, LANES>, lanes: usize) -> Option<T> {
        let last = LANES - 1;
        state.lanes[..lanes.min(last)]
            .iter_mut()
            .find_map(VecDeque::pop_front)
            .or_else(|| (lanes == LANES).then(|| state.lanes[last].pop_back()).flatten())
    }

    /// One task, or the idle call, is over.
    pub fn finished(&self) {
        let mut state = lock(&self.state);
        state.running -= 1;
        if state.running == 0 {
            self.wake.notify_all();
        }
    }

    /// Tasks that wait in a lane.
    pub fn waiting(&self, lane: usize) -> usize {
        lock(&self.state).lanes[lane].len()
    }

    /// Gives up the tasks of the lanes from `first` on, and every invitation: a stop was asked for.
    pub fn clear_from(&self, first: usize) -> Vec<T> {
        let mut state = lock(&self.state);
        let State { lanes, invitations, .. } = &mut *state;
        lanes[first..].iter_mut().chain([invitations]).flat_map(std::mem::take).collect()
    }

    /// No more work: everybody goes home.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let mut dropped: Vec<_> = state.lanes.iter_mut().map(std::mem::take).collect();
        dropped.push(std::mem::take(&mut state.invitations));
        self.wake.notify_all();
        drop(state);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn work_that_makes_work_is_all_done_before_anyone_is_idle() {
        let queue: Queue<u32, 2> = Queue::default();
        let (done, idle) = (AtomicUsize::new(0), AtomicUsize::new(0));
        queue.push(1, 12);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        match queue.next() {
                            Next::Task(depth) => {
                                done.fetch_add(1, Ordering::Relaxed);
                                if depth > 0 {
                                    queue.push(1, depth - 1);
                                    queue.push((depth % 2) as usize, depth - 1);
                                }
                                queue.finished();
                            }
                            Next::Idle => {
                                assert_eq!(done.load(Ordering::Relaxed), (1 << 13) - 1);
                                idle.fetch_add(1, Ordering::Relaxed);
                                queue.close();
                                queue.finished();
                            }
                            Next::Closed => break,
                        }
                    }
                });
            }
        });
        assert_eq!(idle.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn urgent_lanes_come_first_and_the_last_is_a_stack() {
        let queue: Queue<u32, 2> = Queue::default();
        for (lane, task) in [(1, 1), (1, 2), (0, 3), (0, 4)] {
            queue.push(lane, task);
        }
        let order: Vec<u32> = (0..4).filter_map(|_| queue.help(2)).collect();
        assert_eq!(order, [3, 4, 2, 1]);
    }

    #[test]
    fn an_invitation_is_taken_last_and_not_when_it_is_over() {
        let queue: Queue<u32, 2> = Queue::default();
        queue.invite(7);
        queue.invite(8);
        queue.push(1, 1);
        queue.disinvite(|task| *task == 7);
        for expected in [1, 8] {
            let Next::Task(task) = queue.next() else { panic!("a task waits") };
            assert_eq!(task, expected);
            queue.finished();
        }
        assert!(matches!(queue.next(), Next::Idle));
    }
}
