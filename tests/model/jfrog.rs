//! JFrog: what it does when a call is executed. Refresh tokens are single-use; a bearer of a refresh need not be alive, that of
//! a create must be (as the simulator has it).

use crate::{
    flow::{Answer, Request},
    state::{ChainRow, ChainState, Letter, Pair, PairId, Protocol, State, Wrong},
};

impl State {
    pub(crate) fn execute(&mut self, protocol: &Protocol, request: Request) -> Answer {
        match request {
            Request::Refresh(id) if self.ledger[usize::from(id)].spent => Answer::NotFound,
            Request::Refresh(id) => {
                self.ledger[usize::from(id)].spent = true;
                if protocol.rotation_kills {
                    self.kill(protocol, id);
                }
                self.issue(self.ledger[usize::from(id)].marker)
            }
            Request::Create(_, bearer) if !self.ledger[usize::from(bearer)].alive => Answer::Unauthenticated,
            Request::Create(letter, _) => self.issue(Some(letter)),
        }
    }

    fn issue(&mut self, marker: Option<Letter>) -> Answer {
        self.ledger.push(Pair { marker, spent: false, alive: true, sends: 0, in_use: false, fresh: true });
        Answer::Pair(u8::try_from(self.ledger.len() - 1).expect("a small ledger"))
    }

    /// A refresh token is on its way to JFrog: from now on it may have been spent.
    pub(crate) fn note_sent(&mut self, request: Request, settling: bool) {
        let Request::Refresh(id) = request else { return };
        let pair = &mut self.ledger[usize::from(id)];
        pair.sends += 1;
        if pair.sends > if settling { 2 } else { 1 } {
            self.go_wrong(Wrong::SentTwice);
        }
    }

    pub(crate) fn revoke(&mut self, protocol: &Protocol, id: PairId) {
        let current = |chain: &ChainRow| chain.pair == id && chain.state == ChainState::Active;
        if self.postgres.chains.iter().any(current) {
            self.go_wrong(Wrong::RevokedCurrent);
        }
        if self.ledger[usize::from(id)].marker.is_none() {
            self.go_wrong(Wrong::RevokedAnothers);
        }
        self.ledger[usize::from(id)].spent = true;
        self.kill(protocol, id);
    }

    fn kill(&mut self, protocol: &Protocol, id: PairId) {
        let pair = self.ledger[usize::from(id)];
        if pair.alive && pair.in_use && protocol.reuse {
            self.go_wrong(Wrong::KilledInUse);
        }
        self.ledger[usize::from(id)].alive = false;
    }
}
