//! What this replica's journal needs is told to Postgres, so that no master key is retired while an entry somewhere is wrapped by it.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Broker, BrokerError, blocking, keys::Keys};
use crate::{crypto::MasterKeyError, journal::Journal, store::Store};

/// How often a replica says what its journal needs.
pub(super) const REPORT: Duration = Duration::from_secs(300);

impl Keys {
    /// Takes down what the journal needs, and that this process wraps its entries by the first master key from now on.
    ///
    /// # Errors
    /// That master key was retired; the journal cannot be read; or Postgres.
    pub(super) async fn report(&self, store: &Store, journal: &Journal) -> Result<(), BrokerError> {
        let (first, reading) = (self.master().first().to_owned(), journal.clone());
        let found = blocking(move || reading.needs()).await?;
        let holds: Vec<String> = self.master().ids().map(str::to_owned).collect();
        let mut needs: Vec<String> = found.master_keys.into_keys().chain([first.clone()]).collect();
        if found.unread > 0 {
            needs.extend_from_slice(&holds);
        }
        let usable = store.report_journal(journal.id(), &needs, &holds).await?;
        if usable.contains(&first) {
            return Ok(());
        }
        // It was away for so long that an operator gave it up: nothing more may be wrapped by what is about to be destroyed.
        self.stop_wrapping();
        Err(MasterKeyError::Retired(first).into())
    }
}

/// Before anything is begun: the journal's entries can be opened, and Postgres knows what they need.
///
/// # Errors
/// A pair that Postgres may not have needs a master key that is not in the list, or the first one was retired; or the journal or
/// Postgres cannot be read.
pub async fn report_journal(keys: &Keys, store: &Store, journal: &Journal) -> anyhow::Result<()> {
    let reading = journal.clone();
    for (id, waiting) in blocking(move || reading.needs()).await.context("reading the journal")?.master_keys {
        ensure!(
            keys.master().has(&id) || waiting == 0,
            "TOKEN_BROKER_MASTER_KEYS: {}: it opens {waiting} entries of the journal that Postgres may not have yet",
            MasterKeyError::Missing(id)
        );
    }
    Ok(keys.report(store, journal).await?)
}

impl Broker {
    pub(super) async fn report(&self) -> Result<(), BrokerError> {
        self.keys.forget_what_is_over().await;
        self.keys.report(&self.store, &self.journal).await
    }
}
