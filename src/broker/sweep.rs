//! Orphans: pairs that JFrog made and nobody holds, because the answer was lost. They are found by their marker and revoked.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{
    Broker, BrokerError, marker,
    settle::{Settled, until},
};
use crate::{
    actor::Actor,
    jfrog::{Bearer, Instance, Listed, Revoked, Vitality},
    names::Asked,
    store::{Attempt, ChainRow, ChainState, Ending, NewAttempt, TokenState, TokenView},
};

/// Something else is under way for the token.
const BUSY: Duration = Duration::from_secs(2);

impl Broker {
    /// Revokes what carries this very token's markers, was issued at least `min_age` ago, and is no pair of ours. Under an
    /// attempt of its own, so no other pair of the token is made meanwhile; with our own ids read after the listing.
    pub(super) async fn sweep(&self, view: &TokenView, min_age: Duration) -> Result<Settled, BrokerError> {
        // A pair may be handed out long after it was issued: what was replaced goes on working until its holders had their time.
        if let Some(chain) = view.chains.iter().max_by_key(|chain| chain.sweep_after)
            && chain.sweep_after > view.now
        {
            return Ok(Settled::Later(until(view, chain.sweep_after)));
        }
        let (actor, began) = (Actor::system(), Instant::now());
        let Some(instance) = self.jfrog.instance(Some(&view.instance)) else { return Ok(Settled::Failed) };
        // Settling comes first: it makes the chain that can list and revoke, and schedules this again.
        let Some(bearer) = self.sweeper(view).await? else { return Ok(Settled::Later(self.timing.lease)) };
        let chain = &view.chains[0];
        let new = NewAttempt {
            id: Uuid::now_v7(),
            team_id: view.team_id,
            token_id: view.id,
            chain_id: chain.id,
            kind: "sweep",
            seen_generation: chain.generation,
            respect_rotatable_at: false,
            lease: self.timing.lease,
            replica: self.replica,
            asked: Asked::default(),
            master_key: None,
        };
        let Some(attempt) = self.store.begin_attempt(&new, &actor).await? else { return Ok(Settled::Later(BUSY)) };
        let replaced = self.revoke_replaced(view, &attempt, instance, (began, min_age)).await?;
        let swept = match self.list_pairs(instance, &bearer, view).await {
            Ok(listed) => self.revoke_orphans(view, &attempt, (instance, &bearer), listed, (began, min_age)).await?,
            Err(detail) => {
                tracing::warn!(token = view.name, detail, "orphans could not be listed");
                Settled::Failed
            }
        };
        self.end(attempt, Ending { chain_state: None, error: None, keep_lease: false, no_heal_for: None }, &actor).await;
        Ok(if replaced == Settled::Done { swept } else { replaced })
    }

    /// Revokes the pairs that were in the chains' places before, each with itself: they may be another user's, and an imported one
    /// carries no marker. Before it goes, each one finds the orphans that only its user can see.
    async fn revoke_replaced(
        &self,
        view: &TokenView,
        attempt: &Attempt,
        instance: &Instance,
        age: (Instant, Duration),
    ) -> Result<Settled, BrokerError> {
        let ids: Vec<&str> =
            view.chains.iter().filter_map(|chain| Some(chain.replaced.as_ref()?.jfrog_token_id.as_str())).collect();
        let mut complete = Settled::Done;
        for chain in &view.chains {
            let Some(replaced) = &chain.replaced else { continue };
            let bearer = Bearer::Access(self.open_replaced(view, chain, replaced).await?);
            // A dead one can neither list nor be revoked; and each time it is tried counts towards JFrog's lock of its user.
            if self.jfrog.me(instance, &bearer).await == Vitality::Dead {
                self.store.forget_replaced(view.team_id, chain.id, replaced).await?;
                continue;
            }
            let found = match self.list_pairs(instance, &bearer, view).await {
                Ok(mut listed) => {
                    listed.retain(|token| !ids.contains(&token.token_id.as_str()));
                    self.revoke_orphans(view, attempt, (instance, &bearer), listed, age).await?
                }
                Err(_) => Settled::Failed,
            };
            if found != Settled::Done {
                complete = found;
                continue;
            }
            let revoked = self.jfrog.revoke(instance, &bearer, &replaced.jfrog_token_id).await;
            tracing::info!(token = view.name, jfrog_token_id = replaced.jfrog_token_id, ?revoked, "revoked what was replaced");
            // Refused may be dead already: then it cannot say so itself.
            let gone = match revoked {
                Revoked::Gone | Revoked::NotRevocable => true,
                Revoked::Refused(_) => self.jfrog.me(instance, &bearer).await == Vitality::Dead,
                Revoked::Unreachable(_) => false,
            };
            if gone {
                self.store.forget_replaced(view.team_id, chain.id, replaced).await?;
            } else {
                complete = Settled::Failed;
            }
        }
        Ok(complete)
    }

    /// Of what was listed, revokes what is surely nobody's.
    async fn revoke_orphans(
        &self,
        view: &TokenView,
        attempt: &Attempt,
        (instance, bearer): (&Instance, &Bearer),
        listed: Vec<Listed>,
        (began, min_age): (Instant, Duration),
    ) -> Result<Settled, BrokerError> {
        let Some(now) = self.store.token_by_id(view.team_id, view.id).await? else { return Ok(Settled::Done) };
        // Recovery has ended this attempt: someone else may be making a pair now.
        if !now.attempt.as_ref().is_some_and(|row| row.id == attempt.id && row.live) {
            return Ok(Settled::Later(BUSY));
        }
        // A recreate came between the first look and this attempt: what it replaced has its holders still.
        if let Some(chain) = now.chains.iter().find(|chain| chain.sweep_after > now.now && chain.sweep_after > view.now) {
            return Ok(Settled::Later(until(&now, chain.sweep_after)));
        }
        let ours: Vec<&str> = now.chains.iter().filter_map(|chain| chain.jfrog_token_id.as_deref()).collect();
        // The orphan of a chain that is not active may be a pair in the journal of a replica that is away or stalled, and be
        // committed still: it waits until the chain is made. That of a chain whose id JFrog did not tell may be its own pair.
        let known = |chain: &&ChainRow| match chain.state {
            ChainState::Active => chain.jfrog_token_id.is_some(),
            ChainState::Uncertain | ChainState::Lost => now.state == TokenState::Creating && chain.generation == 0,
        };
        let markers: Vec<String> =
            now.chains.iter().filter(known).map(|chain| self.chain_marker(view.id, chain.letter)).collect();
        let mut swept = if markers.len() == now.chains.len() { Settled::Done } else { Settled::Later(self.timing.lease) };
        let issued_before = now.now.unix_timestamp() - i64::try_from(min_age.as_secs()).unwrap_or(i64::MAX);
        let orphan = |token: &Listed| {
            markers.iter().any(|marker| marker::carries(&token.description, marker)) && !ours.contains(&token.token_id.as_str())
        };
        for token in listed.into_iter().filter(orphan) {
            let too_young = token.issued_at.map_or(min_age, |at| seconds(at - issued_before));
            let in_time = began.elapsed() + self.timing.jfrog_timeout < self.timing.lease;
            if !(too_young.is_zero() || min_age.is_zero()) || !in_time {
                swept = Settled::Later(too_young.max(BUSY));
                continue;
            }
            let revoked = self.jfrog.revoke(instance, bearer, &token.token_id).await;
            tracing::info!(token = view.name, jfrog_token_id = token.token_id, ?revoked, "an orphan was found");
            if !matches!(revoked, Revoked::Gone | Revoked::NotRevocable) {
                swept = Settled::Failed;
            }
        }
        Ok(swept)
    }

    /// What carries the markers of the token's chains. Child tokens are not among it: there may be thousands.
    pub(super) async fn list_pairs(&self, instance: &Instance, bearer: &Bearer, view: &TokenView) -> Result<Vec<Listed>, String> {
        let mut listed = Vec::new();
        for chain in &view.chains {
            listed.extend(self.jfrog.list(instance, bearer, &self.chain_marker(view.id, chain.letter)).await?);
        }
        Ok(listed)
    }

    /// Who may list and revoke: a chain that works, or the identity token of a registration that is being made.
    async fn sweeper(&self, view: &TokenView) -> Result<Option<Bearer>, BrokerError> {
        if let Some(chain) = view.younger() {
            return Ok(Some(Bearer::Access(self.open_access(view, chain).await?)));
        }
        Ok(self.open_identity(view).await?.map(Bearer::Identity))
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}
