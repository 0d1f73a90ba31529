//! Lockdown: from one moment to the next nothing of a token, or of a whole team, is handed out; what children were issued is
//! revoked in the background, and both chains are made anew where that is wished. Ending it gives everybody back what they had.

use std::time::Duration;

use super::{Broker, BrokerError, RefreshError, join::RETRY_AFTER, platform::hands_on, settle::Settled};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Grant, Role, Team},
    names::{Name, TokenPattern},
    store::{ChildRow, LockdownRow, NewLockdown, TokenView},
};

/// Children that are not revoked yet, shown at most.
const SHOWN: i64 = 200;
/// Keys and rules read at once.
const PAGE: i64 = 1_000;

/// What is locked down.
#[derive(Clone, Debug)]
pub enum Scope {
    /// One token.
    Token(Name),
    /// Every token of the team, also those registered later.
    Team,
}

/// What a lockdown would hit.
#[derive(Debug, Default)]
pub struct Hit {
    /// Tokens.
    pub tokens: i64,
    /// Child tokens that still work.
    pub children: i64,
    /// Keys that can be handed one of the tokens, by name.
    pub keys: Vec<String>,
    /// Rules that let jobs in who can, by name.
    pub rules: Vec<String>,
    /// Sessions that can.
    pub sessions: i64,
}

/// A lockdown as it stands.
#[derive(Debug)]
pub struct Lockdown {
    /// Itself.
    pub row: LockdownRow,
    /// Child tokens that are not revoked yet.
    pub unrevoked: i64,
    /// Of these, the newest.
    pub shown: Vec<ChildRow>,
}

impl Broker {
    /// What a lockdown would hit now.
    ///
    /// # Errors
    /// The caller may not, there is no such token, or Postgres.
    pub async fn would_hit(&self, caller: &Caller, team: &Team, scope: &Scope) -> Result<Hit, BrokerError> {
        let token = self.locked_token(caller, team, scope).await?;
        let covers = |patterns: &[String]| match scope {
            Scope::Team => true,
            Scope::Token(name) => Grant::stored("ci", patterns.to_vec()).covers(name.as_str()),
        };
        let mut hit = Hit { children: self.store.count_live_children(team.id, token).await?, ..Hit::default() };
        hit.tokens = if token.is_some() { 1 } else { self.store.count_tokens(team.id).await? };
        let mut after = String::new();
        loop {
            let page = self.store.list_api_keys(team.id, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            let hands_out = page.into_iter().filter(|key| key.role != Role::Viewer.as_str() && covers(&key.token_patterns));
            hit.keys.extend(hands_out.map(|key| key.name));
        }
        after.clear();
        loop {
            let page = self.store.list_trust_rules(team.id, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            let hands_out = page.into_iter().filter(|rule| rule.role != Role::Viewer.as_str() && covers(&rule.token_patterns));
            hit.rules.extend(hands_out.map(|rule| rule.name));
        }
        let sessions = self.store.sessions_by_tokens(team.id).await?;
        hit.sessions = sessions.iter().filter(|row| covers(&row.token_patterns)).map(|row| row.count).sum();
        Ok(hit)
    }

    /// Begins a lockdown. Can be repeated.
    ///
    /// # Errors
    /// The caller may not, there is no such token, this is a copy, or Postgres.
    pub async fn lock_down(
        &self,
        caller: &Caller,
        team: &Team,
        scope: &Scope,
        (reason, renew): (String, bool),
        actor: &Actor,
    ) -> Result<Lockdown, BrokerError> {
        self.not_frozen()?;
        let token = self.locked_token(caller, team, scope).await?;
        let new = NewLockdown { token_id: token, reason, renew, by_platform: caller.is_platform_admin() };
        self.store.lock_down(team.id, &new, actor).await?;
        self.lockdown_of(team, token).await
    }

    /// The lockdown of this very token or team.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn lockdown(&self, caller: &Caller, team: &Team, scope: &Scope) -> Result<Lockdown, BrokerError> {
        let token = self.locked_token(caller, team, scope).await?;
        self.lockdown_of(team, token).await
    }

    /// Ends a lockdown.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn end_lockdown(&self, caller: &Caller, team: &Team, scope: &Scope, actor: &Actor) -> Result<(), BrokerError> {
        let token = self.locked_token(caller, team, scope).await?;
        let none = || BrokerError::NotFound("lockdown".to_owned());
        let row = self.store.lockdown(team.id, token).await?.ok_or_else(none)?;
        if row.by_platform {
            caller.authorise_platform()?;
        }
        if self.store.end_lockdown(team.id, token, actor).await? { Ok(()) } else { Err(none()) }
    }

    /// A job of a lockdown: makes both chains anew and revokes what was handed out, as often as it takes.
    pub(super) async fn renew_locked_down(&self, view: TokenView) -> Result<Settled, BrokerError> {
        let team = Team { id: view.team_id, name: String::new() };
        Ok(match self.renew_and_revoke(&team, &view.name, &Actor::system()).await {
            Ok((_, done)) if done.unreached.is_empty() => Settled::Done,
            Ok(_) => Settled::Failed,
            // A person recreates it: there is nothing that could be revoked with it.
            Err(RefreshError::Lost(_) | RefreshError::Revoked) => Settled::Done,
            Err(RefreshError::Broker(BrokerError::Busy) | RefreshError::Creating) => Settled::Later(Duration::from_secs(2)),
            Err(RefreshError::JfrogUnavailable { retry_after, .. }) => Settled::Later(retry_after.max(RETRY_AFTER)),
            Err(error) => {
                tracing::warn!(%error, token = view.name, "a token that is locked down could not be made anew yet");
                Settled::Failed
            }
        })
    }

    async fn lockdown_of(&self, team: &Team, token: Option<uuid::Uuid>) -> Result<Lockdown, BrokerError> {
        let row = self.store.lockdown(team.id, token).await?;
        Ok(Lockdown {
            row: row.ok_or_else(|| BrokerError::NotFound("lockdown".to_owned()))?,
            unrevoked: self.store.count_live_children(team.id, token).await?,
            shown: self.store.live_children(team.id, token, SHOWN).await?,
        })
    }

    /// The token's id; `None` for the whole team, for which the caller must be an admin of all its tokens.
    async fn locked_token(&self, caller: &Caller, team: &Team, scope: &Scope) -> Result<Option<uuid::Uuid>, BrokerError> {
        match scope {
            Scope::Token(name) => {
                caller.authorise(Action::ManageTokens, team, Some(name))?;
                let view = self.store.token(team.id, name.as_str()).await?;
                Ok(Some(view.ok_or_else(|| BrokerError::NotFound(format!("token {name}")))?.id))
            }
            Scope::Team => {
                caller.authorise(Action::ManageTokens, team, None)?;
                hands_on(caller, &Grant { role: Role::Admin, tokens: vec![TokenPattern::all()] })?;
                Ok(None)
            }
        }
    }
}
