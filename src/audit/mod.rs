//! Tamper evidence for the audit, pure: which bytes stand for a row and for a batch, and what a comparison finds. Digests are handed
//! in; rows come as the texts that Postgres gives.

mod digest;
mod verify;

pub use digest::{Batch, Digest, RowList, pruned_bytes, row_bytes};
pub use verify::{Checkpoint, Comparison, Finding, Walk, Wrong};
