//! What must hold in every state, and what must happen in some, so that holding means something.

use stateright::Property;

use crate::{
    flow::{Answer, Attempt, Flow, Kind, Saved},
    state::{Protocol, State, Wrong},
};

/// Or healed until it can be: at rest means that nothing is left to heal.
pub(crate) const ROTATES: &str = "a token at rest can be rotated, each chain of it";
/// With two chains never at all; with one, only while a replica that is away has the pair: it is committed when that one is back.
pub(crate) const NEVER_LOST: &str = "no person is called while somebody has the pair";
/// No attempt, entry or chain is stuck; a new rotation does not count, recovery must not need one.
pub(crate) const GOES_ON: &str = "what is not at rest can go on without a failure";
/// At rest means also: after the sweep.
pub(crate) const NO_ORPHAN: &str = "a token at rest leaves no orphan";
/// But for the one resend of settling.
pub(crate) const SENT_ONCE: &str = "no refresh token is sent twice";
/// Callers are answered after the commit.
pub(crate) const SAVED_FIRST: &str = "what is handed out is in Postgres";
/// Within `reuse_for` after something newer is handed out.
pub(crate) const LEFT_ALIVE: &str = "what is in use is not killed";
/// The fence.
pub(crate) const FORWARD: &str = "no generation goes back, no older pair takes a newer one's place";
/// What has no marker of ours.
pub(crate) const LEFT_TO_OTHERS: &str = "nothing of another's is revoked";
/// What an active chain's row holds.
pub(crate) const CURRENT_KEPT: &str = "no current pair is revoked";

impl Protocol {
    pub(crate) fn promises(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always(ROTATES, |_, state| {
                let fine = |id: u8| state.ledger[usize::from(id)].listed();
                !state.at_rest() || state.postgres.chains.iter().all(|chain| fine(chain.pair))
            }),
            Property::<Self>::always(NEVER_LOST, |protocol, state| {
                // With two chains never; with one, only until the replica that has it is back.
                !state.postgres.lost || protocol.chains == 1 && state.is_somewhere()
            }),
            Property::<Self>::always(GOES_ON, |protocol, state| {
                state.at_rest() || state.wrong.is_some() || state.can_go_on(protocol)
            }),
            Property::<Self>::always(NO_ORPHAN, |_, state| !state.at_rest() || state.orphans() == 0),
            Property::<Self>::always(SENT_ONCE, |_, state| state.wrong != Some(Wrong::SentTwice)),
            Property::<Self>::always(SAVED_FIRST, |_, state| state.wrong != Some(Wrong::HandedOutUnsaved)),
            Property::<Self>::always(LEFT_ALIVE, |_, state| state.wrong != Some(Wrong::KilledInUse)),
            Property::<Self>::always(FORWARD, |_, state| state.wrong != Some(Wrong::WentBack)),
            Property::<Self>::always(LEFT_TO_OTHERS, |_, state| state.wrong != Some(Wrong::RevokedAnothers)),
            Property::<Self>::always(CURRENT_KEPT, |_, state| state.wrong != Some(Wrong::RevokedCurrent)),
        ];
        all.extend(self.sights());
        all
    }

    /// What is seen in some run.
    fn sights(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::sometimes("a rotation", |_, state| state.has_saved(Kind::Rotate, false)),
            Property::<Self>::sometimes("a pair committed from the journal", |_, state| state.has_saved(Kind::Rotate, true)),
        ];
        match self.chains {
            1 => all.push(Property::<Self>::sometimes("a refresh token sent once more, with success", |_, state| {
                state.has_saved(Kind::Settle, false)
            })),
            _ => all.extend([
                Property::<Self>::sometimes("a chain made anew", |_, state| state.has_saved(Kind::Heal, false)),
                Property::<Self>::sometimes("a late pair given back", |_, state| {
                    state.replicas.iter().any(|replica| matches!(replica.flow, Flow::GivingBack { sure: true, .. }))
                }),
                Property::<Self>::sometimes("an orphan found", |_, state| {
                    let finds = |flow: &Flow| matches!(flow, Flow::RevokingOrphans { orphans, .. } if !orphans.is_empty());
                    state.replicas.iter().any(|replica| finds(&replica.flow))
                }),
            ]),
        }
        all
    }
}

impl State {
    fn has_saved(&self, wanted: Kind, from_the_journal: bool) -> bool {
        let saved = |flow: &Flow| {
            matches!(flow, Flow::Marking { saved: Saved::Yes { kind, replayed }, .. }
                if *kind == wanted && *replayed == from_the_journal)
        };
        self.replicas.iter().any(|replica| saved(&replica.flow))
    }

    /// Whether a replica has the next pair, in its journal or, stalled, in hand.
    fn is_somewhere(&self) -> bool {
        let next = |attempt: &Attempt| self.postgres.chains[usize::from(attempt.chain)].generation == attempt.spent_generation;
        let in_hand = |flow: &Flow| matches!(flow, Flow::Answered { attempt, answer: Answer::Pair(_) } if next(attempt));
        self.replicas.iter().any(|replica| in_hand(&replica.flow) || replica.journal.iter().any(|entry| next(&entry.attempt)))
    }

    fn can_go_on(&self, protocol: &Protocol) -> bool {
        let mut actions = Vec::new();
        self.possible(protocol, &mut actions);
        actions.into_iter().any(|action| self.mends(protocol, action))
    }
}
