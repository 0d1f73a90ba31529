//! The statements of `src/store/attempts.rs`, each atomic.

use crate::{
    broken::Broken,
    flow::{Attempt, Ending, Entry, Kind},
    state::{AttemptRow, ChainRow, ChainState, Letter, Protocol, State, SweepJob, Wrong},
};

impl State {
    /// `begin_attempt`: one attempt a token, on the generation that was seen.
    pub(crate) fn begin(&mut self, protocol: &Protocol, kind: Kind, letter: Letter, seen_generation: u8) -> Option<Attempt> {
        let chain = *self.postgres.chain(letter);
        let may = match kind {
            Kind::Rotate => chain.state == ChainState::Active && self.postgres.rotatable,
            Kind::Settle => chain.state == ChainState::Uncertain && !chain.resent,
            Kind::Heal | Kind::Sweep => true,
        };
        let moved_on = chain.generation != seen_generation && protocol.broken != Some(Broken::BeginWithoutALook);
        if self.postgres.attempt.is_some() || moved_on || !may {
            return None;
        }
        let attempt = Attempt { begun: self.latest + 1, kind, chain: letter, spent_generation: seen_generation };
        if protocol.broken != Some(Broken::NoAttemptRow) {
            self.postgres.attempt = Some(AttemptRow { attempt, live: true });
        }
        self.postgres.chain(letter).resent |= kind == Kind::Settle;
        Some(attempt)
    }

    /// `commit_pair`: onto the generation it was spent from, whoever holds the attempt now. `false`: superseded.
    pub(crate) fn commit(&mut self, protocol: &Protocol, entry: Entry) -> bool {
        let Entry { attempt, pair } = entry;
        let chain = *self.postgres.chain(attempt.chain);
        if chain.generation != attempt.spent_generation && protocol.broken != Some(Broken::NoFence) {
            // Ours already, or someone else's.
            return chain.pair == pair && protocol.broken != Some(Broken::RevokeOnLostRace);
        }
        if attempt.spent_generation < chain.generation && chain.pair != pair {
            self.go_wrong(Wrong::WentBack);
        }
        *self.postgres.chain(attempt.chain) = ChainRow {
            state: ChainState::Active,
            generation: attempt.spent_generation + 1,
            resent: false,
            pair,
            begun: attempt.begun,
            replaced: if attempt.kind == Kind::Heal { Some(chain.pair) } else { chain.replaced },
        };
        self.postgres.rotatable = false;
        self.postgres.lost = false;
        self.postgres.attempt = self.postgres.attempt.filter(|row| row.attempt.begun != attempt.begun);
        true
    }

    /// `end_attempt`: a late owner, whose attempt was ended by recovery, ends nothing.
    pub(crate) fn end(&mut self, protocol: &Protocol, attempt: Attempt, ending: Ending) {
        if self.postgres.attempt.is_none_or(|row| row.attempt.begun != attempt.begun) {
            return;
        }
        let keep_lease = ending == Ending::Unknown;
        if !keep_lease {
            self.postgres.attempt = None;
        }
        let chain = self.postgres.chain(attempt.chain);
        if chain.generation != attempt.spent_generation {
            return;
        }
        // What was definitely not spent may be sent again: that of this attempt, no other's.
        if !keep_lease && (attempt.kind == Kind::Settle || protocol.broken == Some(Broken::ForgetsThatItWasSent)) {
            chain.resent = false;
        }
        match ending {
            Ending::Unknown if attempt.kind.spends() => chain.state = ChainState::Uncertain,
            Ending::Spent => chain.state = ChainState::Lost,
            Ending::Unknown | Ending::NotSent | Ending::Refused => {}
        }
    }

    /// `recover_attempt`: its lease is over. A rotation found in the dark leaves its chain uncertain.
    pub(crate) fn recover(&mut self, protocol: &Protocol) {
        let Some(AttemptRow { attempt, live: false }) = self.postgres.attempt else { return };
        self.postgres.attempt = None;
        self.schedule_sweep(protocol);
        let chain = self.postgres.chain(attempt.chain);
        if attempt.kind == Kind::Rotate && chain.generation == attempt.spent_generation && chain.state == ChainState::Active {
            chain.state = ChainState::Uncertain;
        }
    }

    /// `schedule`: what may be left at JFrog is looked for once `reuse_for` and a lease are over.
    pub(crate) fn schedule_sweep(&mut self, protocol: &Protocol) {
        if protocol.broken != Some(Broken::NeverSweeps) {
            self.postgres.sweep = SweepJob::Later;
        }
    }

    /// `declare_lost`.
    pub(crate) fn declare_lost(&mut self) {
        if self.postgres.attempt.is_none() && self.postgres.younger().is_none() {
            self.postgres.chains.iter_mut().for_each(|chain| chain.state = ChainState::Lost);
            self.postgres.lost = true;
        }
    }
}

impl Kind {
    /// Whether it sends a refresh token.
    pub(crate) fn spends(self) -> bool {
        matches!(self, Self::Rotate | Self::Settle)
    }
}
