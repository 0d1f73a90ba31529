//! Registering a token through JFrog's create flow: the row first, then chain a, then chain b, then the identity token is
//! destroyed. Whatever is interrupted is finished or given up by the job that the row's reservation left behind.

use std::time::Duration;

use uuid::Uuid;

use super::{Broker, BrokerError, RegisterError, heal::identity_place, join::RETRY_AFTER, plan::Ended};
use crate::{
    actor::Actor,
    crypto,
    identity::{Action, Caller, Team},
    jfrog::{Reason, Rejection},
    names::Name,
    secret::IdentityToken,
    store::{NewToken, StoreError, TokenState, TokenView},
};

/// The longest common CI job, seconds.
const DEFAULT_REUSE_FOR: i32 = 21_600;

/// What every registration says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Unique in its team.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Asked of JFrog.
    pub scope: Option<String>,
    /// Asked of JFrog.
    pub audience: Option<String>,
    /// Asked of JFrog.
    pub project_key: Option<String>,
    /// Asked of JFrog, seconds.
    pub expires_in: Option<i64>,
    /// Asked of JFrog.
    pub include_reference_token: bool,
    /// `None`: the first.
    pub instance: Option<String>,
    /// Seconds; `None`: six hours.
    pub reuse_for: Option<i32>,
    /// 1 or 2; `None`: 2.
    pub chains: Option<i16>,
    /// Longest life of a child token, seconds; `None`: six hours.
    pub issue_max_expires_in: Option<i32>,
    /// What a child token may be given; `None` or empty: what is asked of JFrog for the token itself.
    pub issue_scopes: Option<Vec<String>>,
}

/// A registration through the create flow.
#[derive(Clone, Debug)]
pub struct CreateToken {
    /// What it says.
    pub settings: Settings,
    /// Serves for this registration and is destroyed.
    pub identity_token: IdentityToken,
    /// Of the request.
    pub idempotency_key: Option<String>,
}

/// How far a registration got.
#[derive(Debug)]
pub(super) enum Built {
    /// It is complete.
    Complete,
    /// It was given up and forgotten.
    GivenUp(RegisterError),
    /// An outcome is unknown; the job goes on after the lease.
    Pending(String),
}

impl Broker {
    /// Registers a token. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// See [`RegisterError`]. Nothing is half-registered: after an error the name is free again, but for `Pending`.
    pub async fn create(
        &self,
        caller: &Caller,
        team: &Team,
        request: CreateToken,
        actor: &Actor,
    ) -> Result<TokenView, RegisterError> {
        caller.authorise(Action::ManageTokens, team, Some(&request.settings.name)).map_err(BrokerError::from)?;
        if let Some(done) = self.earlier(team, &request).await? {
            return Ok(done);
        }
        let (broker, team, actor) = (self.clone(), team.clone(), actor.clone());
        let work = async move {
            let id = Uuid::now_v7();
            let sealed = broker.keys.seal(&broker.store, team.id, identity_place(id), request.identity_token.expose()).await?;
            let mut new = broker.new_token(id, &request.settings)?;
            new.identity_token = Some(sealed);
            new.request_sha256 = request.idempotency_key.as_ref().map(|_| digest(&request));
            new.idempotency_key = request.idempotency_key;
            match broker.reserve(&team, &new, &actor).await {
                // The same request twice at once: the first one is at it.
                Err(BrokerError::NameTaken(_)) if broker.is_repeated(&team, &new).await? => return Err(BrokerError::Busy.into()),
                other => other?,
            }
            let built = broker.build(team.id, id, &actor).await?;
            broker.registered(&team, id, built).await
        };
        self.spawn(work).await.unwrap_or(Err(BrokerError::TaskEnded.into()))
    }

    /// The registration that an earlier request with the same `Idempotency-Key` made, or resumes it.
    async fn earlier(&self, team: &Team, request: &CreateToken) -> Result<Option<TokenView>, RegisterError> {
        let Some(key) = &request.idempotency_key else { return Ok(None) };
        let Some(name) = self.store.token_by_idempotency_key(team.id, key).await? else { return Ok(None) };
        let Some(view) = self.store.token(team.id, &name).await? else { return Ok(None) };
        if view.request_sha256.as_deref() != Some(&digest(request)) {
            let message = "was used for another request".to_owned();
            return Err(BrokerError::Invalid { field: "Idempotency-Key", message }.into());
        }
        if view.state == TokenState::Revoked {
            return Err(BrokerError::Busy.into());
        }
        if view.state == TokenState::Registered {
            return Ok(Some(view));
        }
        if view.attempt.as_ref().is_some_and(|attempt| attempt.live) {
            return Err(BrokerError::Busy.into());
        }
        self.store.settle_now(view.id).await?;
        Err(RegisterError::Pending("the registration is being resumed".to_owned()))
    }

    async fn is_repeated(&self, team: &Team, new: &NewToken) -> Result<bool, BrokerError> {
        let Some(key) = &new.idempotency_key else { return Ok(false) };
        Ok(self.store.token_by_idempotency_key(team.id, key).await?.is_some_and(|name| name == new.name))
    }

    /// The row of a registration, without its secrets.
    pub(super) fn new_token(&self, id: Uuid, settings: &Settings) -> Result<NewToken, BrokerError> {
        let unknown = || BrokerError::Invalid { field: "instance", message: "is not a configured instance".to_owned() };
        let instance = self.jfrog.instance(settings.instance.as_deref()).ok_or_else(unknown)?;
        Ok(NewToken {
            id,
            name: settings.name.to_string(),
            description: settings.description.clone(),
            instance: instance.name.clone(),
            scope: settings.scope.clone(),
            audience: settings.audience.clone(),
            project_key: settings.project_key.clone(),
            expires_in: settings.expires_in,
            include_reference_token: settings.include_reference_token,
            reuse_for: settings.reuse_for.unwrap_or(DEFAULT_REUSE_FOR),
            issue_max_expires_in: settings.issue_max_expires_in.unwrap_or(DEFAULT_REUSE_FOR),
            issue_scopes: settings.issue_scopes.clone().filter(|scopes| !scopes.is_empty()),
            chains: (0..settings.chains.unwrap_or(2)).map(|_| Uuid::now_v7()).collect(),
            identity_token: None,
            idempotency_key: None,
            request_sha256: None,
        })
    }

    pub(super) async fn reserve(&self, team: &Team, new: &NewToken, actor: &Actor) -> Result<(), BrokerError> {
        self.not_frozen()?;
        match self.store.reserve_token(team.id, new, self.timing.lease, actor).await {
            Err(StoreError::Taken(constraint)) if constraint == "tokens_name_key" => {
                Err(BrokerError::NameTaken(new.name.clone()))
            }
            // The same request twice at once: the first one is at it.
            Err(StoreError::Taken(_)) => Err(BrokerError::Busy),
            other => Ok(other?),
        }
    }

    /// What the caller is told of a registration that was built.
    pub(super) async fn registered(&self, team: &Team, id: Uuid, built: Built) -> Result<TokenView, RegisterError> {
        match built {
            Built::Complete => {
                let view = self.store.token_by_id(team.id, id).await?;
                let view = view.ok_or_else(|| BrokerError::NotFound("token: it was deleted meanwhile".to_owned()))?;
                // A delete came before it was complete: it never will be.
                if view.state == TokenState::Revoked { Err(BrokerError::Busy.into()) } else { Ok(view) }
            }
            Built::GivenUp(why) => Err(why),
            Built::Pending(detail) => Err(RegisterError::Pending(detail)),
        }
    }

    /// Makes what a registration misses, from wherever it stands, and completes it.
    pub(super) async fn build(&self, team: Uuid, id: Uuid, actor: &Actor) -> Result<Built, BrokerError> {
        loop {
            let gone = || BrokerError::NotFound("token: it was deleted meanwhile".to_owned());
            let view = self.store.token_by_id(team, id).await?.ok_or_else(gone)?;
            if view.state != TokenState::Creating {
                return Ok(Built::Complete);
            }
            let first = view.active().next().is_none();
            if first && view.chains.iter().any(|chain| chain.generation > 0) {
                // It has pairs that may still be alive: what became of them is for settling, not for forgetting.
                return self.complete(&view, actor).await;
            }
            if first && view.identity_token.is_none() {
                let why = "the identity token is past its time and no chain was made".to_owned();
                return self.give_up(&view, RegisterError::BearerRejected(why), actor).await;
            }
            // Refused once: the token lives on chain a alone, with the weaker promise, and says so.
            let Some(missing) = view.missing().filter(|_| !view.heal_refused) else {
                return self.finish(&view, actor).await;
            };
            // A pasted pair whose rotation is in the dark may be alive, and bears no marker: it is remembered until it is revoked.
            let kind = if missing.generation == 0 { "create" } else { "heal" };
            match self.make_chain(&view, missing, kind, actor).await? {
                Ended::Committed | Ended::Superseded => {}
                Ended::NotBegun => return Ok(Built::Pending("something else is under way for this token".to_owned())),
                Ended::Unknown(detail) if first => return Ok(Built::Pending(detail)),
                Ended::NotSent(detail) if first => {
                    let why = BrokerError::JfrogUnavailable { detail, retry_after: RETRY_AFTER };
                    return self.give_up(&view, why.into(), actor).await;
                }
                Ended::Rejected(rejection) if first => return self.give_up(&view, refusal(rejection), actor).await,
                Ended::NotRefreshable if first => return self.give_up(&view, RegisterError::NotRefreshable, actor).await,
                // What was pasted must be rotated, and is not while the other chain is missing.
                Ended::Unknown(detail) | Ended::NotSent(detail) if view.imported => return Ok(Built::Pending(detail)),
                // Chain a works. Chain b is made later, by the job that stays while a chain is missing.
                Ended::Unknown(_) | Ended::NotSent(_) | Ended::Rejected(_) | Ended::NotRefreshable => {
                    return self.finish(&view, actor).await;
                }
            }
        }
    }

    async fn finish(&self, view: &TokenView, actor: &Actor) -> Result<Built, BrokerError> {
        if view.imported {
            return self.finish_import(view, actor).await;
        }
        self.complete(view, actor).await
    }

    pub(super) async fn complete(&self, view: &TokenView, actor: &Actor) -> Result<Built, BrokerError> {
        let action = if view.imported { "token.import" } else { "token.create" };
        self.store.complete_token(view.team_id, view.id, action, actor).await?;
        Ok(Built::Complete)
    }

    pub(super) async fn give_up(&self, view: &TokenView, why: RegisterError, actor: &Actor) -> Result<Built, BrokerError> {
        // Who was stalled gives up late: by now the job that the reservation left behind may have made the chains, or be at it.
        if let Some(now) = self.store.token_by_id(view.team_id, view.id).await? {
            if now.state != TokenState::Creating {
                return Ok(Built::Complete);
            }
            if now.attempt.is_some() || !now.chains.iter().map(|c| c.generation).eq(view.chains.iter().map(|c| c.generation)) {
                return Ok(Built::Pending("something else is under way for this token".to_owned()));
            }
        }
        let action = if view.imported { "token.import" } else { "token.create" };
        let gone = self.store.forget_token(view.team_id, view.id, action, Some(&why.to_string()), actor).await?;
        Ok(if gone { Built::GivenUp(why) } else { Built::Pending("something else is under way for this token".to_owned()) })
    }
}

/// What JFrog's refusal of a registration means to the admin who asked.
pub(super) fn refusal(Rejection { status, reason, message, retry_after }: Rejection) -> RegisterError {
    match reason {
        Reason::Unauthenticated => RegisterError::BearerRejected(message),
        Reason::Forbidden => RegisterError::ScopeRefused(message),
        Reason::BadRequest if status < 400 => {
            BrokerError::JfrogUnavailable { detail: format!("answered with a redirect ({status})"), retry_after: RETRY_AFTER }
                .into()
        }
        Reason::BadRequest | Reason::RefreshTokenUnknown => RegisterError::JfrogInvalid(message),
        Reason::RateLimited => {
            let retry_after = retry_after.unwrap_or(Duration::from_secs(30));
            BrokerError::JfrogUnavailable { detail: "JFrog asks to be left alone (429)".to_owned(), retry_after }.into()
        }
    }
}

/// Of everything the request says but its identity token: a repetition may bring a new one.
fn digest(CreateToken { settings: s, .. }: &CreateToken) -> [u8; 32] {
    // By position and as JSON: the same in every version.
    let mut said = vec![serde_json::json!([
        s.name,
        s.description,
        s.scope,
        s.audience,
        s.project_key,
        s.expires_in,
        s.include_reference_token,
        s.instance,
        s.reuse_for,
        s.chains
    ])];
    if s.issue_max_expires_in.is_some() || s.issue_scopes.is_some() {
        said.push(serde_json::json!([s.issue_max_expires_in, s.issue_scopes]));
    }
    crypto::sha256(said.iter().map(ToString::to_string).collect::<String>().as_bytes())
}
