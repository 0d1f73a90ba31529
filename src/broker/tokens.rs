//! Registrations, read and changed.

use super::{Broker, BrokerError};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Refusal, Team},
    names::{Name, TokenPattern},
    store::{TokenChanges, TokenView},
};

/// Which tokens the caller may see.
fn covered(caller: &Caller) -> Vec<TokenPattern> {
    if caller.is_platform_admin() {
        vec![TokenPattern::all()]
    } else {
        caller.membership().map(|own| own.grants.tokens()).unwrap_or_default()
    }
}

impl Broker {
    /// The team a caller means on `/tokens…`: its own, or the one a platform admin names.
    ///
    /// # Errors
    /// `TeamRequired`, `Invisible`, or Postgres.
    pub async fn team_for(&self, caller: &Caller, named: Option<&str>) -> Result<Team, BrokerError> {
        match (caller.team(), named) {
            (Some(own), None) => Ok(own.clone()),
            (Some(own), Some(named)) if own.name == named => Ok(own.clone()),
            (Some(own), Some(_)) => {
                let why = format!("{} belongs to team {}", caller.name(), own.name);
                Err(Refusal::Invisible(why).into())
            }
            (None, None) => Err(Refusal::TeamRequired.into()),
            (None, Some(named)) => {
                // What is no name may be a credential in the wrong place: it is not repeated.
                let named: Name = named.parse().map_err(|_| BrokerError::NotFound("team: that is no name".to_owned()))?;
                if !caller.is_platform_admin() {
                    return Err(Refusal::Invisible(format!("{} does not belong to team {named}", caller.name())).into());
                }
                let row = self
                    .store
                    .team_by_name(named.as_str())
                    .await?
                    .ok_or_else(|| BrokerError::NotFound(format!("team {named}")))?;
                Ok(Team { id: row.id, name: row.name })
            }
        }
    }

    /// A page of the registrations that the caller's grant covers.
    ///
    /// # Errors
    /// The caller may not, or Postgres.
    pub async fn list_tokens(
        &self,
        caller: &Caller,
        team: &Team,
        after: &str,
        limit: i64,
    ) -> Result<Vec<TokenView>, BrokerError> {
        caller.authorise(Action::ReadToken, team, None)?;
        let patterns: Vec<String> = covered(caller).iter().map(TokenPattern::like).collect();
        Ok(self.store.list_tokens(team.id, &patterns, after, limit).await?)
    }

    /// One registration.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn token(&self, caller: &Caller, team: &Team, name: &Name) -> Result<TokenView, BrokerError> {
        caller.authorise(Action::ReadToken, team, Some(name))?;
        let view = self.store.token(team.id, name.as_str()).await?;
        view.ok_or_else(|| BrokerError::NotFound(format!("token {name}")))
    }

    /// Changes settings.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn update_token(
        &self,
        caller: &Caller,
        team: &Team,
        name: &Name,
        changes: &TokenChanges,
        actor: &Actor,
    ) -> Result<TokenView, BrokerError> {
        caller.authorise(Action::ManageTokens, team, Some(name))?;
        let view = self.token(caller, team, name).await?;
        if !self.store.update_token(team.id, view.id, changes, actor).await? {
            return Err(BrokerError::NotFound(format!("token {name}")));
        }
        self.token(caller, team, name).await
    }
}
