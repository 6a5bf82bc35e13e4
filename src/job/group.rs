//! Consistency groups: members share one barrier, cut over together, and finish or fail together.
//!
//! A group keeps no state of its own: where it stands is read off its members, so that the two can't disagree.
//! After each step of a member that takes part in a cutover, [`barrier`] says what the group does next; whoever
//! runs jobs steps all members that it concerns with the same [`GroupInput`] and stores these steps in one
//! transaction. So no member is ever released alone, however the daemon ends.
//!
//! ```text
//! all ready ──Cutover──► cutover … verifying ──► at the barrier ──(all there)──Release──► all completed
//!                              │ one aborts, fails, is paused or cancelled, or its source changes
//!                              └──Abort──► the others are ready again
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{GroupInput, Refusal};
use super::record::{Job, State};

/// A consistency group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Of this project alone; two projects may have groups of the same name.
    pub name: String,
    pub project: String,
    pub created_ms: u64,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Some members are not ready yet.
    Preparing,
    /// All are ready: the group may cut over.
    Ready,
    /// Members are between the command and the barrier.
    Cutover,
    /// All have completed.
    Completed,
    /// One has failed, and so the group can't go on before it does.
    Failed,
    /// All were cancelled.
    Cancelled,
}

/// Where a group stands, by its members.
#[must_use]
pub fn state(members: &[Job]) -> GroupState {
    let taking_part: Vec<&Job> = members.iter().filter(|job| job.state != State::Cancelled).collect();
    let all = |state: State| taking_part.iter().all(|job| job.state == state);
    if taking_part.is_empty() {
        return if members.is_empty() { GroupState::Empty } else { GroupState::Cancelled };
    }
    if taking_part.iter().any(|job| job.state == State::Failed) {
        return GroupState::Failed;
    }
    if taking_part.iter().any(|job| in_cutover(job)) {
        return GroupState::Cutover;
    }
    match () {
        () if all(State::Completed) => GroupState::Completed,
        () if all(State::Ready) => GroupState::Ready,
        () => GroupState::Preparing,
    }
}

/// The members that the command to cut over concerns, as places in the list: all that have not ended.
///
/// # Errors
/// A member is not ready: none of them begins.
pub fn cutover(members: &[Job]) -> Result<Vec<usize>, Refusal> {
    let concerned: Vec<usize> =
        (0..members.len()).filter(|at| !matches!(members[*at].state, State::Cancelled | State::Completed)).collect();
    if concerned.is_empty() {
        return Err(refused("the group has no members that could cut over", "add jobs that name it"));
    }
    let behind: Vec<String> = concerned
        .iter()
        .map(|at| &members[*at])
        .filter(|job| job.state != State::Ready)
        .map(|job| format!("{} is {}", job.id, job.state.word()))
        .collect();
    if behind.is_empty() {
        return Ok(concerned);
    }
    let what = format!("not every member is ready: {}", behind.join(", "));
    Err(refused(&what, "wait until all are, or cancel those that are not to come along"))
}

fn refused(what: &str, remedy: &str) -> Refusal {
    Refusal { what: what.into(), remedy: remedy.into(), conflict: true, field: None }
}

/// What a group does after a step of one of its members: the input, and the members that get it, as places in
/// the list. `None` where nothing is to be done.
#[must_use]
pub fn barrier(members: &[Job]) -> Option<(GroupInput, Vec<usize>)> {
    let inside: Vec<usize> = (0..members.len()).filter(|at| in_cutover(&members[*at])).collect();
    if inside.is_empty() {
        return None;
    }
    let begun = |job: &Job| job.cutover.filter(|cutover| cutover.by_group).map(|cutover| cutover.since_ms);
    let outside = members.iter().find(|job| match job.state {
        State::Cutover | State::Verifying => !in_cutover(job),
        // It did so with an earlier cutover of the group, and is no part of this one.
        State::Completed => false,
        // Before this cutover it left the group; in the midst of it, it takes the others along.
        State::Cancelled => inside.iter().any(|at| begun(&members[*at]) == begun(job)),
        _ => true,
    });
    if let Some(job) = outside {
        let reason = format!("member {} of the group is {}: its cutover was given up", job.id, job.state.word());
        return Some((GroupInput::Abort { reason }, inside));
    }
    if inside.iter().all(|at| at_barrier(&members[*at])) {
        return Some((GroupInput::Release, inside));
    }
    None
}

pub(super) fn in_cutover(job: &Job) -> bool {
    matches!(job.state, State::Cutover | State::Verifying) && job.cutover.is_some_and(|cutover| cutover.by_group)
}

/// It has done all but the last step.
#[must_use]
pub fn at_barrier(job: &Job) -> bool {
    in_cutover(job) && job.waiting == Some(super::record::Waiting::Barrier) && job.run.is_none()
}
