//! Deleting a token: revoked at JFrog first, forgotten afterwards. Can be repeated until it has worked.

use uuid::Uuid;

use super::{Broker, BrokerError, join::RETRY_AFTER, marker};
use crate::{
    actor::Actor,
    fault::{self, Point},
    identity::{Action, Caller, Team},
    jfrog::{Bearer, Instance, Revoked, Vitality},
    names::{Asked, Name},
    store::{ChildRow, ChildState, Ending, NewAttempt, TokenView},
};

/// Child tokens that are revoked in one delete; more: it is repeated.
const MOST_CHILDREN: i64 = 5_000;

impl Broker {
    /// Revokes child tokens, both chains and whatever carries the token's markers, then forgets the token. With `force` it is forgotten even
    /// if JFrog could not be told, and the audit says so.
    ///
    /// # Errors
    /// `Busy` while something else is under way; `JfrogUnavailable` when JFrog could not be told: repeat it.
    pub async fn delete(&self, caller: &Caller, team: &Team, name: &Name, force: bool, actor: &Actor) -> Result<(), BrokerError> {
        caller.authorise(Action::ManageTokens, team, Some(name))?;
        let (broker, team, name, actor) = (self.clone(), team.clone(), name.clone(), actor.clone());
        let work = async move { broker.delete_to_the_end(&team, &name, force, &actor).await };
        self.spawn(work).await.unwrap_or(Err(BrokerError::TaskEnded))
    }

    async fn delete_to_the_end(&self, team: &Team, name: &Name, force: bool, actor: &Actor) -> Result<(), BrokerError> {
        let missing = || BrokerError::NotFound(format!("token {name}"));
        self.not_frozen()?;
        let mut view = self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?;
        if view.attempt.as_ref().is_some_and(|attempt| !attempt.live) {
            if !self.recover(&view).await? {
                return Err(BrokerError::Busy);
            }
            view = self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?;
        }
        let chain = view.chains.first().ok_or_else(missing)?;
        let new = NewAttempt {
            id: Uuid::now_v7(),
            team_id: team.id,
            token_id: view.id,
            chain_id: chain.id,
            kind: "delete",
            seen_generation: chain.generation,
            respect_rotatable_at: false,
            lease: self.timing.lease,
            replica: self.replica,
            asked: Asked::default(),
            master_key: None,
        };
        let attempt = self.store.begin_attempt(&new, actor).await?.ok_or(BrokerError::Busy)?;
        self.store.mark_revoked(team.id, view.id).await?;
        // As it is under the attempt: a pair may have been committed since it was read.
        let view = self.store.token_by_id(team.id, view.id).await?.ok_or_else(missing)?;
        let revoked = self.revoke_everything(&view).await;
        fault::point(Point::Revoked).await;
        let reason = match revoked {
            Ok(()) => None,
            Err(detail) if force => Some(format!("forced; JFrog could not be told: {detail}")),
            Err(detail) => {
                let error = Some(("revocation-failed", detail.clone()));
                self.end(attempt, Ending { chain_state: None, error, keep_lease: false, no_heal_for: None }, actor).await;
                return Err(BrokerError::JfrogUnavailable { detail, retry_after: RETRY_AFTER });
            }
        };
        let gone = self.store.forget_token(team.id, view.id, "token.delete", reason.as_deref(), actor).await?;
        // Another delete was faster: it has the audit row.
        if gone { Ok(()) } else { Err(missing()) }
    }

    /// Orphans by their markers first, while a pair can still list them; then each pair, with itself as bearer. What was replaced
    /// goes too: it may be another user's, whose orphans only it can see, and an imported one bears no marker.
    async fn revoke_everything(&self, view: &TokenView) -> Result<(), String> {
        let instance = self.jfrog.instance(Some(&view.instance)).ok_or_else(|| format!("{} is not configured", view.instance))?;
        let pairs = self.pairs(view).await.map_err(|error| error.to_string())?;
        let ours: Vec<&str> = pairs.iter().filter_map(|(_, id)| *id).collect();
        let mut children =
            self.store.live_children(view.team_id, Some(view.id), MOST_CHILDREN).await.map_err(|error| error.to_string())?;
        for (bearer, _) in &pairs {
            match self.jfrog.me(instance, bearer).await {
                Vitality::Alive => self.revoke_all(view, instance, bearer, std::mem::take(&mut children)).await?,
                Vitality::Dead => continue,
                // It may be the only one that can see an orphan.
                Vitality::Unknown => return Err("JFrog does not say what is alive".to_owned()),
            }
            for orphan in self.list_pairs(instance, bearer, view).await? {
                let marked =
                    view.chains.iter().any(|c| marker::carries(&orphan.description, &self.chain_marker(view.id, c.letter)));
                if marked && !ours.contains(&orphan.token_id.as_str()) {
                    self.revoke_one(instance, bearer, &orphan.token_id).await?;
                }
            }
        }
        if !children.is_empty() {
            return Err(format!("no chain works that could revoke {} child tokens", children.len()));
        }
        for (bearer, id) in &pairs {
            if let Some(id) = id {
                self.revoke_one(instance, bearer, id).await?;
            }
        }
        Ok(())
    }

    /// Child tokens end with the token that they were made with.
    async fn revoke_all(
        &self,
        view: &TokenView,
        instance: &Instance,
        bearer: &Bearer,
        children: Vec<ChildRow>,
    ) -> Result<(), String> {
        let count = children.len();
        let told = self.tell_of_children(view, instance, bearer, children).await.map_err(|error| error.to_string())?;
        let ended = told.iter().filter(|told| told.state != ChildState::Revoking).count();
        if ended == count { Ok(()) } else { Err(format!("{} child tokens are not revoked yet", count - ended)) }
    }

    /// Everything of the token that may live at JFrog, with its id there; and the identity token of a half-made registration.
    async fn pairs<'a>(&self, view: &'a TokenView) -> Result<Vec<(Bearer, Option<&'a str>)>, BrokerError> {
        let mut pairs = Vec::new();
        for chain in &view.chains {
            if chain.access_token.is_some() {
                pairs.push((Bearer::Access(self.open_access(view, chain).await?), chain.jfrog_token_id.as_deref()));
            }
            if let Some(replaced) = &chain.replaced {
                let token = self.open_replaced(view, chain, replaced).await?;
                pairs.push((Bearer::Access(token), Some(replaced.jfrog_token_id.as_str())));
            }
        }
        pairs.extend(self.open_identity(view).await?.map(|token| (Bearer::Identity(token), None)));
        Ok(pairs)
    }

    async fn revoke_one(&self, instance: &Instance, bearer: &Bearer, id: &str) -> Result<(), String> {
        match self.jfrog.revoke(instance, bearer, id).await {
            Revoked::Gone => Ok(()),
            Revoked::NotRevocable => {
                tracing::info!(jfrog_token_id = id, "JFrog does not revoke this token: it lives until it expires");
                Ok(())
            }
            // A bearer that JFrog does not know any more was revoked already, or has expired.
            Revoked::Refused(detail) => match self.jfrog.me(instance, bearer).await {
                Vitality::Dead => Ok(()),
                Vitality::Alive | Vitality::Unknown => Err(detail),
            },
            Revoked::Unreachable(detail) => Err(detail),
        }
    }
}
