//! An attempt's journal entry, while this process has it in hand.

use std::sync::PoisonError;

use uuid::Uuid;

use super::{Broker, blocking, keys::JournalKey};
use crate::{
    actor::Actor,
    journal::{Header, Prepared},
    store::Attempt,
};

impl Broker {
    /// Keeps room for it that is on disk already.
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
        if journal.has_room() { journal.prepare(&header) } else { blocking(move || journal.prepare(&header)).await }
    }
}

/// Keeps an answer that nobody can use now.
pub(super) async fn set_aside(entry: Prepared) {
    if let Err(error) = blocking(move || entry.set_aside()).await {
        tracing::warn!(%error, "a journal entry could not be set aside");
    }
}

/// Marks an attempt as this process' own while it runs: replay leaves its entry alone.
pub(super) struct InHand {
    broker: Broker,
    pub(super) attempt: Uuid,
    /// Whether it came to its end; else a panic or an error may have left an entry, which is looked at at once.
    pub(super) ended: bool,
}

impl InHand {
    pub(super) fn new(broker: &Broker, attempt: Uuid) -> Self {
        broker.in_hand.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
        Self { broker: broker.clone(), attempt, ended: false }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.broker.in_hand.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.attempt);
        if !self.ended {
            self.broker.left_behind.notify_one();
        }
    }
}
