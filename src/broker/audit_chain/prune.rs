//! Pruning: the rows of old batches are removed, the batches stay. What was tampered with is not pruned: it would be evidence lost.

use time::OffsetDateTime;

use super::{
    AuditChain,
    verify::{BATCHES, Walker},
};
use crate::{
    actor::Actor,
    audit::Finding,
    broker::BrokerError,
    store::{AuditPruning, Prunable},
};

/// Rows that are removed at once, about: a statement must end, and a vacuum come in between.
const AT_ONCE: i64 = 20_000;
/// Batches likewise: each statement is an event of its own.
const BATCHES_AT_ONCE: usize = 1000;

/// What became of it.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Batches whose rows were removed.
    pub batches: usize,
    /// How many rows.
    pub events: i64,
    /// What is wrong; nothing was removed from there on.
    pub finding: Option<Finding>,
    /// Rows were verified and then not found by the account that should have removed them.
    pub unseen: bool,
}

impl AuditChain<'_> {
    /// Removes the rows of all batches that were closed before `before`: all their rows are older.
    ///
    /// # Errors
    /// The key cannot be had, the owner's account may not, or Postgres.
    pub async fn prune(&self, before: OffsetDateTime, owner: &AuditPruning, actor: &Actor) -> Result<Pruned, BrokerError> {
        let (mut walker, mut done) = (Walker::default(), Pruned::default());
        let mut verified = Prunable { from: walker.walk.from, ..Prunable::default() };
        loop {
            let page = self.store.audit_batches(walker.walk.number, BATCHES).await?;
            let mut at_end = page.is_empty();
            for batch in page {
                at_end = batch.closed_at >= before;
                if at_end {
                    break;
                }
                match self.check(&mut walker, &batch).await? {
                    Ok(true) => {}
                    Ok(false) => {
                        verified.numbers.push(batch.number);
                        verified.marks.push(walker.mark.to_vec());
                        verified.events += i64::from(batch.events);
                        verified.upto = batch.last_id;
                    }
                    Err(finding) => {
                        (done.finding, at_end) = (Some(finding), true);
                        break;
                    }
                }
            }
            if !verified.numbers.is_empty() && (at_end || verified.events >= AT_ONCE || verified.numbers.len() >= BATCHES_AT_ONCE)
            {
                if !owner.remove(&verified, before, actor).await? {
                    return Ok(Pruned { unseen: true, ..done });
                }
                done.batches += verified.numbers.len();
                done.events += verified.events;
                verified = Prunable { from: verified.upto + 1, ..Prunable::default() };
            }
            if at_end {
                return Ok(done);
            }
        }
    }
}
