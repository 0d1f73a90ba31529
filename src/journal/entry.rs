//! What stands in an entry.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{names::Asked, secret::Sealed};

/// What an entry says in the clear: which attempt it belongs to, and the wrapped key that opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The attempt.
    pub attempt_id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Which registration.
    pub token_id: Uuid,
    /// Which chain.
    pub chain_id: Uuid,
    /// `create`, `rotate`, `heal` or `recreate`.
    pub kind: String,
    /// The chain's generation that was spent: the pair is committed onto no other.
    pub spent_generation: i64,
    /// When the attempt began, by Postgres' clock.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// What is asked of JFrog differently from now on.
    #[serde(default)]
    pub asked: Asked,
    /// For whom, as the audit writes it.
    pub actor: String,
    /// The id of the key that opens it.
    pub key_id: String,
    /// For whom it is wrapped: nil, a process' own; absent, as in the first entries there were: for this attempt alone.
    #[serde(default)]
    pub key_owner: Option<Uuid>,
    /// Which master key unwraps it.
    pub master_key_id: String,
    /// That key, wrapped, in hex: no rotation of data keys strands an entry.
    pub wrapped_key: String,
}

/// Where an entry lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) log: Arc<Path>,
    /// In bytes.
    pub(super) at: u64,
}

/// An entry read back.
#[derive(Debug)]
pub struct Entry {
    /// The clear part.
    pub header: Header,
    /// The sealed answer; `None`: it was not read yet.
    pub body: Option<Sealed>,
    /// Where it lies.
    pub place: Place,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, byte {}", self.log.display(), self.at)
    }
}
