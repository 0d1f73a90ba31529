//! What is unknown about JFrog, or set by its administrator.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The simulator's settings; as JSON, the fields under their own names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// What becomes of the old access token when its row is refreshed.
    pub old_access_token: OldAccessToken,
    /// For how many seconds after its expiry a bearer may still refresh (0 or 86400 in the field).
    pub refresh_window_seconds: u64,
    /// What a refresh does with the `expires_in` it is sent.
    pub expires_in_on_refresh: ExpiresInOnRefresh,
    /// Status of a successful create or refresh: 200 or 201.
    pub success_status: u16,
    /// False: `refreshable=true` is ignored, without an error, and a refresh answers no new refresh token.
    pub allow_refreshable: bool,
    /// Longest lifetime in seconds that may be asked for; a longer one or "never" is a 403.
    pub max_expiry_seconds: Option<u64>,
    /// Parameters of a create call that are ignored without an error: `expires_in`, `scope`, `audience`, `force_revocable`.
    pub ignored_on_create: Vec<String>,
    /// Lifetime in seconds of a token that asked for none; 0 = never expires.
    pub default_expires_in_seconds: u64,
    /// Every call waits this long before anything else happens.
    pub latency_ms: u64,
    /// After so many bad bearers in a row the user's bearers are all refused with 403.
    pub lock_user_after_bad_bearers: Option<u32>,
    /// False: access tokens bear zeros where their signature belongs, and are believed. For load: signing would take most of it.
    pub sign_tokens: bool,
}

/// What becomes of an access token once its refresh token was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldAccessToken {
    /// Refused at once.
    Revoked,
    /// Refused after this many seconds, when verifiers' caches expire.
    CachedSeconds(u64),
    /// Good until its own expiry.
    Valid,
}

/// What a refresh does with the `expires_in` it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiresInOnRefresh {
    /// The row keeps its lifetime.
    Ignored,
    /// The new lifetime is the one asked for.
    Honoured,
    /// The new lifetime is the one asked for, or else the row's, but at most this many seconds.
    Capped(u64),
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            old_access_token: OldAccessToken::Revoked,
            refresh_window_seconds: 86_400,
            expires_in_on_refresh: ExpiresInOnRefresh::Ignored,
            success_status: 200,
            allow_refreshable: true,
            max_expiry_seconds: None,
            ignored_on_create: Vec::new(),
            default_expires_in_seconds: 365 * 86_400,
            latency_ms: 0,
            lock_user_after_bad_bearers: None,
            sign_tokens: true,
        }
    }
}

impl Knobs {
    pub(super) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// Lifetime in seconds of a new token, `None` = never expires; `Err` when above the maximum.
    pub(super) fn lifetime(&self, asked: Option<u64>) -> Result<Option<u64>, TooLong> {
        let max = self.max_expiry_seconds;
        match (asked, max) {
            (Some(0), Some(_)) => Err(TooLong),
            (Some(asked), Some(max)) if asked > max => Err(TooLong),
            (Some(0), None) => Ok(None),
            (Some(asked), _) => Ok(Some(asked)),
            (None, max) => Ok(shorter(never_is_none(self.default_expires_in_seconds), max)),
        }
    }

    /// Lifetime in seconds after a refresh of a row that had `row`.
    pub(super) fn lifetime_on_refresh(&self, asked: Option<u64>, row: Option<u64>) -> Result<Option<u64>, TooLong> {
        match (self.expires_in_on_refresh, asked) {
            (ExpiresInOnRefresh::Honoured, Some(asked)) => self.lifetime(Some(asked)),
            (ExpiresInOnRefresh::Capped(cap), Some(asked)) => Ok(shorter(never_is_none(asked), Some(cap))),
            (ExpiresInOnRefresh::Capped(cap), None) => Ok(shorter(row, Some(cap))),
            (ExpiresInOnRefresh::Ignored, _) | (ExpiresInOnRefresh::Honoured, None) => Ok(row),
        }
    }
}

/// More than `max_expiry_seconds` was asked for.
#[derive(Debug)]
pub(super) struct TooLong;

fn never_is_none(seconds: u64) -> Option<u64> {
    (seconds > 0).then_some(seconds)
}

/// The shorter of two lifetimes, `None` being endless.
fn shorter(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
