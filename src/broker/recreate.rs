//! The human way back: new chains under the same name, grants and settings.

use super::{
    Broker, BrokerError, RegisterError,
    create::refusal,
    join::RETRY_AFTER,
    plan::{Call, Ended, Plan},
};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Team},
    jfrog::Bearer,
    names::{Asked, Name},
    secret::IdentityToken,
    store::{JobKind, TokenState, TokenView},
};

/// What a recreate asks for; `None` keeps what was registered.
#[derive(Clone, Debug)]
pub struct RecreateToken {
    /// Serves for this call and is kept nowhere.
    pub identity_token: IdentityToken,
    /// Asked of JFrog.
    pub scope: Option<String>,
    /// Asked of JFrog.
    pub audience: Option<String>,
    /// Asked of JFrog, seconds.
    pub expires_in: Option<i64>,
}

impl Broker {
    /// Makes one chain anew with the identity token; in the same transaction the other one is given up, and is then made from the
    /// first. What was handed out before goes on working for `reuse_for`, then the sweep revokes it.
    ///
    /// # Errors
    /// See [`RegisterError`]; the token is as it was.
    pub async fn recreate(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        request: RecreateToken,
        actor: &Actor,
    ) -> Result<TokenView, RegisterError> {
        caller.authorise(Action::ManageTokens, team, Some(name)).map_err(BrokerError::from)?;
        let (broker, team, name, actor) = (self.clone(), team.clone(), name.clone(), actor.clone());
        let work = async move { broker.recreate_to_the_end(&team, &name, request, &actor).await };
        self.spawn(work).await.unwrap_or(Err(BrokerError::TaskEnded.into()))
    }

    async fn recreate_to_the_end(
        &self,
        team: &Team,
        name: &Name,
        request: RecreateToken,
        actor: &Actor,
    ) -> Result<TokenView, RegisterError> {
        let missing = || BrokerError::NotFound(format!("token {name}"));
        self.not_frozen()?;
        let mut view = self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?;
        if view.attempt.as_ref().is_some_and(|attempt| !attempt.live) {
            if !self.recover(&view).await? {
                return Err(BrokerError::Busy.into());
            }
            view = self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?;
        }
        if view.state != TokenState::Registered || view.attempt.is_some() {
            return Err(BrokerError::Busy.into());
        }
        // Whatever comes of it: what is left over at JFrog is looked for.
        self.store.schedule(JobKind::Sweep, view.id, self.sweep_after(&view)).await?;
        let asked = Asked { scope: request.scope, audience: request.audience, expires_in: request.expires_in };
        view.scope = asked.scope.clone().or(view.scope);
        view.audience = asked.audience.clone().or(view.audience);
        view.expires_in = asked.expires_in.or(view.expires_in);
        let chain = view.missing().or(view.older()).ok_or_else(missing)?.clone();
        let plan = Plan {
            view: &view,
            chain: &chain,
            kind: "recreate",
            call: Call::Create(self.create_request(&view, chain.letter)),
            bearers: vec![Bearer::Identity(request.identity_token)],
            respect_rotatable_at: false,
            asked,
            wanted: None,
            place: &mut None,
        };
        match self.obtain(plan, actor).await? {
            Ended::Committed => {}
            Ended::NotBegun | Ended::Superseded => return Err(BrokerError::Busy.into()),
            Ended::NotSent(detail) => return Err(BrokerError::JfrogUnavailable { detail, retry_after: RETRY_AFTER }.into()),
            Ended::Rejected(rejection) => return Err(refusal(rejection)),
            Ended::NotRefreshable => return Err(RegisterError::NotRefreshable),
            Ended::Unknown(detail) => return Err(RegisterError::Pending(detail)),
        }
        // The other chain now: if this fails, the job that the commit left makes it.
        let view = self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?;
        if let Some(other) = view.missing()
            && let Err(error) = self.make_chain(&view, other, "heal", actor).await
        {
            tracing::warn!(%error, token = view.name, "the second chain is made later");
        }
        Ok(self.store.token(team.id, name.as_str()).await?.ok_or_else(missing)?)
    }
}
