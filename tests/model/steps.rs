//! What an action does: the flow of `src/broker/{join,rotate,settle,replay,sweep}.rs`, a step for each thing that another may
//! come between.

use crate::{
    actions::Action,
    broken::Broken,
    flow::{Answer, Attempt, Ending, Entry, Flow, Kind, Request, Saved},
    state::{ChainState, PairId, Protocol, State, SweepJob, Wrong},
};

impl State {
    pub(crate) fn apply(&mut self, protocol: &Protocol, action: Action) {
        if action.is_fault() {
            self.faults_left -= 1;
        }
        match action {
            Action::Decide(r) => self.decide(protocol, r),
            Action::DecideToSweep(r) => self.replicas[r].flow = self.plan_sweep().expect("it was possible"),
            Action::Recover(_) => self.recover(protocol),
            Action::Replay(r, entry) => {
                let entry = self.replicas[r].journal[entry];
                self.replicas[r].flow = Flow::Saving { entry, replayed: true };
            }
            Action::GoOn(r) => {
                let flow = std::mem::replace(&mut self.replicas[r].flow, Flow::Idle);
                self.replicas[r].flow = self.go_on(protocol, r, flow);
            }
            Action::ReplyTooEarly(r) => {
                let Flow::Saving { entry, .. } = self.replicas[r].flow else { unreachable!("it was possible") };
                self.hand_out(Some(entry.pair));
            }
            Action::JfrogAnswers(r) => {
                let Flow::Calling { attempt, request } = self.replicas[r].flow else { unreachable!("it was possible") };
                let answer = self.execute(protocol, request);
                self.replicas[r].flow = Flow::Answered { attempt, answer };
            }
            Action::StrayIsExecuted(stray) => {
                let request = self.strays.swap_remove(stray);
                self.execute(protocol, request);
            }
            Action::StrayVanishes(stray) => drop(self.strays.swap_remove(stray)),
            Action::LeaseEnds | Action::Stall => self.postgres.attempt.iter_mut().for_each(|row| row.live = false),
            Action::TimePasses | Action::Freeze => self.let_time_pass(),
            Action::RevokedByOthers(letter) => {
                let chain = &mut self.postgres.chains[letter];
                chain.state = ChainState::Lost;
                let pair = &mut self.ledger[usize::from(chain.pair)];
                (pair.spent, pair.alive) = (true, false);
            }
            Action::Crash(r) => {
                let flow = std::mem::replace(&mut self.replicas[r].flow, Flow::Idle);
                if let Flow::Calling { request, .. } = flow {
                    self.set_adrift(protocol, request);
                }
            }
            Action::TimesOut(r) => {
                let Flow::Calling { attempt, request } = self.replicas[r].flow else { unreachable!("it was possible") };
                self.set_adrift(protocol, request);
                self.replicas[r].flow = match protocol.broken {
                    Some(Broken::BlindRetry) => Flow::Begun { attempt, request },
                    _ => Flow::Ending { attempt, ending: Ending::Unknown },
                };
            }
        }
        self.hand_out_freely();
        if self.at_rest() {
            self.faults_left = protocol.faults;
        }
    }

    /// `advance_step` and `mend`: what is to be made, by what was just read. While one chain is not active, the other is not
    /// rotated.
    pub(crate) fn plan(&self, protocol: &Protocol) -> Option<Flow> {
        let postgres = &self.postgres;
        let in_doubt = postgres.missing().filter(|_| protocol.broken != Some(Broken::SecondChainInDoubt) || !postgres.rotatable);
        if let Some((letter, chain)) = in_doubt {
            let Some(other) = postgres.younger() else { return self.last_resort() };
            let request = Request::Create(letter, other.pair);
            return Some(Flow::Planned { kind: Kind::Heal, chain: letter, seen_generation: chain.generation, request });
        }
        let Some((letter, older)) = postgres.older() else { return self.last_resort() };
        let request = Request::Refresh(older.pair);
        let rotate = Flow::Planned { kind: Kind::Rotate, chain: letter, seen_generation: older.generation, request };
        postgres.rotatable.then_some(rotate)
    }

    /// `last_resorts`: no chain is known to work.
    fn last_resort(&self) -> Option<Flow> {
        let chains = || (0..).zip(&self.postgres.chains);
        let planned =
            |kind, letter, generation, request| Flow::Planned { kind, chain: letter, seen_generation: generation, request };
        let unsure = |state| state == ChainState::Uncertain;
        if let Some((letter, chain)) = chains().find(|(_, chain)| unsure(chain.state) && !chain.resent) {
            return Some(planned(Kind::Settle, letter, chain.generation, Request::Refresh(chain.pair)));
        }
        if let Some((letter, chain)) = chains().find(|(_, chain)| self.ledger[usize::from(chain.pair)].alive) {
            return Some(planned(Kind::Heal, letter, chain.generation, Request::Create(letter, chain.pair)));
        }
        (!self.postgres.lost).then_some(Flow::Concluding)
    }

    fn decide(&mut self, protocol: &Protocol, r: usize) {
        let flow = self.plan(protocol).expect("it was possible");
        if let Flow::Planned { kind: Kind::Heal, .. } = flow {
            self.schedule_sweep(protocol);
        }
        self.replicas[r].flow = flow;
    }

    pub(crate) fn plan_sweep(&self) -> Option<Flow> {
        let postgres = &self.postgres;
        let bearer = postgres.younger().filter(|_| postgres.sweep == SweepJob::Due && postgres.rotatable)?.pair;
        let replaced = [0, 1].map(|letter: usize| postgres.chains.get(letter).and_then(|chain| chain.replaced));
        Some(Flow::PlannedSweep { seen_generation: postgres.chains[0].generation, bearer, replaced })
    }

    /// The next step of what is in a replica's hands.
    fn go_on(&mut self, protocol: &Protocol, r: usize, flow: Flow) -> Flow {
        match flow {
            Flow::Planned { kind, chain, seen_generation, request } => match self.begin(protocol, kind, chain, seen_generation) {
                Some(attempt) => Flow::Begun { attempt, request },
                None => Flow::Idle,
            },
            // Its own clock tells a stalled process that its lease is over.
            Flow::Begun { attempt, .. } if !self.may_send(protocol, &attempt) => {
                Flow::Ending { attempt, ending: Ending::NotSent }
            }
            Flow::Begun { attempt, request } => {
                self.note_sent(request, attempt.kind == Kind::Settle);
                Flow::Calling { attempt, request }
            }
            Flow::Answered { attempt, answer: Answer::Pair(pair) } => {
                let entry = Entry { attempt, pair };
                self.replicas[r].journal.push(entry);
                Flow::Saving { entry, replayed: false }
            }
            Flow::Answered { attempt, answer: Answer::NotFound } => Flow::Ending { attempt, ending: Ending::Spent },
            Flow::Answered { attempt, answer: Answer::Unauthenticated } => Flow::Ending { attempt, ending: Ending::Refused },
            Flow::Saving { entry, replayed } => self.save(protocol, entry, replayed),
            Flow::Marking { entry, saved } => {
                self.replicas[r].journal.retain(|other| *other != entry);
                if saved == Saved::Superseded {
                    return Flow::GivingBack { pair: entry.pair, entry: None, sure: false };
                }
                // Callers are answered now: they are handed what Postgres has.
                self.hand_out(self.postgres.younger().map(|chain| chain.pair));
                Flow::Idle
            }
            Flow::GivingBack { pair, entry, sure } => self.give_back(protocol, pair, entry, sure),
            Flow::Ending { attempt, ending } => {
                self.end(protocol, attempt, ending);
                Flow::Idle
            }
            Flow::Concluding => {
                self.declare_lost();
                Flow::Idle
            }
            sweeping => self.sweep_on(protocol, sweeping),
        }
    }

    fn may_send(&self, protocol: &Protocol, attempt: &Attempt) -> bool {
        self.postgres.holds(attempt) || matches!(protocol.broken, Some(Broken::NoAttemptRow | Broken::BlindRetry))
    }

    fn save(&mut self, protocol: &Protocol, entry: Entry, replayed: bool) -> Flow {
        let Entry { attempt, pair } = entry;
        let mine = self.postgres.attempt.is_some_and(|row| row.attempt.begun == attempt.begun);
        if protocol.broken == Some(Broken::DiscardOnLostRace) && !mine {
            return Flow::Marking { entry, saved: Saved::Discarded };
        }
        match (self.commit(protocol, entry), replayed) {
            (true, _) => Flow::Marking { entry, saved: Saved::Yes { kind: attempt.kind, replayed } },
            (false, false) => Flow::Marking { entry, saved: Saved::Superseded },
            (false, true) => Flow::GivingBack { pair, entry: Some(entry), sure: false },
        }
    }

    /// Only if the row's younger chain is alive; asked first, so others may come between.
    fn give_back(&mut self, protocol: &Protocol, pair: PairId, entry: Option<Entry>, sure: bool) -> Flow {
        let alive = |id: PairId| self.ledger[usize::from(id)].alive;
        let asked = self.postgres.younger().is_some_and(|chain| alive(chain.pair));
        if !sure && (asked || protocol.broken == Some(Broken::RevokeOnLostRace)) {
            return Flow::GivingBack { pair, entry, sure: true };
        }
        if sure {
            self.revoke(protocol, pair);
        }
        entry.map_or(Flow::Idle, |entry| Flow::Marking { entry, saved: Saved::GivenBack })
    }

    /// A caller holds this pair's access token from now on.
    fn hand_out(&mut self, pair: Option<PairId>) {
        let Some(pair) = pair else { return };
        self.ledger[usize::from(pair)].in_use = true;
        if !self.postgres.chains.iter().any(|chain| chain.pair == pair) {
            self.go_wrong(Wrong::HandedOutUnsaved);
        }
    }

    fn let_time_pass(&mut self) {
        self.postgres.rotatable = true;
        if self.postgres.sweep == SweepJob::Later {
            self.postgres.sweep = SweepJob::Due;
        }
        for pair in &mut self.ledger {
            (pair.in_use, pair.fresh) = (false, false);
        }
    }
}
