//! Orphans: pairs that JFrog made and nobody holds, because the answer was lost. They are found by their marker and revoked.

use std::time::Duration;

use uuid::Uuid;

use super::{Broker, BrokerError, marker};
use crate::{
    actor::Actor,
    jfrog::{Bearer, Revoked},
    store::{Ending, NewAttempt, TokenView},
};

impl Broker {
    /// Revokes what carries this very token's markers, was issued at least `min_age` ago, and is no pair of ours. Under an
    /// attempt of its own, so no other pair of the token is made meanwhile; with our own ids read after the listing.
    /// `false`: something else is under way, or JFrog could not be asked.
    pub(super) async fn sweep(&self, view: &TokenView, min_age: Duration) -> Result<bool, BrokerError> {
        let actor = Actor::system();
        let Some(instance) = self.jfrog.instance(Some(&view.instance)) else { return Ok(false) };
        let Some(bearer) = self.sweeper(view).await? else { return Ok(false) };
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
        };
        let Some(attempt) = self.store.begin_attempt(&new, &actor).await? else { return Ok(false) };
        let mut complete = true;
        match self.jfrog.list(instance, &bearer, &self.token_marker(view.id)).await {
            Err(detail) => {
                tracing::warn!(token = view.name, detail, "orphans could not be listed");
                complete = false;
            }
            Ok(listed) => {
                let Some(now) = self.store.token_by_id(view.team_id, view.id).await? else { return Ok(false) };
                let ours: Vec<&str> = now.chains.iter().filter_map(|chain| chain.jfrog_token_id.as_deref()).collect();
                let markers: Vec<String> = now.chains.iter().map(|chain| self.chain_marker(view.id, chain.letter)).collect();
                let issued_before = now.now.unix_timestamp() - i64::try_from(min_age.as_secs()).unwrap_or(i64::MAX);
                for orphan in listed {
                    let marked = markers.iter().any(|marker| marker::carries(&orphan.description, marker));
                    let old_enough = orphan.issued_at.is_some_and(|at| at <= issued_before) || min_age.is_zero();
                    if !marked || ours.contains(&orphan.token_id.as_str()) {
                        continue;
                    }
                    if !old_enough {
                        complete = false;
                        continue;
                    }
                    let revoked = self.jfrog.revoke(instance, &bearer, &orphan.token_id).await;
                    tracing::info!(token = view.name, jfrog_token_id = orphan.token_id, ?revoked, "an orphan was found");
                    complete &= matches!(revoked, Revoked::Gone | Revoked::NotRevocable);
                }
            }
        }
        self.end(attempt, Ending { chain_state: None, error: None, keep_lease: false, no_heal_for: None }, &actor).await;
        Ok(complete)
    }

    /// Who may list and revoke: a chain that works, or the identity token of a registration that is being made.
    async fn sweeper(&self, view: &TokenView) -> Result<Option<Bearer>, BrokerError> {
        if let Some(chain) = view.younger() {
            return Ok(Some(Bearer::Access(self.open_access(view, chain).await?)));
        }
        Ok(self.open_identity(view).await?.map(Bearer::Identity))
    }
}
