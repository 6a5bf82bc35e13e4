//! Sequences of inputs at random, also such as no daemon would give: what the machine promises holds after each
//! (see [`Rig::hold`]), every state of the drawing is reached, no step leaves it, and from wherever a sequence has
//! led, a daemon that does its part brings the job to its end.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

type Edges = BTreeSet<(State, State)>;

/// One input, from numbers.
#[derive(Clone, Copy, Debug)]
struct Move {
    what: u8,
    detail: u32,
    after_ms: u64,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    // Mostly moments, sometimes as long as schedules and windows.
    let after = prop_oneof![4 => 0_u64..20_000, 2 => 0_u64..1_200_000, 1 => 0_u64..90_000_000];
    let one = (0_u8..100, any::<u32>(), after).prop_map(|(what, detail, after_ms)| Move { what, detail, after_ms });
    proptest::collection::vec(one, 0..80)
}

fn spec() -> impl Strategy<Value = JobSpec> {
    (0_usize..4, any::<u16>()).prop_map(|(kind, bits)| {
        let kind = Kind::ALL[kind];
        let bit = |n: u16| bits >> n & 1 == 1;
        let mut spec = JobSpec::new(kind, "/a", "/b");
        if kind != Kind::Verify && bit(0) {
            spec.verify = VerifyLevel::Full;
        }
        if bit(1) && bit(9) {
            spec.limits.window = Some("02:00-05:00,20:00-21:00 Europe/Berlin".into());
        }
        if kind == Kind::Migrate {
            spec.group = bit(2).then(|| "g".into());
            spec.cutover = if bit(3) && !bit(2) { Cutover::Auto } else { Cutover::Wait };
            spec.cutover_deadline_s = bit(4).then_some(30);
            spec.max_passes = bit(5).then_some(3);
        }
        if kind == Kind::Replicate && bit(6) {
            spec.rpo_s = Some(900);
        }
        if matches!(kind, Kind::Migrate | Kind::Replicate) && bit(7) {
            spec.schedule = Some("every 1m".into());
        }
        spec
    })
}

fn change(detail: u32) -> JobPatch {
    let text = match detail % 10 {
        0 => r#"{"priority":99}"#,
        1 => r#"{"limits":{"bytes_per_s":100000}}"#,
        2 => r#"{"limits":{"bytes_per_s":null,"window":null}}"#,
        3 => r#"{"limits":{"window":"00:00-12:00"}}"#,
        4 => r#"{"labels":{"a":"b","c":null}}"#,
        5 => r#"{"cutover":"auto"}"#,
        6 => r#"{"cutover":"wait","cutover_deadline_s":5}"#,
        7 => r#"{"schedule":"every 2h"}"#,
        8 => r#"{"rpo_s":60}"#,
        _ => r#"{"accept_loss":["owner"]}"#,
    };
    JobPatch::parse(text.as_bytes()).expect("a change")
}

fn last_word(detail: u32) -> RunSummary {
    const CODES: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 23, 23, 24, 25, 40, 41, 43, 11];
    let exit_code = CODES[detail as usize % CODES.len()];
    let failed = u64::from(exit_code == 23 && detail & 64 != 0);
    RunSummary {
        exit_code,
        failed,
        hot: u64::from(exit_code == 23) - failed,
        changed_names: vec!["é".repeat(3000); 3],
        elapsed_s: f64::from(detail >> 8 & 127),
        ..copied(u64::from(detail >> 16 & 3))
    }
}

impl Rig {
    /// Whatever is refused is refused; what it must not do, [`Rig::give`] panics of.
    fn make(&mut self, a_move: Move) {
        // Now and then the clock is put back.
        match a_move.detail % 50 {
            0 => self.now_ms = self.now_ms.saturating_sub(a_move.after_ms * 1000),
            _ => self.now_ms += a_move.after_ms,
        }
        let run = |input| Some(Input::Run(input));
        let forced = || Some(Forced { what: "it hung".into(), remedy: "look".into() });
        let detail = a_move.detail;
        let input = match a_move.what {
            0..=7 => Some(Input::Command(Command::Pause)),
            8..=17 => Some(Input::Command(Command::Resume)),
            18..=20 => Some(Input::Command(Command::Cancel)),
            21..=27 => Some(Input::Command(Command::Cutover)),
            28..=29 => Some(Input::Command(Command::Abort)),
            30..=32 => Some(Input::Command(Command::RetryFailed)),
            33..=35 => Some(Input::Command(Command::Verify)),
            36..=41 => Some(Input::Command(Command::Patch(change(detail)))),
            42..=54 => Some(Input::Command(Command::Start)),
            55 => Some(Input::Command(Command::Restarted)),
            56..=58 => Some(Input::Group(GroupInput::Cutover)),
            59..=60 => Some(Input::Group(GroupInput::Release)),
            61 => Some(Input::Group(GroupInput::Abort { reason: "another one".into() })),
            62..=70 => Some(Input::Timer),
            // Also without a run: it was said on the way, while the daemon came up.
            71..=74 => run(RunInput::Started { engine_job: None, resumed: false }),
            75..=76 => run(RunInput::Backend { backend: "threads".into(), readback: "direct".into() }),
            77..=80 => run(RunInput::PassStarted),
            81..=94 => {
                let summary = last_word(detail);
                let exit_code = Some(summary.exit_code);
                self.said(RunInput::Summary(Box::new(summary)));
                run(RunInput::Ended { exit_code, forced: None, moved: detail & 1 == 0 })
            }
            95..=97 => run(RunInput::Ended { exit_code: None, forced: forced(), moved: detail & 1 == 0 }),
            _ => {
                let reason = match detail % 3 {
                    0 => RefusalReason::NotAllowed,
                    1 => RefusalReason::Invalid,
                    _ => RefusalReason::Resources,
                };
                run(RunInput::Refused { what: "no".into(), remedy: "do".into(), reason })
            }
        };
        if let Some(input) = input {
            let before = self.job.state;
            let command = if let Input::Command(command) = &input { Some(command.name()) } else { None };
            let _ = self.give(input);
            if before.is_final() && self.job.state != before {
                let may = [CommandName::Resume, CommandName::RetryFailed, CommandName::Verify];
                assert!(command.is_some_and(|name| may.contains(&name)), "{before:?} was changed by {command:?}");
            }
        }
    }

    /// A daemon that does its part, on machines that do theirs.
    fn bring_to_its_end(&mut self) {
        // A source that changed too often is still now.
        for _ in 0..200 {
            match self.job.state {
                State::Completed | State::Cancelled => return,
                State::InSync if self.job.run.is_none() => return,
                State::Paused | State::Failed => _ = self.ok(Command::Resume),
                State::Ready if self.alive.is_none() && self.job.spec.group.is_some() => {
                    self.give(Input::Group(GroupInput::Cutover)).expect("it is ready");
                }
                State::Ready if self.alive.is_none() && self.job.spec.cutover == Cutover::Wait => {
                    self.ok(Command::Cutover);
                }
                _ if crate::job::group::at_barrier(&self.job) => {
                    self.give(Input::Group(GroupInput::Release)).expect("it is at the barrier");
                }
                _ if self.job.wants_slot() => _ = self.ok(Command::Start),
                _ if self.alive.is_some() => _ = self.come_up().end(1, copied(0)),
                _ => {
                    let wake_ms = self.wake_ms.expect("it waits for something that comes");
                    let wait_ms = wake_ms.saturating_sub(self.now_ms);
                    self.after(wait_ms);
                }
            }
        }
        panic!("it has not come to its end: {:#?}", self.job);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_promises_hold_and_the_job_can_come_to_its_end(spec in spec(), moves in moves()) {
        let mut rig = Rig::new(spec);
        for a_move in moves {
            rig.make(a_move);
        }
        let stored = serde_json::to_string(&rig.job).expect("JSON");
        prop_assert_eq!(&Job::from_record(1, &stored).expect("the record is read"), &rig.job);
        rig.bring_to_its_end();
    }

    #[test]
    fn whatever_happens_a_cancel_ends_the_job_once_its_run_has_ended(spec in spec(), moves in moves()) {
        let mut rig = Rig::new(spec);
        for a_move in moves {
            rig.make(a_move);
        }
        let state = rig.state();
        let done = state.is_final() || rig.job.return_to == Some(State::Completed);
        match rig.command(Command::Cancel) {
            Ok(()) if rig.alive.is_some() => _ = rig.die(false),
            Ok(()) => {}
            Err(_) => prop_assert!(state.is_final() || state == State::Cancelling),
        }
        if state == State::Cancelling {
            rig.die(false);
        }
        prop_assert_eq!(rig.state() == State::Cancelled, !done || state == State::Cancelled);
        prop_assert!(rig.state().is_final());
    }
}

/// The drawing in the machine's head, line by line.
fn drawn(kind: Kind) -> Edges {
    use State::*;
    let mut edges = Edges::new();
    let mut way = |states: &[State]| edges.extend(states.windows(2).map(|pair| (pair[0], pair[1])));
    let (living, rests): (&[State], &[State]) = match kind {
        Kind::Migrate => {
            way(&[Queued, Mounting, Probing, Baseline, Incremental, Ready, Cutover, Verifying, Completed]);
            way(&[Cutover, Ready]);
            way(&[Verifying, Ready]);
            (&[Queued, Mounting, Probing, Baseline, Incremental, Ready, Cutover, Verifying], &[Ready, Completed])
        }
        Kind::Restore => {
            way(&[Queued, Mounting, Probing, Baseline, Verifying, Completed]);
            (&[Queued, Mounting, Probing, Baseline, Verifying], &[Completed])
        }
        Kind::Verify => {
            way(&[Queued, Mounting, Verifying, Completed]);
            (&[Queued, Mounting, Verifying], &[Completed])
        }
        Kind::Replicate => {
            way(&[Queued, Mounting, Probing, Baseline, InSync, Syncing, InSync, OutOfSync, Syncing, OutOfSync]);
            way(&[Baseline, OutOfSync]);
            (&[Queued, Mounting, Probing, Baseline, InSync, Syncing, OutOfSync, Verifying], &[InSync, OutOfSync])
        }
    };
    for &state in rests {
        edges.extend([(state, Verifying), (Verifying, state)]);
    }
    for &state in living {
        edges.extend([(state, Paused), (state, Cancelled), (state, Cancelling), (state, Failed)]);
        // Where a first run had only begun, the next one begins anew.
        let back = place(state);
        edges.extend([(Paused, back), (Failed, back)]);
    }
    edges.extend([(Mounting, Queued), (Probing, Queued)].into_iter().filter(|(from, _)| living.contains(from)));
    edges.extend([(Paused, Cancelled), (Paused, Cancelling), (Cancelling, Cancelled)]);
    edges
}

#[test]
fn every_state_is_reached_and_no_step_leaves_the_drawing() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: [Edges; 4] = Default::default();
    for _ in 0..1500 {
        let spec = spec().new_tree(&mut runner).expect("a specification").current();
        let moves = moves().new_tree(&mut runner).expect("moves").current();
        let at = Kind::ALL.iter().position(|kind| *kind == spec.kind).expect("a kind");
        let mut rig = Rig::new(spec);
        for a_move in moves {
            rig.make(a_move);
        }
        if rig.job.generation.is_multiple_of(2) {
            rig.bring_to_its_end();
        }
        for event in &rig.events {
            if let What::StateChanged { from, to, .. } = &event.what {
                seen[at].insert((*from, *to));
            }
        }
    }
    for (kind, seen) in Kind::ALL.into_iter().zip(&seen) {
        let drawn = drawn(kind);
        let strange: Vec<_> = seen.difference(&drawn).collect();
        assert!(strange.is_empty(), "{kind:?} went a way that is not drawn: {strange:?}");
        let states = |edges: &Edges| edges.iter().flat_map(|(from, to)| [*from, *to]).collect::<BTreeSet<_>>();
        assert_eq!(states(seen), states(&drawn), "{kind:?} does not reach what is drawn");
        let untrodden: Vec<_> = drawn.difference(seen).collect();
        eprintln!("{kind:?}: {} of {} ways gone, not {untrodden:?}", drawn.len() - untrodden.len(), drawn.len());
    }
}
