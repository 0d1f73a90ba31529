//! Whether the master keys are there and are the ones: at the start, and for whoever asks whether the service is ready.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::{Keys, told_again};
use crate::{
    broker::BrokerError,
    crypto::MasterKeyError,
    store::{MasterKeyRow, Store},
};

/// Data keys that are checked at once, at the start.
const PAGE: i32 = 500;

/// Whoever asks whether the service is ready waits no longer for key services.
const READY_WITHIN: Duration = Duration::from_secs(5);

impl Keys {
    /// Whether each configured master key that was not retired is the one that was used under its id.
    ///
    /// # Errors
    /// It is not.
    pub async fn check_canaries(&self, known: &[MasterKeyRow]) -> Result<(), BrokerError> {
        for row in known {
            // Nothing needs one that was retired: its service may be switched off.
            if row.retired_at.is_none() && self.master.has(&row.id) {
                self.master.check_canary(&row.id, &row.canary).await?;
            }
        }
        Ok(())
    }

    /// Whether everything that is wrapped can be opened here, for who asks often: what costs more than a look at a small table is
    /// asked once in a few seconds.
    ///
    /// # Errors
    /// A master key is missing, not the one, or cannot be asked; or the first one was retired; or a wrapped key does not open; or
    /// Postgres.
    pub(in crate::broker) async fn ready(&self, store: &Store) -> Result<(), BrokerError> {
        let deadline = Instant::now() + READY_WITHIN;
        let known = store.promptly(|store| async move { store.master_keys().await }).await?;
        self.first_wraps(&known)?;
        let used = async { Ok(store.promptly(|store| async move { store.master_keys_in_use().await }).await?.into()) };
        let used = self.used.try_get_with((), used).await.map_err(told_again)?;
        if let Some(missing) = used.iter().find(|id| !self.master.has(id)) {
            return Err(MasterKeyError::Missing(missing.clone()).into());
        }
        if let Some(damaged) = self.damaged().clone() {
            return Err(damaged.into());
        }
        for row in known.into_iter().filter(|row| row.retired_at.is_none() && self.master.has(&row.id)) {
            let late = || MasterKeyError::late(&row.id);
            let check = self.master.check_canary(&row.id, &row.canary);
            if self.master.is_local(&row.id) {
                check.await?;
            } else {
                // That it is late is an answer too, for a while.
                let check = async { timeout(READY_WITHIN, check).await.unwrap_or_else(|_| Err(late())) };
                timeout_at(deadline, self.answered.get_with(row.id.clone(), check)).await.unwrap_or_else(|_| Err(late()))?;
            }
        }
        Ok(())
    }

    /// Whether the first master key may still wrap. From when it may not, this process wraps nothing more for the journal.
    ///
    /// # Errors
    /// It was retired, or Postgres.
    pub(in crate::broker) async fn still_wraps(&self, store: &Store) -> Result<(), BrokerError> {
        self.first_wraps(&store.master_keys().await?)
    }

    fn first_wraps(&self, known: &[MasterKeyRow]) -> Result<(), BrokerError> {
        let first = self.master.first();
        if known.iter().any(|row| row.id == first && row.retired_at.is_some()) {
            self.stop_wrapping();
            return Err(MasterKeyError::Retired(first.to_owned()).into());
        }
        Ok(())
    }

    /// Whether every wrapped key opens: one that was truncated or swapped must not come to light in the middle of a night.
    pub(super) async fn check_wrapped(&self, store: &Store) -> Result<(), BrokerError> {
        let mut after = Uuid::nil();
        loop {
            let page = store.wrapped_keys("", after, PAGE).await?;
            // One that is not full is the last.
            let next = page.last().map(|last| last.id).filter(|_| page.len() >= PAGE as usize);
            for key in page.into_iter().filter(|key| self.master.has(&key.wrapped.master_key_id)) {
                let id = key.id.to_string();
                // Ten thousand calls to a key service would make a start last for minutes: they are made behind it.
                if self.master.is_local(&key.wrapped.master_key_id) {
                    self.master.unwrap(key.owner, &id, &key.wrapped).await?;
                } else {
                    self.master.check_form(&id, &key.wrapped)?;
                }
            }
            let Some(next) = next else { return Ok(()) };
            after = next;
        }
    }

    /// The same for what key services wrapped, one after the other. What does not open is told to who asks whether the service is
    /// ready. Returns whether there is any.
    ///
    /// # Errors
    /// A key service cannot be asked, or Postgres.
    pub(in crate::broker) async fn check_elsewhere(&self, store: &Store) -> Result<bool, BrokerError> {
        let (mut after, mut damaged) = (Uuid::nil(), None);
        let elsewhere = |id: &str| self.master.has(id) && !self.master.is_local(id);
        while self.master.ids().any(elsewhere) {
            let page = store.wrapped_keys("", after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for key in page.into_iter().filter(|key| elsewhere(&key.wrapped.master_key_id)) {
                match self.master.unwrap(key.owner, &key.id.to_string(), &key.wrapped).await {
                    Ok(_) => {}
                    Err(error @ MasterKeyError::Damaged { .. }) => {
                        tracing::error!(%error, "a wrapped key does not open");
                        *self.damaged() = Some(damaged.get_or_insert(error).clone());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.damaged().clone_from(&damaged);
        Ok(damaged.is_some())
    }

    fn damaged(&self) -> MutexGuard<'_, Option<MasterKeyError>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
