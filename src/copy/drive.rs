//! Keeps as many state machines in flight as a backend has slots.
//!
//! A machine is stepped with the result of its last operation and answers with the next one or
//! its outcome. The driver owns every machine until nothing of it is in flight, so a buffer or a
//! descriptor can't go away under the kernel.

use std::io;

use super::blocks::{BlockIo, Operation};

/// What a machine wants next.
#[derive(Debug)]
pub enum Step<T> {
    Submit(Operation),
    Done(T),
}

/// One file's, or one chunk's, progress.
pub trait Machine {
    type Outcome;
    /// The next step. `last` is the result of the operation submitted before, `None` at the
    /// start; `buffer` is this machine's own, with what a read brought from its beginning on.
    fn step(&mut self, last: Option<io::Result<usize>>, buffer: &mut [u8]) -> Step<Self::Outcome>;
}

/// Runs machines from `supply` until it has no more, handing each outcome to `sink`.
///
/// # Errors
/// Only failures of the backend itself; the machines in flight are lost then, which leaves
/// nothing but temporary files behind.
pub fn drive<M: Machine>(
    io: &mut dyn BlockIo,
    mut supply: impl FnMut() -> Option<M>,
    mut sink: impl FnMut(M, M::Outcome),
) -> io::Result<()> {
    let mut machines: Vec<Option<M>> = (0..io.slots()).map(|_| None).collect();
    let mut idle: Vec<usize> = (0..io.slots()).rev().collect();
    loop {
        while let Some(&slot) = idle.last() {
            let Some(mut machine) = supply() else { break };
            match machine.step(None, io.buffer(slot)) {
                Step::Done(outcome) => sink(machine, outcome),
                Step::Submit(operation) => {
                    io.submit(slot, operation)?;
                    machines[slot] = Some(machine);
                    idle.pop();
                }
            }
        }
        if idle.len() == machines.len() {
            return Ok(());
        }
        let (slot, result) = io.complete()?;
        let Some(mut machine) = machines[slot].take() else { continue };
        match machine.step(Some(result), io.buffer(slot)) {
            Step::Submit(operation) => {
                io.submit(slot, operation)?;
                machines[slot] = Some(machine);
            }
            Step::Done(outcome) => {
                idle.push(slot);
                sink(machine, outcome);
            }
        }
    }
}
