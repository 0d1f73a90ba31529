//! The chain of audit batches: closing what was written since, walking it, and removing its old rows. No lock is taken for it, and
//! what writes the audit waits for nothing.

mod close;
mod prune;
mod verify;

use uuid::Uuid;

pub use close::Closed;
pub use prune::Pruned;
pub use verify::Verified;

use super::BrokerError;
use crate::{
    audit::{Batch, Checkpoint, row_bytes},
    crypto::{Key, MasterKeys, sha256},
    store::{AuditBatchRow, AuditText, Store},
};

/// The chain over its parts.
#[derive(Debug)]
pub struct AuditChain<'a> {
    store: &'a Store,
    master: &'a MasterKeys,
}

impl<'a> AuditChain<'a> {
    /// The chain in this database, whose key these master keys unwrap.
    pub fn new(store: &'a Store, master: &'a MasterKeys) -> Self {
        Self { store, master }
    }

    async fn key(&self, id: Uuid) -> Result<Key, BrokerError> {
        let row = self.store.audit_key(id).await?.ok_or_else(|| BrokerError::NotFound(format!("audit key {id}")))?;
        // It is no team's: the platform's.
        Ok(self.master.unwrap(Uuid::nil(), &row.id.to_string(), &row.wrapped).await?)
    }
}

/// The end of the chain. `None`: nothing is closed yet.
///
/// # Errors
/// Postgres.
pub async fn newest_checkpoint(store: &Store) -> Result<Option<Checkpoint>, BrokerError> {
    let newest = store.newest_audit_batch().await?;
    Ok(newest.map(|row| Checkpoint::of(&batch_of(&row), &row.head)))
}

fn digest_of(row: &AuditText) -> [u8; 32] {
    sha256(&row_bytes(row.id, &row.fields))
}

/// What the batch's head vouches for. A digest that is none is one that no list has.
fn batch_of(row: &AuditBatchRow) -> Batch {
    Batch {
        number: row.number,
        last_id: row.last_id,
        events: row.events,
        digest: row.digest.as_slice().try_into().unwrap_or_default(),
        closed_at: row.closed_at,
    }
}
