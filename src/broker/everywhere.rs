//! Which master key may wrap what every replica needs: one that each of them was given. A replica that cannot open a team's data key
//! cannot serve the team.

use super::{BrokerError, encryption_keys::AWAY_AFTER};
use crate::{
    crypto::MasterKeys,
    store::{JournalRow, Store},
};

/// Refuses a master key that a replica which is there was not given.
///
/// # Errors
/// One was not, or Postgres.
pub(super) async fn everywhere(id: &str, store: &Store) -> Result<(), BrokerError> {
    let replicas = lacking(id, &store.journals(AWAY_AFTER).await?);
    if replicas.is_empty() { Ok(()) } else { Err(BrokerError::KeyNotEverywhere { id: id.to_owned(), replicas }) }
}

/// The first of these master keys that every replica was given, and that was not retired.
///
/// # Errors
/// There is none: the error names who lacks the first one; or Postgres.
pub(super) async fn shared<'a>(master: &'a MasterKeys, store: &Store) -> Result<&'a str, BrokerError> {
    let (journals, known) = (store.journals(AWAY_AFTER).await?, store.master_keys().await?);
    let retired = |id: &str| known.iter().any(|key| key.id == id && key.retired_at.is_some());
    let shared = master.ids().find(|id| !retired(id) && lacking(id, &journals).is_empty());
    let first = master.first();
    shared.ok_or_else(|| BrokerError::KeyNotEverywhere { id: first.to_owned(), replicas: lacking(first, &journals) })
}

/// The journals of the replicas that are there and were not given this master key.
fn lacking(id: &str, journals: &[JournalRow]) -> Vec<String> {
    let without = |journal: &&JournalRow| !journal.away && !journal.holds.iter().any(|held| held == id);
    journals.iter().filter(without).map(|journal| journal.id.to_string()).collect()
}
