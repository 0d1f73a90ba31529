//! Keys as they are shown, over HTTP and by the command line. Never one itself.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    broker::{KeyStatus, MasterKeyStatus},
    store::{JournalRow, ListedDataKey, ResealProgress},
};

/// All keys, and how far what was asked for is.
#[derive(Debug, Serialize, ToSchema)]
pub struct EncryptionKeys {
    /// Every master key that was ever used, the oldest first.
    pub master_keys: Vec<MasterKey>,
    /// What each replica said last of its journal.
    pub journals: Vec<Journal>,
    /// The rotation of data keys.
    pub rotation: Rotation,
    /// `null`: every data key is wrapped by the master key that was last asked for.
    pub rewrap: Option<Rewrap>,
}

/// A master key, and what needs it.
#[derive(Debug, Serialize, ToSchema)]
pub struct MasterKey {
    /// As in `TOKEN_BROKER_MASTER_KEYS`.
    #[schema(example = "k1")]
    pub id: String,
    /// `wraps`: the first of this service's list; `opens`: in the list; `absent`: not in it; `retired`.
    #[schema(example = "wraps")]
    pub state: &'static str,
    /// Whether anything cannot be opened without it.
    pub used: bool,
    /// Keys that it wraps: data keys, and the one of the audit's chain.
    #[schema(example = 12)]
    pub wrapped_keys: i64,
    /// Journals that need it.
    pub journals: Vec<Uuid>,
    /// When it was first used.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// `null`: it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
}

/// A replica's journal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Journal {
    /// Lies in its directory, in the file `id`.
    pub id: Uuid,
    /// Master keys that its entries need, the one that wraps the next ones included.
    #[schema(example = json!(["k1"]))]
    pub needs: Vec<String>,
    /// Master keys that its replica was given, the wrapping one first.
    #[schema(example = json!(["k1"]))]
    pub holds: Vec<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub reported_at: OffsetDateTime,
    /// Its replica has been silent for a quarter of an hour. It counts as needing what it said last until it is forgotten.
    pub away: bool,
}

/// How far the rotation of data keys is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rotation {
    /// Whether no row needs an old data key, and none is still to be made.
    pub done: bool,
    /// Teams whose new data key is still to be made.
    #[schema(example = 0)]
    pub teams_waiting: i64,
    /// Data keys, old ones included.
    #[schema(example = 13)]
    pub data_keys: i64,
    /// Old ones: they are deleted some minutes after nothing needs them.
    #[schema(example = 1)]
    pub old_data_keys: i64,
    /// Rows of the teams that have old data keys.
    #[schema(example = 10_000)]
    pub rows: i64,
    /// Of these, rows that still need an old one.
    #[schema(example = 0)]
    pub rows_left: i64,
}

/// How far the re-wrapping is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rewrap {
    /// Which master key is to wrap all.
    #[schema(example = "k2")]
    pub master_key: String,
    /// Keys that another one wraps still.
    #[schema(example = 3)]
    pub keys_left: i64,
}

/// A team's data key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DataKey {
    /// Stands in front of everything it sealed.
    id: Uuid,
    /// Whose.
    #[schema(example = "payments")]
    team: String,
    /// What wraps it.
    #[schema(example = "k1")]
    master_key: String,
    /// `current`: it seals; `open`: it was rotated minutes ago, and a replica may not know yet; `closed`: nothing is sealed with it.
    #[schema(example = "current")]
    state: &'static str,
    /// Whether a row needs it, or may still come to.
    used: bool,
    /// Rows that need it.
    #[schema(example = 84)]
    rows: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When another took its place; `null`: none did.
    #[serde(with = "time::serde::rfc3339::option")]
    rotated_at: Option<OffsetDateTime>,
}

impl From<KeyStatus> for EncryptionKeys {
    fn from(status: KeyStatus) -> Self {
        Self {
            master_keys: status.master_keys.into_iter().map(MasterKey::from).collect(),
            journals: status.journals.into_iter().map(Journal::from).collect(),
            rotation: status.rotation.into(),
            rewrap: status.rewrap.map(|(master_key, keys_left)| Rewrap { master_key, keys_left }),
        }
    }
}

impl From<MasterKeyStatus> for MasterKey {
    fn from(key: MasterKeyStatus) -> Self {
        Self {
            state: key.state.as_str(),
            used: key.is_used(),
            id: key.id,
            wrapped_keys: key.wrapped_keys,
            journals: key.journals,
            created_at: key.created_at,
            retired_at: key.retired_at,
        }
    }
}

impl From<JournalRow> for Journal {
    fn from(row: JournalRow) -> Self {
        Self { id: row.id, needs: row.needs, holds: row.holds, reported_at: row.reported_at, away: row.away }
    }
}

impl From<ResealProgress> for Rotation {
    fn from(progress: ResealProgress) -> Self {
        Self {
            done: progress.rows_left == 0 && progress.teams_waiting == 0,
            teams_waiting: progress.teams_waiting,
            data_keys: progress.keys,
            old_data_keys: progress.old_keys,
            rows: progress.rows,
            rows_left: progress.rows_left,
        }
    }
}

impl From<ListedDataKey> for DataKey {
    fn from(key: ListedDataKey) -> Self {
        let state = match (key.current, key.closed_at) {
            (true, _) => "current",
            (false, None) => "open",
            (false, Some(_)) => "closed",
        };
        Self {
            id: key.id,
            team: key.team,
            master_key: key.master_key_id,
            state,
            used: state != "closed" || key.rows > 0,
            rows: key.rows,
            created_at: key.created_at,
            rotated_at: key.rotated_at,
        }
    }
}
