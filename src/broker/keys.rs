//! The bridge between sealed bytes and open secrets: finds the right data key, and keeps it for a while.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::BrokerError;
use crate::{
    crypto::{Key, MasterKeyError, MasterKeys, OpenError, Place},
    secret::Sealed,
    store::{DataKeyRow, Store},
};

/// How long an unwrapped data key stays in memory.
const KEPT: Duration = Duration::from_secs(600);

/// The master keys, and the data keys they unwrapped lately.
#[derive(Clone, Debug)]
pub struct Keys {
    master: Arc<MasterKeys>,
    by_id: Cache<Uuid, Arc<Key>>,
    current: Cache<Uuid, Arc<Key>>,
}

impl Keys {
    /// Checks the master keys against their canaries (a key's first use makes one) and against what is wrapped by them.
    ///
    /// # Errors
    /// A key that is needed is missing, or is not the one that was used under its id; or Postgres.
    pub async fn open(master: MasterKeys, store: &Store) -> Result<Self, BrokerError> {
        let cache = || Cache::builder().max_capacity(10_000).time_to_live(KEPT).build();
        let keys = Self { master: Arc::new(master), by_id: cache(), current: cache() };
        keys.check_canaries(store).await?;
        let known = store.canaries().await?;
        for id in keys.master.ids().filter(|id| !known.iter().any(|(known, _)| known == id)) {
            store.add_canary(id, &keys.master.canary(id)?).await?;
        }
        // Another replica may have been first with another key of the same id.
        keys.check_canaries(store).await?;
        for id in store.master_keys_in_use().await? {
            if !keys.master.ids().any(|given| given == id) {
                return Err(MasterKeyError::Missing(id).into());
            }
        }
        Ok(keys)
    }

    /// Whether each configured master key is the one that was used under its id.
    ///
    /// # Errors
    /// It is not, or Postgres.
    pub async fn check_canaries(&self, store: &Store) -> Result<(), BrokerError> {
        for (id, canary) in store.canaries().await? {
            if self.master.ids().any(|given| given == id) {
                self.master.check_canary(&id, &canary)?;
            }
        }
        Ok(())
    }

    /// A new data key for a new team.
    pub fn new_data_key(&self, team: Uuid) -> DataKeyRow {
        let id = Uuid::new_v4();
        let key = Key::generate_with_id(id.to_string());
        DataKeyRow { id, wrapped: self.master.wrap(team, &key) }
    }

    /// The master keys, for journal entries.
    pub fn master(&self) -> &MasterKeys {
        &self.master
    }

    /// Seals for the team, with its current data key.
    ///
    /// # Errors
    /// The key cannot be had.
    pub async fn seal(&self, store: &Store, team: Uuid, place: Place<'_>, plain: &str) -> Result<Sealed, BrokerError> {
        Ok(self.sealing_key(store, team).await?.seal(place, plain.as_bytes()))
    }

    /// The team's current data key: got before anything is spent, so that a pair can surely be sealed afterwards.
    ///
    /// # Errors
    /// The key cannot be had.
    pub async fn sealing_key(&self, store: &Store, team: Uuid) -> Result<Arc<Key>, BrokerError> {
        if let Some(key) = self.current.get(&team).await {
            return Ok(key);
        }
        let key = self.fetch(store, team, None).await?;
        self.current.insert(team, Arc::clone(&key)).await;
        Ok(key)
    }

    /// Opens what was sealed for the team at this place.
    ///
    /// # Errors
    /// The key cannot be had, or the value does not open.
    pub async fn open_sealed(
        &self,
        store: &Store,
        team: Uuid,
        place: Place<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<String>, BrokerError> {
        let id: Uuid = sealed.key_id()?.parse().map_err(|_| OpenError::Format)?;
        let key = match self.by_id.get(&id).await {
            Some(key) => key,
            None => {
                let key = self.fetch(store, team, Some(id)).await?;
                self.by_id.insert(id, Arc::clone(&key)).await;
                key
            }
        };
        let plain = key.open(place, sealed)?;
        Ok(Zeroizing::new(std::str::from_utf8(&plain).map_err(|_| OpenError::Format)?.to_owned()))
    }

    async fn fetch(&self, store: &Store, team: Uuid, id: Option<Uuid>) -> Result<Arc<Key>, BrokerError> {
        let row = store.data_key(team, id).await?.ok_or_else(|| BrokerError::NotFound("data key".into()))?;
        Ok(Arc::new(self.master.unwrap(team, &row.id.to_string(), &row.wrapped)?))
    }
}
