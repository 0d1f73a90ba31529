//! What there is: Postgres, two replicas, and what is known of JFrog. Small, because every state of it is visited.

use crate::{
    broken::Broken,
    flow::{Attempt, Flow, Replica, Request},
};

/// Index into [`State::ledger`].
pub(crate) type PairId = u8;
/// 0 is chain a, 1 is chain b.
pub(crate) type Letter = u8;

/// The parameters of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// Two as designed, or one: what a token lives on when JFrog refuses a second.
    pub chains: u8,
    /// How many failures may come together: after the token has come to rest, as many may come again.
    pub faults: u8,
    /// Whether JFrog kills the old access token when its refresh token is spent.
    pub rotation_kills: bool,
    /// Whether what was handed out must go on working: one chain alone cannot promise that.
    pub reuse: bool,
    /// Whether a pair that JFrog made may vanish before any journal has it.
    pub answers_vanish: bool,
    /// Whether others may revoke one of our chains at JFrog while the token is at rest; a caller notices.
    pub outsiders: bool,
    /// What is done wrong on purpose.
    pub broken: Option<Broken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub postgres: Postgres,
    pub replicas: [Replica; 2],
    /// JFrog's memory. Pairs that are dead and that nobody remembers are forgotten here too.
    pub ledger: Vec<Pair>,
    /// Calls whose sender is gone: JFrog may still execute them, at any time, and nobody hears the answer.
    pub strays: Vec<Request>,
    /// The latest time that is remembered.
    pub latest: u8,
    pub faults_left: u8,
    /// The first thing that must never happen.
    pub wrong: Option<Wrong>,
}

/// A pair at JFrog: an access token and its refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// Of which chain its marker says it is; `None`: a person's own token, which has no marker of ours.
    pub marker: Option<Letter>,
    /// Whether its refresh token is spent or revoked.
    pub spent: bool,
    /// Whether its access token works.
    pub alive: bool,
    /// How often its refresh token was sent.
    pub sends: u8,
    /// Handed out, and its holders' `reuse_for` is not over.
    pub in_use: bool,
    /// Issued less than `reuse_for` ago.
    pub fresh: bool,
}

/// One token's rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Postgres {
    pub chains: Vec<ChainRow>,
    pub attempt: Option<AttemptRow>,
    /// `rotatable_at <= now()`.
    pub rotatable: bool,
    pub sweep: SweepJob,
    /// `declare_lost` has called a person.
    pub lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChainRow {
    pub state: ChainState,
    pub generation: u8,
    pub resent: bool,
    pub pair: PairId,
    /// `refreshed_at`: when the attempt that obtained the pair began.
    pub begun: u8,
    /// The pair that a heal replaced, until it is revoked.
    pub replaced: Option<PairId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChainState {
    Active,
    Uncertain,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttemptRow {
    pub attempt: Attempt,
    /// Whether its lease still runs.
    pub live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SweepJob {
    None,
    /// Due once `reuse_for` and a lease are over.
    Later,
    Due,
}

/// What no run may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    SentTwice,
    HandedOutUnsaved,
    KilledInUse,
    WentBack,
    RevokedAnothers,
    RevokedCurrent,
}

impl State {
    /// Both chains were just made, a before b; and there is a person's token.
    pub(crate) fn registered(protocol: &Protocol) -> Self {
        let fine = Pair { marker: None, spent: false, alive: true, sends: 0, in_use: false, fresh: false };
        let letters = 0..protocol.chains;
        let row = |letter: Letter| ChainRow {
            state: ChainState::Active,
            generation: 1,
            resent: false,
            pair: letter + 1,
            begun: letter + 1,
            replaced: None,
        };
        let replica = Replica { journal: Vec::new(), flow: Flow::Idle };
        let mut state = Self {
            postgres: Postgres {
                chains: letters.clone().map(row).collect(),
                attempt: None,
                rotatable: true,
                sweep: SweepJob::None,
                lost: false,
            },
            replicas: [replica.clone(), replica],
            ledger: std::iter::once(fine).chain(letters.map(|letter| Pair { marker: Some(letter), ..fine })).collect(),
            strays: Vec::new(),
            latest: protocol.chains,
            faults_left: protocol.faults,
            wrong: None,
        };
        state.hand_out_freely();
        state
    }

    /// The worst case: whatever Postgres has as the younger chain is in somebody's hands at once.
    pub(crate) fn hand_out_freely(&mut self) {
        if let Some(younger) = self.postgres.younger() {
            self.ledger[usize::from(younger.pair)].in_use = true;
        }
    }

    /// Only the first counts.
    pub(crate) fn go_wrong(&mut self, wrong: Wrong) {
        self.wrong = self.wrong.or(Some(wrong));
    }

    /// Nothing is under way, all is mended, and nothing is planned but the next rotation.
    pub(crate) fn at_rest(&self) -> bool {
        let idle = |replica: &Replica| replica.flow == Flow::Idle && replica.journal.is_empty();
        self.postgres.attempt.is_none()
            && self.postgres.sweep == SweepJob::None
            && self.postgres.rotatable
            && self.postgres.missing().is_none()
            && self.replicas.iter().all(idle)
            && self.strays.is_empty()
    }

    /// What carries our marker, could be rotated, and is no pair of ours.
    pub(crate) fn orphans(&self) -> usize {
        let ours = |id: usize| self.postgres.chains.iter().any(|chain| usize::from(chain.pair) == id);
        self.ledger.iter().enumerate().filter(|(id, pair)| pair.marker.is_some() && pair.listed() && !ours(*id)).count()
    }
}

impl Pair {
    /// Whether JFrog's list shows it: spent ones gave their row to their successor.
    pub(crate) fn listed(&self) -> bool {
        self.alive && !self.spent
    }
}

impl Postgres {
    pub(crate) fn chain(&mut self, letter: Letter) -> &mut ChainRow {
        &mut self.chains[usize::from(letter)]
    }

    fn active(&self) -> impl Iterator<Item = (Letter, &ChainRow)> {
        (0..).zip(&self.chains).filter(|(_, chain)| chain.state == ChainState::Active)
    }

    /// The one that is handed out.
    pub(crate) fn younger(&self) -> Option<&ChainRow> {
        self.active().map(|(_, chain)| chain).max_by_key(|chain| chain.begun)
    }

    /// The one that is rotated next.
    pub(crate) fn older(&self) -> Option<(Letter, &ChainRow)> {
        self.active().min_by_key(|(_, chain)| chain.begun)
    }

    /// The first chain that does not work.
    pub(crate) fn missing(&self) -> Option<(Letter, &ChainRow)> {
        (0..).zip(&self.chains).find(|(_, chain)| chain.state != ChainState::Active)
    }

    /// Whether this attempt still stands, and its lease runs.
    pub(crate) fn holds(&self, attempt: &Attempt) -> bool {
        self.attempt.is_some_and(|row| row.live && row.attempt.begun == attempt.begun)
    }
}
