//! Finding out what became of an attempt whose owner is gone, and mending its token.

use std::time::Duration;

use uuid::Uuid;

use super::{Broker, BrokerError, create::Built, rotate::Ended};
use crate::{
    actor::Actor,
    store::{ChainState, TokenState, TokenView},
};

/// What a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing is left to do.
    Done,
    /// Look again later.
    Later(Duration),
}

impl Broker {
    /// Settles a token: ends what is over, then makes what is missing.
    pub(super) async fn settle(&self, team: Uuid, token: Uuid) -> Result<Settled, BrokerError> {
        let actor = Actor::system();
        let Some(mut view) = self.store.token_by_id(team, token).await? else { return Ok(Settled::Done) };
        if let Some(attempt) = &view.attempt {
            if attempt.live {
                return Ok(Settled::Later(until(&view, attempt.lease_until)));
            }
            self.recover(&view).await?;
            let Some(again) = self.store.token_by_id(team, token).await? else { return Ok(Settled::Done) };
            view = again;
        }
        match view.state {
            // What the lost answer left at JFrog has our marker and no holder: it goes first.
            TokenState::Creating => {
                self.sweep(&view, Duration::ZERO).await?;
                Ok(match self.build(team, token, &actor).await {
                    Ok(Built::Complete | Built::GivenUp(_)) => Settled::Done,
                    Ok(Built::Pending(_)) | Err(_) => Settled::Later(self.timing.lease),
                })
            }
            TokenState::Revoked => Ok(Settled::Done),
            TokenState::Registered => self.mend(&view, &actor).await,
        }
    }

    /// (a) of DESIGN.md's order: the other chain is alive, so a new one is made with it.
    async fn mend(&self, view: &TokenView, actor: &Actor) -> Result<Settled, BrokerError> {
        let Some(missing) = view.missing() else { return Ok(Settled::Done) };
        if view.active().next().is_none() {
            tracing::warn!(token = view.name, "no chain of the token works");
            let uncertain = view.chains.iter().any(|chain| chain.state == ChainState::Uncertain);
            return Ok(if uncertain { Settled::Later(Duration::from_secs(600)) } else { Settled::Done });
        }
        if view.heal_refused {
            return Ok(Settled::Later(Duration::from_secs(600)));
        }
        Ok(match self.make_chain(view, missing, "heal", actor).await? {
            Ended::Committed => Settled::Done,
            _ => Settled::Later(self.timing.lease),
        })
    }

    /// When what an attempt may have left at JFrog can be looked for: nobody can commit it any more, and nobody holds it still.
    pub(super) fn sweep_after(&self, view: &TokenView) -> Duration {
        Duration::from_secs(u64::try_from(view.reuse_for).unwrap_or(0)) + self.timing.lease
    }

    /// Ends an attempt whose lease is over.
    pub(super) async fn recover(&self, view: &TokenView) -> Result<(), BrokerError> {
        let recovered = self.store.recover_attempt(view.team_id, view.id, self.sweep_after(view)).await?;
        if let Some(kind) = recovered {
            tracing::warn!(token = view.name, kind, "an attempt was found in the dark");
        }
        Ok(())
    }
}

fn until(view: &TokenView, at: time::OffsetDateTime) -> Duration {
    Duration::try_from(at - view.now).unwrap_or(Duration::ZERO) + Duration::from_millis(100)
}
