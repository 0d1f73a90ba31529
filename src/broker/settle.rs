//! Finding out what became of an attempt whose owner is gone, and mending its token.

use std::{sync::PoisonError, time::Duration};

use super::{
    Broker, BrokerError,
    create::Built,
    join::{AFTER_UNAUTHENTICATED, Advance, locked_out},
    plan::{Call, Ended, Plan},
};
use crate::{
    actor::Actor,
    fault::{self, Point},
    jfrog::{Bearer, Reason, Vitality},
    names::Asked,
    store::{ChainState, Lost, TokenState, TokenView},
};

/// After a reconnect to Postgres, dead owners' attempts are left alone for so long.
const AFTER_RECONNECT: Duration = Duration::from_secs(15);

/// What a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing is left to do.
    Done,
    /// Look again later.
    Later(Duration),
    /// Someone else could not or would not do their part: look again later, and later still each time.
    Failed,
}

impl Broker {
    /// Settles a token: ends what is over, then makes what is missing.
    pub(super) async fn settle(&self, mut view: TokenView) -> Result<Settled, BrokerError> {
        let (actor, team, token) = (Actor::system(), view.team_id, view.id);
        if let Some(attempt) = &view.attempt {
            if attempt.live {
                return Ok(Settled::Later(until(&view, attempt.lease_until)));
            }
            if !self.recover(&view).await? {
                return Ok(Settled::Later(AFTER_RECONNECT.min(self.timing.lease)));
            }
            let Some(again) = self.store.token_by_id(team, token).await? else { return Ok(Settled::Done) };
            view = again;
        }
        match view.state {
            // What the lost answer left at JFrog has our marker and no holder: it goes first.
            TokenState::Creating => {
                if self.sweep(&view, Duration::ZERO).await? == Settled::Failed {
                    // A registration given up now would leave behind what nobody looks for any more.
                    return Ok(Settled::Later(self.timing.lease));
                }
                Ok(match self.build(team, token, &actor).await {
                    // Complete is not whole: a chain may be in doubt still.
                    Ok(Built::Complete) => Settled::Later(Duration::ZERO),
                    Ok(Built::GivenUp(_)) => Settled::Done,
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
        if let Some(Advance::Unavailable { retry_after, .. }) = locked_out(view) {
            return Ok(Settled::Later(retry_after));
        }
        if view.active().next().is_none() {
            return self.last_resorts(view, actor).await;
        }
        if view.heal_refused {
            return Ok(Settled::Later(Duration::from_secs(600)));
        }
        let makers = self.makers(view, missing).await?;
        if makers.is_empty() {
            // The other one has expired: whoever rotates it, which needs the token for itself, comes first.
            return Ok(Settled::Later(self.timing.lease));
        }
        Ok(match self.make_chain_with(makers, view, missing, "heal", actor).await? {
            Ended::Committed => Settled::Done,
            _ => Settled::Later(self.timing.lease),
        })
    }

    /// (b) to (d): no chain is known to work.
    async fn last_resorts(&self, view: &TokenView, actor: &Actor) -> Result<Settled, BrokerError> {
        // (b) The old refresh token once more, and never again once it may have reached JFrog: JFrog's answer tells whether it was
        // spent, and if not, it is now, with the answer in hand.
        // With two of them, after a 401 it is the other one's turn: its bearer may be the one that lives.
        let unsure: Vec<_> = view.chains.iter().filter(|chain| chain.state == ChainState::Uncertain && !chain.resent).collect();
        let turn = usize::try_from(view.rejections).unwrap_or(0) % unsure.len().max(1);
        if let Some(chain) = unsure.get(turn) {
            // An outage must not use it up: its 5xx would tell nothing.
            if !self.answers(view).await {
                return Ok(Settled::Later(self.timing.lease));
            }
            let bearers = vec![Bearer::Access(self.open_access(view, chain).await?)];
            let call = Call::Refresh(self.open_refresh(view, chain).await?);
            let asked = Asked::default();
            let plan = Plan {
                view,
                chain,
                kind: "settle",
                call,
                bearers,
                respect_rotatable_at: false,
                asked,
                wanted: None,
                place: &mut None,
            };
            return Ok(Settled::Later(match self.obtain(plan, actor).await? {
                Ended::Committed | Ended::Superseded => Duration::ZERO,
                Ended::Rejected(rejection) if rejection.reason == Reason::RefreshTokenUnknown => Duration::ZERO,
                Ended::Rejected(rejection) if rejection.reason == Reason::Unauthenticated => AFTER_UNAUTHENTICATED,
                _ => self.timing.lease,
            }));
        }
        // (c) An old access token that JFrog still knows makes a new chain.
        let mut undecided = false;
        for chain in view.chains.iter().filter(|chain| chain.access_token.is_some()) {
            match self.vitality(view, chain).await {
                Vitality::Alive => {
                    let bearers = vec![Bearer::Access(self.open_access(view, chain).await?)];
                    let ended = self.make_chain_with(bearers, view, chain, "heal", actor).await?;
                    let healed = matches!(ended, Ended::Committed);
                    return Ok(Settled::Later(if healed { Duration::ZERO } else { self.timing.lease }));
                }
                // Unreachable, 403, 5xx: never conclude.
                Vitality::Unknown => undecided = true,
                Vitality::Dead => {}
            }
        }
        if undecided {
            return Ok(Settled::Later(AFTER_UNAUTHENTICATED));
        }
        // (d) Only a person can help.
        if self.store.declare_lost(view, Lost::NoChain).await? {
            tracing::error!(token = view.name, "the token is lost: it needs to be recreated");
            return Ok(Settled::Done);
        }
        // A pair that came meanwhile may have left the other chain missing.
        let now = self.store.token_by_id(view.team_id, view.id).await?;
        Ok(if now.is_some_and(|now| now.generation != view.generation) { Settled::Later(Duration::ZERO) } else { Settled::Done })
    }

    /// When what an attempt may have left at JFrog can be looked for: nobody can commit it any more, and nobody holds it still.
    pub(super) fn sweep_after(&self, view: &TokenView) -> Duration {
        Duration::from_secs(u64::try_from(view.reuse_for).unwrap_or(0)) + self.timing.lease
    }

    /// Ends an attempt whose lease is over. `false`: not yet.
    pub(super) async fn recover(&self, view: &TokenView) -> Result<bool, BrokerError> {
        // After a failover the row may be older than a pair that another replica is just writing back from its journal.
        let reconnected = *self.reconnected.lock().unwrap_or_else(PoisonError::into_inner);
        if reconnected.is_some_and(|at| at.elapsed() < AFTER_RECONNECT.min(self.timing.lease)) {
            return Ok(false);
        }
        let recovered = self.store.recover_attempt(view.team_id, view.id, self.sweep_after(view)).await?;
        if let Some(kind) = recovered {
            tracing::warn!(token = view.name, kind, "an attempt was found in the dark");
            fault::point(Point::Recovered).await;
        }
        Ok(true)
    }
}

pub(super) fn until(view: &TokenView, at: time::OffsetDateTime) -> Duration {
    Duration::try_from(at - view.now).unwrap_or(Duration::ZERO) + Duration::from_millis(100)
}
