//! An attempt's journal entry, while this process has it in hand.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use uuid::Uuid;

use super::{Broker, blocking, keys::JournalKey};
use crate::{
    actor::Actor,
    fault::{self, Point},
    journal::{Header, Prepared},
    store::Attempt,
};

impl Broker {
    /// Takes a file of full size that is on disk already.
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
        if journal.has_spare() { journal.prepare(&header) } else { blocking(move || journal.prepare(&header)).await }
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

/// Marks an attempt as this process' own while it runs, and while its entry is written to.
pub(super) struct InHand {
    broker: Broker,
    pub(super) attempt: Uuid,
    /// Whether it came to its end; else a panic or an error may have left an entry, which is looked at at once.
    pub(super) ended: AtomicBool,
}

impl InHand {
    pub(super) fn new(broker: &Broker, attempt: Uuid) -> Arc<Self> {
        broker.in_hand.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
        Arc::new(Self { broker: broker.clone(), attempt, ended: AtomicBool::new(false) })
    }

    /// Postgres has the pair: the entry says so. Nobody waits for it: the next start would find out.
    pub(super) fn mark_committed(self: Arc<Self>, entry: Prepared) {
        let broker = self.broker.clone();
        broker.spawn(async move {
            if let Err(error) = blocking(move || entry.committed()).await {
                tracing::warn!(%error, "a committed journal entry could not be marked; the next start finds it committed");
            }
            fault::point(Point::Marked).await;
            drop(self);
        });
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.broker.in_hand.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.attempt);
        if !self.ended.load(Ordering::Relaxed) {
            self.broker.left_behind.notify_one();
        }
    }
}
