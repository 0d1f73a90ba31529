//! After a leak: whatever was ever handed out stops working. Both chains are made anew first, so that nobody is left without a
//! token; then what they replaced, and every earlier one that was handed out, is revoked at JFrog.

use std::time::{Duration, Instant};

use super::{Broker, BrokerError, RefreshError, join::RETRY_AFTER, plan::Ended};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Team},
    jfrog::{Bearer, Revoked},
    names::Name,
    store::{ChainRow, GivenUp, TokenState, TokenView},
};

/// How long something else that is under way for the token is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);

/// What became of what was handed out before, by JFrog's ids.
#[derive(Debug, Default)]
pub struct RevokedHandedOut {
    /// Do not work any more.
    pub revoked: Vec<String>,
    /// JFrog does not revoke them: they work until they expire.
    pub not_revocable: Vec<String>,
    /// JFrog could not be told: the call is to be repeated.
    pub unreached: Vec<String>,
}

impl Broker {
    /// Makes both chains anew and revokes every access token that was handed out before. Breaks running jobs.
    ///
    /// # Errors
    /// The caller may not; `Busy` while something else is under way; the token is lost; JFrog could not be asked: repeat it.
    pub async fn revoke_handed_out(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        actor: &Actor,
    ) -> Result<(TokenView, RevokedHandedOut), RefreshError> {
        caller.authorise(Action::ManageTokens, team, Some(name)).map_err(BrokerError::from)?;
        let (broker, team, name, actor) = (self.clone(), team.clone(), name.clone(), actor.clone());
        let work = async move {
            let began = Instant::now();
            loop {
                match broker.renew_and_revoke(&team, name.as_str(), &actor).await {
                    // Often it is only the sweep after the last time this was called.
                    Err(RefreshError::Broker(BrokerError::Busy)) if began.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
                    done => return done,
                }
            }
        };
        self.spawn(work).await.unwrap_or(Err(BrokerError::TaskEnded.into()))
    }

    pub(super) async fn renew_and_revoke(
        &self,
        team: &Team,
        name: &str,
        actor: &Actor,
    ) -> Result<(TokenView, RevokedHandedOut), RefreshError> {
        self.not_frozen()?;
        let before = self.settled_view(team, name).await?;
        // Read before there is anything new: whatever is handed out from here on may be a pair that is made below.
        let handed_out = self.store.handed_out_ids(team.id, before.id).await?;
        for chain in &before.chains {
            self.renew(team, name, chain, actor).await?;
        }
        let view = self.settled_view(team, name).await?;
        let bearer = match view.younger() {
            Some(chain) => Bearer::Access(self.open_access(&view, chain).await?),
            None => return Err(RefreshError::Lost("no chain works any more".to_owned())),
        };
        let instance = self.jfrog.instance(Some(&view.instance));
        let instance = instance.ok_or_else(|| BrokerError::UnknownInstance(view.instance.clone()))?;
        let mut done = RevokedHandedOut::default();
        let current = |id: &String| view.chains.iter().any(|chain| chain.jfrog_token_id.as_ref() == Some(id));
        let earlier = before.chains.iter().filter_map(|chain| chain.jfrog_token_id.clone()).chain(handed_out);
        let mut ids: Vec<String> = earlier.filter(|id| !current(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            match self.jfrog.revoke(instance, &bearer, &id).await {
                Revoked::Gone => done.revoked.push(id),
                Revoked::NotRevocable => done.not_revocable.push(id),
                Revoked::Refused(_) | Revoked::Unreachable(_) => done.unreached.push(id),
            }
        }
        let children = GivenUp { token_id: Some(view.id), ..GivenUp::default() };
        self.store.give_up_children(team.id, &children, actor).await?;
        // What bears the token's marker and is no pair of ours goes too, and what was replaced: at once, not after its holders' time.
        self.store.end_protection(team.id, view.id, (&done.revoked, &done.not_revocable, &done.unreached), actor).await?;
        Ok((view, done))
    }

    /// Puts a new pair in the chain's place, made with whatever chain works.
    async fn renew(&self, team: &Team, name: &str, chain: &ChainRow, actor: &Actor) -> Result<(), RefreshError> {
        let view = self.settled_view(team, name).await?;
        let mut bearers = Vec::new();
        for other in view.active().filter(|other| view.alive(other, 1)) {
            bearers.push(Bearer::Access(self.open_access(&view, other).await?));
        }
        let unavailable = |detail, retry_after| RefreshError::JfrogUnavailable { detail, retry_after };
        let now = view.chains.iter().find(|now| now.id == chain.id);
        let now = now.ok_or_else(|| BrokerError::NotFound(format!("token {name}")))?;
        match self.make_chain_with(bearers, &view, now, "heal", actor).await? {
            Ended::Committed => Ok(()),
            Ended::NotBegun | Ended::Superseded => Err(BrokerError::Busy.into()),
            Ended::NotSent(detail) => Err(unavailable(detail, RETRY_AFTER)),
            Ended::Rejected(rejection) => {
                let detail = format!("JFrog refused to make a new chain: {} {}", rejection.status, rejection.message);
                Err(unavailable(detail, RETRY_AFTER))
            }
            Ended::NotRefreshable => Err(unavailable("JFrog gave no refresh token".to_owned(), RETRY_AFTER)),
            Ended::Unknown(detail) => Err(unavailable(detail, self.timing.lease)),
        }
    }

    /// The token with nothing under way.
    async fn settled_view(&self, team: &Team, name: &str) -> Result<TokenView, RefreshError> {
        let missing = || BrokerError::NotFound(format!("token {name}"));
        let mut view = self.store.token(team.id, name).await?.ok_or_else(missing)?;
        if view.attempt.as_ref().is_some_and(|attempt| !attempt.live) {
            if !self.recover(&view).await? {
                return Err(BrokerError::Busy.into());
            }
            view = self.store.token(team.id, name).await?.ok_or_else(missing)?;
        }
        match view.state {
            TokenState::Revoked => Err(RefreshError::Revoked),
            TokenState::Creating => Err(RefreshError::Creating),
            TokenState::Registered if view.attempt.is_some() => Err(BrokerError::Busy.into()),
            TokenState::Registered if view.younger().is_none() => {
                Err(RefreshError::Lost("no chain works that could make new ones".to_owned()))
            }
            TokenState::Registered => Ok(view),
        }
    }
}
