//! What can happen next: the replicas' next steps, JFrog's, the passing of time; and failures, as long as there are any left.

use crate::{
    broken::Broken,
    flow::{Flow, Replica, Request},
    state::{Protocol, State, SweepJob},
};

/// The number is the replica's; two that are alike may swap it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A caller or a job looks at the token, and decides what to make.
    Decide(usize),
    DecideToSweep(usize),
    /// Ends an attempt whose lease is over.
    Recover(usize),
    /// Takes up an entry of its journal that nobody has in hand.
    Replay(usize, usize),
    /// Goes on with what is in its hands.
    GoOn(usize),
    /// Answers a caller although Postgres has nothing yet.
    ReplyTooEarly(usize),
    /// JFrog executes the call, and the answer arrives.
    JfrogAnswers(usize),
    /// JFrog executes a call whose sender is gone.
    StrayIsExecuted(usize),
    StrayVanishes(usize),
    /// A lease ends whose owner is dead or waits for just that.
    LeaseEnds,
    /// `reuse_for` and a lease go by.
    TimePasses,
    /// Others revoke a chain at JFrog; the caller who has its access token says so, and it is given up (`give_up_chain`).
    RevokedByOthers(usize),
    /// Failure: power is gone, and comes back. A replica that stays down is one that does nothing from here on.
    Crash(usize),
    /// Failure: the call is given up; it may have been executed, may be later, or never.
    TimesOut(usize),
    /// Failure: the owner does not get a turn until its lease is over.
    Stall,
    /// Failure: somebody without an attempt does not get a turn while time passes.
    Freeze,
}

impl Action {
    /// Whether it is a failure, of which there are so many only.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Self::Crash(_) | Self::TimesOut(_) | Self::Stall | Self::Freeze)
    }

    /// In a word; for a step of a flow, what it goes on from.
    pub(crate) fn told(self, before: &State) -> String {
        let whole = match self {
            Self::GoOn(r) => format!("{:?}", before.replicas[r].flow),
            other => format!("{other:?}"),
        };
        whole.split([' ', '(']).next().unwrap_or_default().to_owned()
    }
}

impl State {
    pub(crate) fn possible(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        if self.wrong.is_some() {
            return;
        }
        for (r, replica) in self.replicas.iter().enumerate() {
            self.possible_for(protocol, r, replica, actions);
        }
        for stray in 0..self.strays.len() {
            actions.extend([Action::StrayIsExecuted(stray), Action::StrayVanishes(stray)]);
        }
        if self.postgres.attempt.is_some_and(|row| row.live) {
            if !self.is_attempt_in_hand() {
                actions.push(Action::LeaseEnds);
            } else if self.faults_left > 0 {
                actions.push(Action::Stall);
            }
        }
        if protocol.outsiders && self.at_rest() {
            actions.extend((0..self.postgres.chains.len()).map(Action::RevokedByOthers));
        }
        if self.may_time_pass() {
            if !self.replicas.iter().any(|replica| replica.flow.is_about_to_go_on()) {
                actions.push(Action::TimePasses);
            } else if self.faults_left > 0 {
                actions.push(Action::Freeze);
            }
        }
    }

    fn possible_for(&self, protocol: &Protocol, r: usize, replica: &Replica, actions: &mut Vec<Action>) {
        match replica.flow {
            Flow::Idle => {
                match self.postgres.attempt {
                    Some(row) if !row.live => actions.push(Action::Recover(r)),
                    Some(_) => {}
                    None => {
                        actions.extend(self.plan(protocol).map(|_| Action::Decide(r)));
                        actions.extend(self.plan_sweep().map(|_| Action::DecideToSweep(r)));
                    }
                }
                actions.extend((0..replica.journal.len()).map(|entry| Action::Replay(r, entry)));
            }
            Flow::Calling { .. } => actions.push(Action::JfrogAnswers(r)),
            _ => actions.push(Action::GoOn(r)),
        }
        if protocol.broken == Some(Broken::ReplyBeforeCommit) && matches!(replica.flow, Flow::Saving { .. }) {
            actions.push(Action::ReplyTooEarly(r));
        }
        if self.faults_left > 0 {
            let would_lose = matches!(replica.flow, Flow::Answered { .. }) && !protocol.answers_vanish;
            // A crash of somebody who holds nothing is nothing but a pause.
            let holds = !matches!(replica.flow, Flow::Idle | Flow::Planned { .. } | Flow::PlannedSweep { .. } | Flow::Concluding);
            if holds && !would_lose {
                actions.push(Action::Crash(r));
            }
            if matches!(replica.flow, Flow::Calling { .. }) {
                actions.push(Action::TimesOut(r));
            }
        }
    }

    /// Whether the attempt's owner is there and works on it.
    fn is_attempt_in_hand(&self) -> bool {
        let Some(row) = self.postgres.attempt else { return false };
        self.replicas.iter().any(|replica| replica.flow.works_on(row.attempt.begun))
    }

    /// Only when leases are over, and what was sent has arrived or vanished: no call takes as long as `reuse_for`.
    fn may_time_pass(&self) -> bool {
        let calling = |replica: &Replica| matches!(replica.flow, Flow::Calling { .. });
        let younger = self.postgres.younger().map(|chain| usize::from(chain.pair));
        let changes = !self.postgres.rotatable
            || self.postgres.sweep == SweepJob::Later
            || self.ledger.iter().enumerate().any(|(id, pair)| pair.fresh || pair.in_use && younger != Some(id));
        changes
            && self.postgres.attempt.is_none_or(|row| !row.live)
            && self.strays.is_empty()
            && !self.replicas.iter().any(calling)
    }

    /// The call of a replica that does not wait for it any more.
    pub(crate) fn set_adrift(&mut self, protocol: &Protocol, request: Request) {
        if protocol.answers_vanish {
            self.strays.push(request);
        }
    }
}
