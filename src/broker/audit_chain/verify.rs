//! Verifying: the chain is walked from its beginning, each batch is compared with the rows that are there.

use uuid::Uuid;

use super::{AuditChain, batch_of, digest_of};
use crate::{
    audit::{Checkpoint, Comparison, Digest, Finding, RowList, Walk, Wrong, pruned_bytes},
    broker::BrokerError,
    crypto::{Key, sha256},
    store::AuditBatchRow,
};

/// Batches that are read at once.
pub(super) const BATCHES: i64 = 20;
/// Rows that are read at once.
const PAGE: i32 = 1000;

/// What a walk through the chain has seen.
#[derive(Debug, Default)]
pub struct Verified {
    /// Batches that are as they were.
    pub batches: i64,
    /// Of these, batches whose rows an operator removed.
    pub pruned: i64,
    /// Rows that are as they were.
    pub events: i64,
    /// Newer rows, which are in no batch yet.
    pub unclosed: i64,
    /// The end of the chain, where it was reached.
    pub newest: Option<Checkpoint>,
    /// What is wrong; nothing was looked at behind it.
    pub finding: Option<Finding>,
}

/// A walk with the key it used last.
#[derive(Default)]
pub(super) struct Walker {
    pub(super) walk: Walk,
    /// What shows of the batch it stands on that its rows were removed by who has the key.
    pub(super) mark: Digest,
    key: Option<(Uuid, Key)>,
}

impl AuditChain<'_> {
    /// Walks the whole chain, in bounded memory, and compares it with what was kept elsewhere.
    ///
    /// # Errors
    /// It cannot be verified: the key cannot be had, or Postgres.
    pub async fn verify(&self, checkpoints: &[Checkpoint]) -> Result<Verified, BrokerError> {
        let (mut walker, mut seen) = (Walker::default(), Verified::default());
        loop {
            let batches = self.store.audit_batches(walker.walk.number, BATCHES).await?;
            let Some(last) = batches.last() else { break };
            let newest = last.number;
            for batch in batches {
                let checked = self.check(&mut walker, &batch).await?.and_then(|pruned| {
                    walker.walk.compare(checkpoints)?;
                    Ok(pruned)
                });
                match checked {
                    Ok(pruned) => {
                        seen.batches += 1;
                        seen.pruned += i64::from(pruned);
                        seen.events += if pruned { 0 } else { i64::from(batch.events) };
                    }
                    Err(finding) => return Ok(Verified { finding: Some(finding), ..seen }),
                }
                if batch.number == newest {
                    seen.newest = Some(Checkpoint::of(&batch_of(&batch), &walker.walk.head));
                }
            }
        }
        seen.finding = walker.walk.end(checkpoints).err();
        seen.unclosed = self.store.audit_ahead(walker.walk.from, None).await?.events;
        Ok(seen)
    }

    /// Steps onto the batch and compares its rows; whether they were pruned.
    pub(super) async fn check(&self, walker: &mut Walker, batch: &AuditBatchRow) -> Result<Result<bool, Finding>, BrokerError> {
        let known = walker.key.take().filter(|(id, _)| *id == batch.key_id);
        let (_, key) = walker.key.insert(match known {
            Some(known) => known,
            None => (batch.key_id, self.key(batch.key_id).await?),
        });
        let from = walker.walk.from;
        if let Err(finding) = walker.walk.step(&batch_of(batch), &batch.head, |bytes| key.hmac(bytes)) {
            return Ok(Err(finding));
        }
        walker.mark = key.hmac(&pruned_bytes(&walker.walk.head));
        let compared = self.compare(batch, from, &walker.mark).await?;
        if compared.is_err() && batch.pruned.is_none() {
            // It may have been pruned since it was read.
            let again = self.store.audit_batches(batch.number - 1, 1).await?;
            if let Some(again) = again.into_iter().find(|again| again.number == batch.number && again.pruned.is_some()) {
                return self.compare(&again, from, &walker.mark).await;
            }
        }
        Ok(compared)
    }

    async fn compare(&self, batch: &AuditBatchRow, mut from: i64, mark: &[u8]) -> Result<Result<bool, Finding>, BrokerError> {
        let wrong = |wrong| Ok(Err(Finding { batch: batch.number, event: None, wrong }));
        let list = match &batch.rows {
            Some(rows) => RowList::from_bytes(rows.clone()).filter(|list| sha256(list.as_bytes()) == *batch.digest),
            None if batch.pruned.as_deref() == Some(mark) => Some(RowList::default()),
            None => return wrong(Wrong::NotPruned),
        };
        let Some(list) = list else { return wrong(Wrong::BatchChanged) };
        let mut comparison = Comparison::new(batch.number, &list);
        loop {
            let rows = self.store.audit_rows(from, batch.last_id, PAGE).await?;
            let compared = rows.iter().try_for_each(|row| comparison.row(row.id, &digest_of(row)));
            match (compared, rows.last()) {
                (Err(finding), _) => return Ok(Err(finding)),
                (Ok(()), Some(last)) if last.id < batch.last_id => from = last.id + 1,
                (Ok(()), _) => return Ok(comparison.end().map(|()| batch.rows.is_none())),
            }
        }
    }
}
