//! An attempt's journal entry, while this process has it in hand.

use std::sync::PoisonError;

use uuid::Uuid;

use super::{Broker, Parts, blocking, keys::JournalKey};
use crate::{
    actor::Actor,
    journal::{Header, Prepared},
    store::Attempt,
};

impl Broker {
    /// Makes the entry at its full size and on disk.
    pub(super) async fn prepare_entry(&self, attempt: &Attempt, key: &JournalKey, actor: &Actor) -> std::io::Result<Prepared> {
        let header = Header {
            attempt_id: attempt.id,
            team_id: attempt.team_id,
            token_id: attempt.token_id,
            chain_id: attempt.chain_id,
            kind: attempt.kind.clone(),
            spent_generation: attempt.spent_generation,
            begun_at: attempt.begun_at,
            asked: attempt.asked.clone(),
            actor: actor.name.clone(),
            key_id: key.key.id().to_owned(),
            key_owner: Some(Uuid::nil()),
            master_key_id: key.wrapped.master_key_id.clone(),
            wrapped_key: hex::encode(key.wrapped.sealed.as_bytes()),
        };
        let journal = self.journal.clone();
        blocking(move || journal.prepare(&header)).await
    }
}

/// Removes an entry that never got its answer.
pub(super) async fn discard(entry: Prepared) {
    if let Err(error) = blocking(move || entry.discard()).await {
        tracing::warn!(%error, "an empty journal entry could not be removed");
    }
}

/// Keeps an answer that nobody can use now.
pub(super) async fn set_aside(entry: Option<Prepared>) {
    let Some(entry) = entry else { return };
    if let Err(error) = blocking(move || entry.set_aside()).await {
        tracing::warn!(%error, "a journal entry could not be set aside");
    }
}

/// Marks an attempt as this process' own while it runs.
pub(super) struct InHand<'a> {
    parts: &'a Parts,
    pub(super) attempt: Uuid,
    /// Whether it came to its end; else a panic or an error may have left an entry, which is looked at at once.
    pub(super) ended: bool,
}

impl<'a> InHand<'a> {
    pub(super) fn new(parts: &'a Parts, attempt: Uuid) -> Self {
        parts.in_hand.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
        Self { parts, attempt, ended: false }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.parts.in_hand.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.attempt);
        if !self.ended {
            self.parts.left_behind.notify_one();
        }
    }
}
