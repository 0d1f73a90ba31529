//! The bridge between sealed bytes and open secrets: finds the right data key, and keeps it for a while.
//!
//! A key service may be away. What was unwrapped lately is in memory, for a bounded time; it is unwrapped anew at half of that time,
//! in the background, so that an outage finds at least the other half.

mod checks;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use moka::future::Cache;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::BrokerError;
use crate::{
    crypto::{Key, MasterKeyError, MasterKeys, OpenError, Place},
    secret::{Sealed, Wrapped},
    store::{DataKeyRow, Store},
};

/// How long it is believed which of its data keys a team seals with.
pub(super) const CURRENT_FOR: Duration = Duration::from_secs(60);

/// An unwrapping in the background is not tried again sooner.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// A key service is not asked more often whether it is there, and Postgres what is wrapped by what.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The master keys, and the keys they unwrapped lately.
#[derive(Clone, Debug)]
pub struct Keys {
    master: Arc<MasterKeys>,
    /// How long an unwrapped key stays in memory.
    kept: Duration,
    /// By owner and id: teams' data keys, and those of journals.
    opened: Cache<(Uuid, Uuid), Kept>,
    /// Which of its data keys a team seals with.
    current: Cache<Uuid, Uuid>,
    /// What is being unwrapped anew, or was just tried.
    renewing: Cache<Uuid, ()>,
    /// What a key service's canary came to.
    answered: Cache<String, Result<(), MasterKeyError>>,
    /// Which master keys something is wrapped by.
    used: Cache<(), Arc<[String]>>,
    journal: Cache<(), Arc<JournalKey>>,
    /// The first of the keys that a key service wrapped, and that do not open.
    damaged: Arc<Mutex<Option<MasterKeyError>>>,
    /// The first master key was retired while this process ran.
    first_retired: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Kept {
    key: Arc<Key>,
    since: Instant,
}

/// A key for journal entries, wrapped already: an entry must be openable before JFrog is called, key service or not.
#[derive(Debug)]
pub(super) struct JournalKey {
    /// Seals the entries of this process for a while.
    pub key: Key,
    /// The same, for their headers.
    pub wrapped: Wrapped,
    since: Instant,
}

impl Keys {
    /// Checks the master keys against their canaries (a key's first use makes one) and against what is wrapped by them. Unwrapped
    /// keys stay in memory for `kept`.
    ///
    /// # Errors
    /// A key that is needed is missing, or is not the one that was used under its id, or was retired; or Postgres.
    pub async fn open(master: MasterKeys, store: &Store, kept: Duration) -> Result<Self, BrokerError> {
        let keys = Self {
            master: Arc::new(master),
            kept,
            opened: Cache::builder().max_capacity(20_000).time_to_live(kept).build(),
            current: Cache::builder().max_capacity(20_000).time_to_live(CURRENT_FOR).build(),
            renewing: Cache::builder().max_capacity(20_000).time_to_live(RENEW_AGAIN.min(kept / 4)).build(),
            answered: Cache::builder().max_capacity(1_000).time_to_live(ASK_AGAIN).build(),
            used: Cache::builder().max_capacity(1).time_to_live(ASK_AGAIN).build(),
            journal: Cache::builder().max_capacity(1).time_to_live(kept).build(),
            damaged: Arc::default(),
            first_retired: Arc::default(),
        };
        let mut known = store.master_keys().await?;
        keys.check_canaries(&known).await?;
        let is_new = |id: &&str| !known.iter().any(|known| known.id == *id);
        let new: Vec<&str> = keys.master.ids().filter(is_new).collect();
        for id in &new {
            store.add_canary(id, &keys.master.canary(id).await?).await?;
        }
        if !new.is_empty() {
            // Another replica may have been first with another key of the same id.
            known = store.master_keys().await?;
            keys.check_canaries(&known).await?;
        }
        if known.iter().any(|known| known.id == keys.master.first() && known.retired_at.is_some()) {
            return Err(MasterKeyError::Retired(keys.master.first().to_owned()).into());
        }
        for id in store.master_keys_in_use().await? {
            if !keys.master.has(&id) {
                return Err(MasterKeyError::Missing(id).into());
            }
        }
        keys.check_wrapped(store).await?;
        keys.journal_key().await?;
        Ok(keys)
    }

    /// A new data key for a team, wrapped by the master key `by`.
    ///
    /// # Errors
    /// The master key cannot be had.
    pub async fn new_data_key(&self, team: Uuid, by: &str) -> Result<DataKeyRow, BrokerError> {
        let id = Uuid::now_v7();
        let key = Key::generate_with_id(id.to_string());
        Ok(DataKeyRow { id, wrapped: self.master.wrap(by, team, &key).await? })
    }

    /// The master keys.
    pub fn master(&self) -> &MasterKeys {
        &self.master
    }

    /// A key for journal entries. Nothing is asked of a key service while there is one in memory, and once where many need one.
    ///
    /// # Errors
    /// The master key cannot be had, and there is none; or it was retired.
    pub(super) async fn journal_key(&self) -> Result<Arc<JournalKey>, BrokerError> {
        if self.first_retired.load(Ordering::SeqCst) {
            return Err(MasterKeyError::Retired(self.master.first().to_owned()).into());
        }
        let there = self.journal.try_get_with((), self.new_journal_key()).await.map_err(told_again)?;
        if there.since.elapsed() > self.kept / 2 {
            self.renew_journal_key().await;
        }
        Ok(there)
    }

    /// How often [`Keys::keep_journal_key`] is due.
    pub(super) fn keep_every(&self) -> Duration {
        (self.kept / 8).max(Duration::from_millis(100))
    }

    /// Makes the next key for journal entries in time, although nothing was rotated for long: an outage finds one.
    pub(super) async fn keep_journal_key(&self) {
        let fresh = self.journal.get(&()).await.is_some_and(|key| key.since.elapsed() < self.kept * 3 / 8);
        if !fresh && !self.first_retired.load(Ordering::SeqCst) {
            self.renew_journal_key().await;
        }
    }

    async fn renew_journal_key(&self) {
        let keys = self.clone();
        let renewed = async move {
            // Where there is none, whoever needs it waits for the same one.
            if keys.journal.get(&()).await.is_none() {
                return keys.journal.try_get_with((), keys.new_journal_key()).await.map(drop).map_err(told_again);
            }
            let made = keys.new_journal_key().await?;
            keys.journal.insert((), made).await;
            Ok(())
        };
        self.renew(Uuid::nil(), renewed).await;
    }

    /// From now on nothing is wrapped for the journal, so nothing is spent either.
    pub(super) fn stop_wrapping(&self) {
        self.first_retired.store(true, Ordering::SeqCst);
    }

    async fn new_journal_key(&self) -> Result<Arc<JournalKey>, BrokerError> {
        let (since, key) = (Instant::now(), Key::generate());
        let wrapped = self.master.wrap(self.master.first(), Uuid::nil(), &key).await?;
        Ok(Arc::new(JournalKey { key, wrapped, since }))
    }

    /// Unwraps a key that a journal entry carries.
    ///
    /// # Errors
    /// The master key cannot be had, or does not open it.
    pub(super) async fn carried_key(&self, owner: Uuid, id: &str, wrapped: &Wrapped) -> Result<Arc<Key>, BrokerError> {
        let place = (owner, id.parse().map_err(|_| OpenError::Format)?);
        let unwrap = async { Ok(Kept { since: Instant::now(), key: Arc::new(self.master.unwrap(owner, id, wrapped).await?) }) };
        Ok(self.opened.try_get_with(place, unwrap).await.map_err(told_again)?.key)
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
        let current = async {
            let row = store.data_key(team, None).await?;
            row.map(|row| row.id).ok_or_else(|| BrokerError::NotFound("data key".into()))
        };
        let id = self.current.try_get_with(team, current).await.map_err(told_again)?;
        self.data_key(store, team, id).await
    }

    /// Another data key took the place of the one that was believed to be the team's current.
    pub(super) async fn look_again(&self, team: Uuid) {
        self.current.invalidate(&team).await;
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
        let plain = self.data_key(store, team, id).await?.open(place, sealed)?;
        Ok(Zeroizing::new(std::str::from_utf8(&plain).map_err(|_| OpenError::Format)?.to_owned()))
    }

    /// Waits until then for the key of a sealed value, if it is to come from a key service. The call goes on: who asks again may find it.
    ///
    /// # Errors
    /// The key cannot be had, or not by then.
    pub(super) async fn have_by(
        &self,
        until: tokio::time::Instant,
        store: &Store,
        team: Uuid,
        sealed: &Sealed,
    ) -> Result<(), BrokerError> {
        let id: Uuid = sealed.key_id()?.parse().map_err(|_| OpenError::Format)?;
        let Some(elsewhere) = self.master.ids().find(|id| !self.master.is_local(id)) else { return Ok(()) };
        if self.opened.contains_key(&(team, id)) {
            return Ok(());
        }
        let (keys, store) = (self.clone(), store.clone());
        let asked = tokio::spawn(async move { keys.data_key(&store, team, id).await });
        match tokio::time::timeout_at(until, asked).await {
            Ok(key) => key.map_err(|_| BrokerError::TaskEnded)?.map(drop),
            Err(_) => Err(MasterKeyError::late(elsewhere).into()),
        }
    }

    async fn data_key(&self, store: &Store, team: Uuid, id: Uuid) -> Result<Arc<Key>, BrokerError> {
        let fetched = self.opened.try_get_with((team, id), self.fetch(store, team, id)).await.map_err(told_again)?;
        if fetched.since.elapsed() > self.kept / 2 {
            let (keys, store) = (self.clone(), store.clone());
            let renewed = async move {
                let kept = keys.fetch(&store, team, id).await?;
                keys.opened.insert((team, id), kept).await;
                Ok(())
            };
            self.renew(id, renewed).await;
        }
        Ok(fetched.key)
    }

    async fn fetch(&self, store: &Store, team: Uuid, id: Uuid) -> Result<Kept, BrokerError> {
        let since = Instant::now();
        let row = store.data_key(team, Some(id)).await?.ok_or_else(|| BrokerError::NotFound("data key".into()))?;
        Ok(Kept { since, key: Arc::new(self.master.unwrap(team, &id.to_string(), &row.wrapped).await?) })
    }

    /// Does it in the background, unless that was just tried.
    async fn renew(&self, what: Uuid, work: impl Future<Output = Result<(), BrokerError>> + Send + 'static) {
        if self.renewing.entry(what).or_insert(()).await.is_fresh() {
            tokio::spawn(async move {
                if let Err(error) = work.await {
                    tracing::warn!(%error, "a key could not be unwrapped anew; the one in memory serves until its time is over");
                }
            });
        }
    }

    /// Drops what is past its time from memory: a cache that nobody asks does not do so by itself.
    pub(super) async fn forget_what_is_over(&self) {
        self.opened.run_pending_tasks().await;
        self.journal.run_pending_tasks().await;
    }
}

/// The same for another who waited for the same key.
fn told_again(shared: Arc<BrokerError>) -> BrokerError {
    Arc::try_unwrap(shared).unwrap_or_else(|shared| match &*shared {
        BrokerError::Store(error) => BrokerError::Store(error.told_again()),
        BrokerError::MasterKey(error) => BrokerError::MasterKey(error.clone()),
        other => BrokerError::NotFound(other.to_string()),
    })
}
