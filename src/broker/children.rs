//! Child tokens that were issued: listed, given back, and revoked at JFrog in the background, as often as it takes.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Broker, BrokerError, join::locked_out, settle::Settled};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Role, Team},
    jfrog::{Bearer, Instance, Revoked},
    names::Name,
    store::{ChildRow, ChildState, GivenUp, TokenView, Told},
};

/// Revoked in one turn of the job.
const A_TURN: i64 = 256;
/// Of these at once.
const AT_ONCE: usize = 8;
/// No chain works now, or JFrog refuses its user: others see to that first.
const NOBODY_TO_ASK: Duration = Duration::from_secs(60);

impl Broker {
    /// A page of a token's child tokens, the newest first, older than `before`. An admin sees all, a job those that it was issued.
    ///
    /// # Errors
    /// The caller may not, there is no such token, or Postgres.
    pub async fn list_children(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ChildRow>, BrokerError> {
        let (token, credential) = self.own_children(caller, team, name).await?;
        Ok(self.store.list_children(team.id, token, credential.as_deref(), before, limit).await?)
    }

    /// Gives a child token up: JFrog is told in the background.
    ///
    /// # Errors
    /// The caller may not, there is none that it may see, or Postgres.
    pub async fn give_up_child(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        token_id: &str,
        actor: &Actor,
    ) -> Result<ChildRow, BrokerError> {
        self.not_frozen()?;
        let (token, credential) = self.own_children(caller, team, name).await?;
        let missing = || BrokerError::NotFound("child token".to_owned());
        let child = self.store.child(team.id, token, token_id).await?;
        child.filter(|child| credential.is_none_or(|own| own == child.credential)).ok_or_else(missing)?;
        let which = GivenUp { token_id: Some(token), jfrog_token_id: Some(token_id.to_owned()), ..GivenUp::default() };
        self.store.give_up_children(team.id, &which, actor).await?;
        self.store.child(team.id, token, token_id).await?.ok_or_else(missing)
    }

    /// The token, and whose children the caller may touch; `None`: everybody's.
    async fn own_children(&self, caller: &Caller, team: &Team, name: &Name) -> Result<(Uuid, Option<String>), BrokerError> {
        caller.authorise(Action::Refresh, team, Some(name))?;
        let view = self.store.token(team.id, name.as_str()).await?;
        let view = view.ok_or_else(|| BrokerError::NotFound(format!("token {name}")))?;
        let all = caller.role_for(name.as_str()) >= Some(Role::Admin);
        Ok((view.id, (!all).then(|| caller.credential())))
    }

    /// A job: tells JFrog of what was given up, and looks for what was lost on its way to a job.
    pub(super) async fn revoke_children(&self, view: TokenView) -> Result<Settled, BrokerError> {
        let (team, token) = (view.team_id, view.id);
        let locked_down = GivenUp { token_id: Some(token), locked_down: true, ..GivenUp::default() };
        self.store.give_up_children(team, &locked_down, &Actor::system()).await?;
        let due = self.store.children_to_revoke(team, token, self.timing.lease, A_TURN).await?;
        if due.is_empty() {
            let open = self.store.children_are_open(team, token).await?;
            return Ok(if open { Settled::Later(self.timing.lease) } else { Settled::Done });
        }
        let Some(instance) = self.jfrog.instance(Some(&view.instance)) else { return Ok(Settled::Failed) };
        let bearer = view.younger().filter(|chain| view.alive(chain, 1) && locked_out(&view).is_none());
        let Some(bearer) = bearer else { return Ok(Settled::Later(NOBODY_TO_ASK)) };
        let bearer = Bearer::Access(self.open_access(&view, bearer).await?);
        let more = due.len() >= usize::try_from(A_TURN).unwrap_or(usize::MAX);
        let told = self.tell_of_children(&view, instance, &bearer, due).await?;
        let failed = told.iter().any(|told| told.state == ChildState::Revoking);
        Ok(match (failed, more) {
            (true, _) => Settled::Failed,
            (false, true) => Settled::Later(Duration::ZERO),
            // Some may be too young to be looked for.
            (false, false) => Settled::Later(self.timing.lease),
        })
    }

    /// Revokes child tokens at JFrog, a few at once and within half a lease, and takes down what it said.
    pub(super) async fn tell_of_children(
        &self,
        view: &TokenView,
        instance: &Instance,
        bearer: &Bearer,
        children: Vec<ChildRow>,
    ) -> Result<Vec<Told>, BrokerError> {
        let began = Instant::now();
        let mut all = Vec::new();
        for some in children.chunks(AT_ONCE) {
            if began.elapsed() > self.timing.lease / 2 {
                break;
            }
            let mut calls = JoinSet::new();
            for child in some {
                let (broker, instance, bearer, token, child) =
                    (self.clone(), instance.clone(), bearer.clone(), view.id, child.clone());
                calls.spawn(async move { broker.revoke_child(&instance, &bearer, token, &child).await });
            }
            let told = calls.join_all().await;
            self.store.children_told(view.team_id, &told, &Actor::system()).await?;
            all.extend(told);
        }
        Ok(all)
    }

    async fn revoke_child(&self, instance: &Instance, bearer: &Bearer, token: Uuid, child: &ChildRow) -> Told {
        let ids = match &child.jfrog_token_id {
            Some(id) => Ok(vec![id.clone()]),
            // Its answer was lost: there is one with its marker, or it was never made.
            None => {
                let listed = self.jfrog.list(instance, bearer, &self.child_marker(token, child.id)).await;
                listed.map(|listed| listed.into_iter().map(|found| found.token_id).collect())
            }
        };
        let mut told = Told { id: child.id, state: ChildState::Revoked, error: None };
        match ids {
            Err(detail) => (told.state, told.error) = (ChildState::Revoking, Some(detail)),
            Ok(ids) => {
                for id in ids {
                    match self.jfrog.revoke(instance, bearer, &id).await {
                        Revoked::Gone => {}
                        Revoked::NotRevocable => told.state = ChildState::NotRevocable,
                        Revoked::Refused(detail) | Revoked::Unreachable(detail) => {
                            (told.state, told.error) = (ChildState::Revoking, Some(detail));
                        }
                    }
                }
            }
        }
        told
    }
}
