//! Closing: a batch of what was written since the last one, once nobody can write in between any more.

use std::time::{Duration, Instant};

use metrics::counter;
use uuid::Uuid;

use super::{AuditChain, digest_of};
use crate::{
    audit::{Batch, Checkpoint, RowList},
    broker::{Broker, BrokerError, everywhere::shared, settle::Settled},
    crypto::{Key, sha256},
    store::{AuditBatchRow, StoreError},
};

/// How often what was written is closed. Until then a row can be changed without a trace.
const EVERY: Duration = Duration::from_secs(60);
/// Rows of one batch.
const MOST: i32 = 5000;
/// Rows that are read at once: hand-outs do not wait while a busy minute is closed.
const STEP: i32 = 250;
/// So many times as long as a step took is the rest after it.
const RESTS: u32 = 4;
/// Batches of one turn of the worker, when many rows wait.
const A_TURN: usize = 10;
/// How long statements that are under way are waited for. Few take more than a few milliseconds, and all are ended after 15 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(20);
/// When they took longer.
const PUT_OFF: Duration = Duration::from_secs(10);

/// What became of closing a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nothing was written since the last one.
    Nothing,
    /// A transaction may still write a row between those that are there.
    PutOff,
    /// Another replica was first.
    ByAnother,
    /// A batch.
    Batch {
        /// Its head.
        checkpoint: Checkpoint,
        /// Whether more rows than fit into a batch were there.
        more: bool,
    },
}

impl AuditChain<'_> {
    /// Closes a batch of the oldest rows that are in none.
    ///
    /// # Errors
    /// The key cannot be had, or Postgres.
    pub async fn close(&self) -> Result<Closed, BrokerError> {
        let newest = self.store.newest_audit_batch().await?;
        let (number, from) = newest.as_ref().map_or((0, i64::MIN), |batch| (batch.number, batch.last_id.saturating_add(1)));
        let ahead = self.store.audit_ahead(from, Some(MOST)).await?;
        let Some(last_id) = ahead.last_id else { return Ok(Closed::Nothing) };
        if !self.nobody_writes_before(PATIENCE).await? {
            return Ok(Closed::PutOff);
        }
        let list = self.list(from, last_id).await?;
        let batch = Batch {
            number: number + 1,
            last_id,
            events: i32::try_from(list.count()).unwrap_or(i32::MAX),
            digest: sha256(list.as_bytes()),
            closed_at: ahead.now,
        };
        let (previous, key_id) = match &newest {
            Some(newest) => (newest.head.as_slice().try_into().unwrap_or_default(), newest.key_id),
            None => ([0; 32], Uuid::new_v4()),
        };
        let key = if newest.is_some() { self.key(key_id).await? } else { Key::generate_with_id(key_id.to_string()) };
        let new_key = match newest {
            Some(_) => None,
            None => Some(self.master.wrap(shared(self.master, self.store).await?, Uuid::nil(), &key).await?),
        };
        let head = key.hmac(&batch.bytes(&previous));
        let row = AuditBatchRow {
            number: batch.number,
            key_id,
            last_id,
            events: batch.events,
            digest: batch.digest.to_vec(),
            rows: Some(list.as_bytes().to_vec()),
            head: head.to_vec(),
            closed_at: batch.closed_at,
            pruned: None,
        };
        match self.store.close_audit_batch(&row, new_key.as_ref()).await {
            Ok(()) => Ok(Closed::Batch { checkpoint: Checkpoint::of(&batch, &head), more: ahead.events >= i64::from(MOST) }),
            Err(StoreError::Taken(_)) => Ok(Closed::ByAnother),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until everyone who writes now is done: whoever begins later gets ids after those that were seen. Rows commit in
    /// another order than their ids, and what commits into a closed batch would look slipped in.
    async fn nobody_writes_before(&self, patience: Duration) -> Result<bool, BrokerError> {
        let mut writers = self.store.audit_writers().await?;
        let looks = patience.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if writers.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
            let now = self.store.audit_writers().await?;
            writers.retain(|writer| now.contains(writer));
        }
        Ok(writers.is_empty())
    }

    async fn list(&self, mut from: i64, upto: i64) -> Result<RowList, BrokerError> {
        let mut list = RowList::default();
        loop {
            let began = Instant::now();
            let rows = self.store.audit_rows(from, upto, STEP).await?;
            for row in &rows {
                list.push(row.id, &digest_of(row));
            }
            match rows.last() {
                Some(last) if last.id < upto => from = last.id + 1,
                _ => return Ok(list),
            }
            tokio::time::sleep(began.elapsed() * RESTS).await;
        }
    }
}

impl Broker {
    /// Closes what was written since, and tells the newest head to who keeps it.
    pub(in crate::broker) async fn close_audit(&self) -> Result<Settled, BrokerError> {
        let chain = AuditChain::new(&self.store, self.keys.master());
        let (mut newest, mut next) = (None, Duration::ZERO);
        for _ in 0..A_TURN {
            let closed = chain.close().await?;
            let outcome = match closed {
                Closed::Nothing => "nothing",
                Closed::PutOff => "put_off",
                Closed::ByAnother => "by_another",
                Closed::Batch { .. } => "closed",
            };
            counter!("token_broker_audit_batches_total", "outcome" => outcome).increment(1);
            next = match closed {
                Closed::PutOff => PUT_OFF,
                Closed::Nothing | Closed::ByAnother => EVERY,
                Closed::Batch { checkpoint, more } => {
                    newest = Some(checkpoint);
                    if more { Duration::ZERO } else { EVERY }
                }
            };
            if !next.is_zero() || self.stop.is_cancelled() {
                break;
            }
        }
        if let Some(checkpoint) = newest {
            self.tell_checkpoint(&checkpoint).await;
        }
        Ok(Settled::Later(next))
    }

    /// To the log, and to where the operator wants it. What could not be posted is not tried again: the next one vouches for it too.
    async fn tell_checkpoint(&self, checkpoint: &Checkpoint) {
        let line = serde_json::to_string(checkpoint).expect("numbers, texts and a time are JSON");
        tracing::info!(checkpoint = line, "a batch of the audit is closed");
        if let Some(destination) = &self.checkpoints
            && let Err(why) = destination.post(line).await
        {
            counter!("token_broker_audit_batches_total", "outcome" => "not_posted").increment(1);
            tracing::warn!(
                why,
                batch = checkpoint.batch,
                "a checkpoint of the audit could not be posted; the next one vouches for it too"
            );
        }
    }
}
