//! JFrog answered 401: is it one chain, or the user? Each bearer is asked in turn, never more often than JFrog's lock allows, and
//! only what goes on for hours is concluded.

use std::time::Duration;

use super::{
    Broker, BrokerError,
    join::{AFTER_UNAUTHENTICATED, Advance, locked_out},
    settle::Settled,
};
use crate::{
    actor::Actor,
    jfrog::Vitality,
    store::{ChainRow, ChainState, Lost, TokenView},
};

/// Between two probes, once both bearers were refused.
const BETWEEN_PROBES: Duration = Duration::from_secs(1_800);
/// So many refusals in a row, over so many hours, mean the user.
const REJECTED: Lost = Lost::UserRejected { times: 6, hours: 6 };

impl Broker {
    /// One probe. Ends in a success, in a chain given up while the other works, or after hours in `lost`, kind `user-rejected`.
    pub(super) async fn doubt(&self, view: &TokenView) -> Result<Settled, BrokerError> {
        if view.chains.iter().all(|chain| chain.state == ChainState::Lost) {
            return Ok(Settled::Later(BETWEEN_PROBES));
        }
        if let Some(Advance::Unavailable { retry_after, .. }) = locked_out(view) {
            return Ok(Settled::Later(retry_after));
        }
        // A 401 for an expired access token says nothing about the user.
        let speaking: Vec<&ChainRow> = view.active().filter(|chain| view.alive(chain, 60)).collect();
        let turn = usize::try_from(view.rejections).unwrap_or(0);
        let Some(asked) = speaking.get(turn % speaking.len().max(1)) else {
            return self.rotate_in_doubt(view).await;
        };
        match self.vitality(view, asked).await {
            Vitality::Alive => {
                self.store.note_probe(view.team_id, view.id, false).await?;
                for other in speaking.iter().filter(|other| other.id != asked.id) {
                    if self.vitality(view, other).await == Vitality::Dead {
                        self.store.give_up_chain(view.team_id, other, ChainState::Lost, &Actor::system()).await?;
                    }
                }
                Ok(Settled::Later(Duration::from_secs(1)))
            }
            Vitality::Dead => {
                self.store.note_probe(view.team_id, view.id, true).await?;
                self.conclude(view).await
            }
            // Unreachable, 403, 5xx: never conclude.
            Vitality::Unknown => Ok(Settled::Later(AFTER_UNAUTHENTICATED)),
        }
    }

    /// With no bearer left that could be asked, a rotation is the probe: JFrog may take an expired bearer still.
    async fn rotate_in_doubt(&self, view: &TokenView) -> Result<Settled, BrokerError> {
        match self.advance((view.team_id, view.name.clone(), false), &Actor::system()).await {
            Advance::Changed => Ok(Settled::Later(Duration::from_secs(1))),
            _ => self.conclude(view).await,
        }
    }

    /// The statement itself checks how often and how long.
    async fn conclude(&self, view: &TokenView) -> Result<Settled, BrokerError> {
        self.store.declare_lost(view, REJECTED).await?;
        let both = usize::try_from(view.rejections).is_ok_and(|before| before + 1 < view.chains.len());
        Ok(Settled::Later(if both { AFTER_UNAUTHENTICATED } else { BETWEEN_PROBES }))
    }
}
