//! What platform admins do with keys: see what needs which, rotate, wrap by another master key, retire.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Broker, BrokerError, everywhere::everywhere, keys::Keys};
use crate::{
    actor::Actor,
    identity::Caller,
    names::Name,
    store::{JournalRow, ListedDataKey, ResealProgress, Store},
};

/// A replica that has not reported for so long is away.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(900);

/// What a master key does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterKeyState {
    /// The first of this process' list.
    Wraps,
    /// In the list.
    Opens,
    /// Not in the list of this process.
    Absent,
    /// Nothing is wrapped by it any more, ever.
    Retired,
}

impl MasterKeyState {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wraps => "wraps",
            Self::Opens => "opens",
            Self::Absent => "absent",
            Self::Retired => "retired",
        }
    }
}

/// A master key, and what needs it.
#[derive(Clone, Debug)]
pub struct MasterKeyStatus {
    /// Its id.
    pub id: String,
    /// What it does here.
    pub state: MasterKeyState,
    /// Keys that it wraps: data keys, and the one of the audit's chain.
    pub wrapped_keys: i64,
    /// Replicas' journals that need it.
    pub journals: Vec<Uuid>,
    /// When it was first used.
    pub created_at: OffsetDateTime,
    /// When it was retired.
    pub retired_at: Option<OffsetDateTime>,
}

impl MasterKeyStatus {
    /// Whether anything cannot be opened without it.
    pub fn is_used(&self) -> bool {
        self.wrapped_keys > 0 || !self.journals.is_empty()
    }
}

/// All keys, and how far what was asked for is.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// The master keys ever used.
    pub master_keys: Vec<MasterKeyStatus>,
    /// What each replica reported.
    pub journals: Vec<JournalRow>,
    /// The rotation of data keys.
    pub rotation: ResealProgress,
    /// Which master key is to wrap all, and how many keys it does not wrap yet.
    pub rewrap: Option<(String, i64)>,
}

impl Keys {
    /// All keys, and how far what was asked for is.
    ///
    /// # Errors
    /// Postgres.
    pub async fn status(&self, store: &Store) -> Result<KeyStatus, BrokerError> {
        let (known, counts) = (store.master_keys().await?, store.wrapped_key_counts().await?);
        let journals = store.journals(AWAY_AFTER).await?;
        let asked = known.iter().find(|key| key.rewrap_asked_at.is_some()).map(|key| key.id.clone());
        let left = |by: &String| counts.iter().filter(|count| count.master_key_id != *by).map(|count| count.keys).sum();
        let rewrap = asked.map(|by| (by.clone(), left(&by)));
        let state = |id: &str, retired: bool| match () {
            () if retired => MasterKeyState::Retired,
            () if self.master().first() == id => MasterKeyState::Wraps,
            () if self.master().has(id) => MasterKeyState::Opens,
            () => MasterKeyState::Absent,
        };
        let master_keys = known.into_iter().map(|key| MasterKeyStatus {
            state: state(&key.id, key.retired_at.is_some()),
            wrapped_keys: counts.iter().filter(|count| count.master_key_id == key.id).map(|count| count.keys).sum(),
            journals: journals.iter().filter(|journal| journal.needs.contains(&key.id)).map(|journal| journal.id).collect(),
            created_at: key.created_at,
            retired_at: key.retired_at,
            id: key.id,
        });
        Ok(KeyStatus { master_keys: master_keys.collect(), rotation: store.reseal_progress().await?, rewrap, journals })
    }

    /// Asks for a new data key of this team, or of all for `None`.
    ///
    /// # Errors
    /// There is no such team, a replica does not have the first master key of this process, or Postgres.
    pub async fn ask_rotation(&self, store: &Store, team: Option<&Name>, actor: &Actor) -> Result<(), BrokerError> {
        everywhere(self.master().first(), store).await?;
        let teams = store.ask_rotation(team.map(Name::as_str), actor).await?;
        match team {
            Some(team) if teams == 0 => Err(BrokerError::NotFound(format!("team {team}"))),
            _ => Ok(()),
        }
    }

    /// Asks for all keys to be wrapped by the first master key of this process.
    ///
    /// # Errors
    /// A replica does not have it, it was retired, or Postgres.
    pub async fn ask_rewrap(&self, store: &Store, actor: &Actor) -> Result<(), BrokerError> {
        let first = self.master().first();
        everywhere(first, store).await?;
        let asked = store.ask_rewrap(first, actor).await?;
        asked.then_some(()).ok_or_else(|| BrokerError::NotFound(format!("master key {first} that is not retired")))
    }

    /// Retires a master key that nothing needs.
    ///
    /// # Errors
    /// There is none, something needs it (the error says what), or Postgres.
    pub async fn retire(&self, store: &Store, id: &str, actor: &Actor) -> Result<(), BrokerError> {
        if self.master().first() == id {
            let needs = vec!["this service, which wraps with it: it is the first of TOKEN_BROKER_MASTER_KEYS".to_owned()];
            return Err(BrokerError::KeyInUse { id: id.to_owned(), needs });
        }
        match store.retire_master_key(id, actor).await? {
            None => Err(BrokerError::NotFound(format!("master key {id}"))),
            Some(needs) if !needs.is_empty() => Err(BrokerError::KeyInUse { id: id.to_owned(), needs }),
            Some(_) => Ok(()),
        }
    }

    /// Forgets the journal of a replica that does not come back.
    ///
    /// # Errors
    /// There is none whose replica is away, or Postgres.
    pub async fn forget_journal(&self, store: &Store, id: Uuid, actor: &Actor) -> Result<(), BrokerError> {
        if store.forget_journal(id, AWAY_AFTER, actor).await? {
            return Ok(());
        }
        let there = store.journals(AWAY_AFTER).await?.iter().any(|journal| journal.id == id);
        Err(if there { BrokerError::JournalAlive(id) } else { BrokerError::NotFound(format!("journal {id}")) })
    }
}

impl Broker {
    /// How far the rotation of data keys is, and how many are still to be wrapped by another master key.
    ///
    /// # Errors
    /// Postgres.
    pub async fn key_gauges(&self) -> Result<(ResealProgress, i64), BrokerError> {
        let status = self.keys.status(&self.store).await?;
        Ok((status.rotation, status.rewrap.map_or(0, |(_, left)| left)))
    }

    /// [`Keys::status`], for platform admins; so are the others.
    ///
    /// # Errors
    /// The caller may not, or Postgres.
    pub async fn key_status(&self, caller: &Caller) -> Result<KeyStatus, BrokerError> {
        caller.authorise_platform()?;
        self.keys.status(&self.store).await
    }

    /// A page of data keys, of one team or of all.
    ///
    /// # Errors
    /// The caller may not, there is no such team, or Postgres.
    pub async fn list_data_keys(
        &self,
        caller: &Caller,
        team: Option<&str>,
        after: Uuid,
        limit: i32,
    ) -> Result<Vec<ListedDataKey>, BrokerError> {
        caller.authorise_platform()?;
        let team = match team {
            Some(name) => {
                let row = self.store.team_by_name(name).await?;
                Some(row.ok_or_else(|| BrokerError::NotFound(format!("team {name}")))?.id)
            }
            None => None,
        };
        Ok(self.store.list_data_keys(team, after, limit).await?)
    }

    /// See [`Keys::ask_rotation`].
    ///
    /// # Errors
    /// The caller may not, this is a copy, or as there.
    pub async fn rotate_data_keys(&self, caller: &Caller, team: Option<&Name>, actor: &Actor) -> Result<KeyStatus, BrokerError> {
        caller.authorise_platform()?;
        self.not_frozen()?;
        self.keys.ask_rotation(&self.store, team, actor).await?;
        self.keys.status(&self.store).await
    }

    /// See [`Keys::ask_rewrap`].
    ///
    /// # Errors
    /// The caller may not, this is a copy, another master key is meant (`by`), or as there.
    pub async fn rewrap_data_keys(&self, caller: &Caller, by: Option<&Name>, actor: &Actor) -> Result<KeyStatus, BrokerError> {
        caller.authorise_platform()?;
        self.not_frozen()?;
        let first = self.keys.master().first();
        if let Some(by) = by.filter(|by| by.as_str() != first) {
            return Err(BrokerError::KeyNotFirst { id: by.to_string(), first: first.to_owned() });
        }
        self.keys.ask_rewrap(&self.store, actor).await?;
        self.keys.status(&self.store).await
    }

    /// See [`Keys::retire`].
    ///
    /// # Errors
    /// The caller may not, or as there.
    pub async fn retire_master_key(&self, caller: &Caller, id: &Name, actor: &Actor) -> Result<KeyStatus, BrokerError> {
        caller.authorise_platform()?;
        self.keys.retire(&self.store, id.as_str(), actor).await?;
        self.keys.status(&self.store).await
    }

    /// See [`Keys::forget_journal`].
    ///
    /// # Errors
    /// The caller may not, or as there.
    pub async fn forget_journal(&self, caller: &Caller, id: Uuid, actor: &Actor) -> Result<KeyStatus, BrokerError> {
        caller.authorise_platform()?;
        self.keys.forget_journal(&self.store, id, actor).await?;
        self.keys.status(&self.store).await
    }
}
