//! Teams and API keys.

use uuid::Uuid;

use super::{Broker, BrokerError, everywhere::shared, page::visible};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Grant, Opaque, OpaqueKind, Refusal, Role},
    names::{Name, TokenPattern},
    store::{ApiKeyRow, Event, NewApiKey, StoreError, TeamRow},
};

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Unique in its team.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// Which tokens.
    pub tokens: Vec<TokenPattern>,
    /// Seconds; `None`: never expires.
    pub expires_in: Option<i64>,
}

impl Broker {
    /// Makes a team with its data key.
    ///
    /// # Errors
    /// The caller may not, the name is taken, no master key is on every replica, or Postgres.
    pub async fn create_team(
        &self,
        caller: &Caller,
        name: &Name,
        description: &str,
        actor: &Actor,
    ) -> Result<TeamRow, BrokerError> {
        caller.authorise_platform()?;
        let id = Uuid::now_v7();
        let key = self.keys.new_data_key(id, shared(self.keys.master(), &self.store).await?).await?;
        self.store.create_team(id, name.as_str(), description, &key, actor).await.map_err(|error| taken(error, name))
    }

    /// A page of teams: all for a platform admin, its own for anyone else's admin.
    ///
    /// # Errors
    /// The caller may not, or Postgres.
    pub async fn list_teams(&self, caller: &Caller, after: &str, limit: i64) -> Result<Vec<TeamRow>, BrokerError> {
        if let Some(own) = caller.team() {
            caller.authorise(Action::ReadTeam, own, None)?;
            let row = self.store.team_by_name(&own.name).await?;
            return Ok(row.into_iter().filter(|row| row.name.as_str() > after).collect());
        }
        if !caller.memberships().is_empty() {
            return Err(Refusal::TeamRequired.into());
        }
        caller.authorise_platform()?;
        Ok(self.store.list_teams(after, limit).await?)
    }

    /// A team of a path, after asking whether the caller may do this there.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn team(&self, caller: &Caller, name: &Name, action: Action) -> Result<TeamRow, BrokerError> {
        let team = self.team_for(caller, Some(name.as_str())).await?;
        caller.authorise(action, &team, None)?;
        let row = self.store.team_by_name(name.as_str()).await?;
        row.ok_or_else(|| BrokerError::NotFound(format!("team {name}")))
    }

    /// Deletes a team and its data key.
    ///
    /// # Errors
    /// The caller may not, there is none, it has tokens, or Postgres.
    pub async fn delete_team(&self, caller: &Caller, name: &Name, actor: &Actor) -> Result<(), BrokerError> {
        let team = self.team(caller, name, Action::ManagePlatform).await?;
        match self.store.delete_team(team.id, actor).await {
            Err(StoreError::InUse(_)) => Err(BrokerError::TeamInUse),
            Ok(false) => Err(BrokerError::NotFound(format!("team {name}"))),
            other => Ok(other.map(drop)?),
        }
    }

    /// Makes a key of a team. The key itself is in the answer this once.
    ///
    /// # Errors
    /// The caller may not, the name is taken, the key would have more than its creator, or Postgres.
    pub async fn create_key(
        &self,
        caller: &Caller,
        team: &Name,
        new: NewKey,
        actor: &Actor,
    ) -> Result<(String, ApiKeyRow), BrokerError> {
        let team = self.team(caller, team, Action::ManageKeys).await?;
        hands_on(caller, &Grant { role: new.role, tokens: new.tokens.clone() })?;
        self.keep_key(team.id, new, actor).await
    }

    /// Makes a platform key.
    ///
    /// # Errors
    /// The caller may not, the name is taken, or Postgres.
    pub async fn create_platform_key(
        &self,
        caller: &Caller,
        name: Name,
        expires_in: Option<i64>,
        actor: &Actor,
    ) -> Result<(String, ApiKeyRow), BrokerError> {
        caller.authorise_platform()?;
        let tokens = vec![TokenPattern::all()];
        self.keep_key(Uuid::nil(), NewKey { name, role: Role::PlatformAdmin, tokens, expires_in }, actor).await
    }

    async fn keep_key(&self, team: Uuid, new: NewKey, actor: &Actor) -> Result<(String, ApiKeyRow), BrokerError> {
        let (text, key) = Opaque::generate(OpaqueKind::ApiKey);
        let row = NewApiKey {
            name: new.name.to_string(),
            role: new.role.as_str().to_owned(),
            token_patterns: new.tokens.into_iter().map(String::from).collect(),
            public_id: key.public_id,
            sha256: key.sha256,
            expires_in: new.expires_in,
        };
        let kept = self.store.create_api_key(team, &row, actor).await.map_err(|error| taken(error, &new.name))?;
        Ok((text, kept))
    }

    /// A page of a team's keys, or of the platform's for `None`.
    ///
    /// # Errors
    /// The caller may not, there is no such team, or Postgres.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        team: Option<&Name>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<ApiKeyRow>, BrokerError> {
        let team = self.key_owner(caller, team).await?;
        let page = |after: String, size| async move { self.store.list_api_keys(team, &after, size).await };
        visible(limit, after, page, |key| &key.name, |key| may_manage(caller, key)).await
    }

    /// Deletes a key of a team, or of the platform for `None`. Felt within a second on every replica.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn delete_key(&self, caller: &Caller, team: Option<&Name>, name: &Name, actor: &Actor) -> Result<(), BrokerError> {
        let team = self.key_owner(caller, team).await?;
        let key = self.store.api_key(team, name.as_str()).await?;
        if !key.is_some_and(|key| may_manage(caller, &key)) {
            return Err(BrokerError::NotFound(format!("key {name}, or it has more than {}", caller.name())));
        }
        if self.store.delete_api_key(team, name.as_str(), actor).await? {
            Ok(())
        } else {
            Err(BrokerError::NotFound(format!("key {name}")))
        }
    }

    /// Writes down what a verified caller was refused.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_refusal(&self, event: &Event, actor: &Actor) -> Result<(), BrokerError> {
        Ok(self.store.audit_refusal(event, actor).await?)
    }

    async fn key_owner(&self, caller: &Caller, team: Option<&Name>) -> Result<Uuid, BrokerError> {
        match team {
            Some(team) => Ok(self.team(caller, team, Action::ManageKeys).await?.id),
            None => caller.authorise_platform().map(|()| Uuid::nil()).map_err(BrokerError::from),
        }
    }
}

pub(super) fn taken(error: StoreError, name: &Name) -> BrokerError {
    match error {
        StoreError::Taken(_) => BrokerError::NameTaken(name.to_string()),
        other => other.into(),
    }
}

/// An admin of some tokens sees and ends only keys that have no more than it has itself.
fn may_manage(caller: &Caller, key: &ApiKeyRow) -> bool {
    may_hand_on(caller, &Grant::stored(&key.role, key.token_patterns.clone())) || caller.is_platform_admin()
}

/// Whether the caller has all that this grants.
pub(super) fn may_hand_on(caller: &Caller, grant: &Grant) -> bool {
    let under_a_team = caller.is_platform_admin() && grant.role != Role::PlatformAdmin;
    under_a_team || caller.membership().is_some_and(|membership| membership.grants.may_hand_on(grant))
}

/// Refuses to hand on more than the caller has.
pub(super) fn hands_on(caller: &Caller, grant: &Grant) -> Result<(), Refusal> {
    let why = || Refusal::Forbidden(format!("{} would hand on more than it has", caller.name()));
    may_hand_on(caller, grant).then_some(()).ok_or_else(why)
}
