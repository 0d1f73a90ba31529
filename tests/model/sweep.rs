//! The sweep, a step for each call and statement of `src/broker/sweep.rs`.

use crate::{
    broken::Broken,
    flow::{Ending, Flow, Kind},
    state::{ChainState, PairId, Protocol, State, SweepJob},
};

impl State {
    pub(crate) fn sweep_on(&mut self, protocol: &Protocol, flow: Flow) -> Flow {
        match flow {
            Flow::PlannedSweep { seen_generation, bearer, replaced } => {
                match self.begin(protocol, Kind::Sweep, 0, seen_generation) {
                    Some(attempt) if replaced == [None; 2] => Flow::Listing { attempt, bearer },
                    Some(attempt) => Flow::RevokingReplaced { attempt, bearer, replaced },
                    None => Flow::Idle,
                }
            }
            Flow::RevokingReplaced { attempt, bearer, replaced } => {
                replaced.into_iter().flatten().for_each(|pair| self.revoke(protocol, pair));
                Flow::ForgettingReplaced { attempt, bearer, replaced }
            }
            Flow::ForgettingReplaced { attempt, bearer, replaced } => {
                for chain in &mut self.postgres.chains {
                    chain.replaced = chain.replaced.filter(|pair| !replaced.contains(&Some(*pair)));
                }
                Flow::Listing { attempt, bearer }
            }
            Flow::Listing { attempt, bearer } if self.ledger[usize::from(bearer)].alive => {
                let listed = |id: &PairId| self.ledger[usize::from(*id)].listed();
                let ids = 0..u8::try_from(self.ledger.len()).expect("a small ledger");
                Flow::Comparing { attempt, listed: ids.filter(listed).collect() }
            }
            Flow::Listing { attempt, .. } => Flow::RevokingOrphans { attempt, orphans: Vec::new(), complete: false },
            // Recovery has ended this attempt: someone else may be making a pair now.
            Flow::Comparing { attempt, .. } if !self.postgres.holds(&attempt) => Flow::Idle,
            Flow::Comparing { attempt, listed } => {
                let (orphans, complete) = self.compare(protocol, listed);
                Flow::RevokingOrphans { attempt, orphans, complete }
            }
            Flow::RevokingOrphans { attempt, mut orphans, complete } => {
                if let Some(orphan) = orphans.pop() {
                    self.revoke(protocol, orphan);
                    return Flow::RevokingOrphans { attempt, orphans, complete };
                }
                self.end(protocol, attempt, Ending::NotSent);
                // Unless someone has scheduled it anew.
                if complete && self.postgres.sweep == SweepJob::Due {
                    self.postgres.sweep = SweepJob::None;
                }
                Flow::Idle
            }
            other => unreachable!("{other:?} is no sweep"),
        }
    }

    /// Of what was listed, what is surely nobody's, now; and whether that is all there is to do.
    fn compare(&self, protocol: &Protocol, listed: Vec<PairId>) -> (Vec<PairId>, bool) {
        let chains = &self.postgres.chains;
        // The orphan of a chain that is not active may be a pair in a crashed replica's journal, and be committed still.
        let known = |letter: usize| match chains[letter].state {
            ChainState::Active => true,
            ChainState::Uncertain => false,
            ChainState::Lost => protocol.broken == Some(Broken::SweepBesideALostChain),
        };
        let ours = |id: &PairId| chains.iter().any(|chain| chain.pair == *id);
        let marked = |id: &PairId| match self.ledger[usize::from(*id)].marker {
            Some(letter) => known(usize::from(letter)),
            None => protocol.broken == Some(Broken::SweepWithoutMarker),
        };
        let orphans: Vec<PairId> = listed.into_iter().filter(|id| marked(id) && !ours(id)).collect();
        let old_enough = |id: &PairId| !self.ledger[usize::from(*id)].fresh;
        let complete = orphans.iter().all(old_enough) && (0..chains.len()).all(known);
        (orphans.into_iter().filter(old_enough).collect(), complete)
    }
}
