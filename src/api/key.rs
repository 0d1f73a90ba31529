//! API keys as they are asked for and shown, for teams and for the platform.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::validation::Validation;
use crate::{names::Name, store::ApiKeyRow};

/// A hundred years, seconds.
pub(super) const FOREVER: i64 = 100 * 365 * 86_400;

/// A platform key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreatePlatformKey {
    /// Unique among the platform's keys.
    #[schema(value_type = String, example = "terraform")]
    pub name: Name,
    /// Seconds until it expires; absent: never.
    #[schema(example = 7_776_000)]
    pub expires_in: Option<i64>,
}

/// An API key, without the key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    /// Unique in its team.
    #[schema(example = "ci")]
    pub name: String,
    /// `ci`, `viewer`, `admin` or `platform-admin`.
    #[schema(example = "ci")]
    pub role: String,
    /// Token names and globs.
    #[schema(example = json!(["deploy-*"]))]
    pub tokens: Vec<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// By whom.
    #[schema(example = "platform-key:bootstrap")]
    pub created_by: String,
    /// `null`: never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute; `null`: not yet.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A new API key: shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewKey {
    /// The key itself: `tbk_…`. It is kept nowhere; who loses it makes another.
    #[schema(example = "tbk_…")]
    pub key: String,
    #[serde(flatten)]
    pub shown: Key,
}

impl From<ApiKeyRow> for Key {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            tokens: row.token_patterns,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// Checks a key's lifetime.
pub(super) fn check_lifetime(checks: &mut Validation, expires_in: Option<i64>) -> &mut Validation {
    checks.seconds("expires_in", expires_in, 1..=FOREVER)
}
