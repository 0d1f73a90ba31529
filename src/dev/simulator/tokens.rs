//! A token, as the server knows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Below this lifetime a token is not revocable, unless that was forced.
const REVOCABLE_FROM_SECONDS: u64 = 6 * 3_600;
/// Below this lifetime a token that is not refreshable is not stored.
const STORED_FROM_SECONDS: u64 = 3 * 3_600;

/// Everything about one token, values included. Times are seconds since 1970 on the simulator's clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) id: Uuid,
    pub(super) user: String,
    pub(super) scope: String,
    pub(super) audience: String,
    pub(super) description: String,
    pub(super) issued_at: i64,
    /// `None` = never.
    pub(super) expires_at: Option<i64>,
    pub(super) force_revocable: bool,
    pub(super) identity: bool,
    /// The key that signed it: its reference token dies with the key too.
    pub(super) key_id: String,
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) reference_token: Option<String>,
    /// The row was deleted by a DELETE.
    pub(super) revoked: bool,
    /// The row was replaced by this one, in a refresh.
    pub(super) replaced_by: Option<Uuid>,
    /// From when on verifiers refuse it for having been revoked or replaced.
    pub(super) dies_at: Option<i64>,
    pub(super) last_used: Option<i64>,
}

/// What a new token is to be.
pub(super) struct Wish {
    pub(super) user: String,
    pub(super) scope: String,
    pub(super) audience: String,
    pub(super) description: String,
    pub(super) lifetime: Option<u64>,
    pub(super) refreshable: bool,
    pub(super) reference: bool,
    pub(super) force_revocable: bool,
    pub(super) identity: bool,
}

/// The claims of an access token.
#[derive(Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    pub(super) scp: String,
    pub(super) aud: Value,
    pub(super) iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    pub(super) iat: i64,
    pub(super) jti: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ext: Option<String>,
}

/// A token as a test sees it: everything but the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id, also the `jti` of the access token.
    pub token_id: Uuid,
    /// The user's name, without the service id.
    pub user: String,
    /// Its scope.
    pub scope: String,
    /// Its audience.
    pub audience: String,
    /// Its description.
    pub description: String,
    /// Seconds since 1970 on the simulator's clock.
    pub issued_at: i64,
    /// Seconds since 1970 on the simulator's clock; `None` = never.
    pub expires_at: Option<i64>,
    /// It was made with a refresh token.
    pub refreshable: bool,
    /// Its refresh token would still be found.
    pub refresh_token_unused: bool,
    /// A DELETE would revoke it.
    pub revocable: bool,
    /// The server keeps a row for it: GET by id finds it unless revoked or replaced.
    pub stored: bool,
    /// A DELETE revoked it.
    pub revoked: bool,
    /// The token a refresh replaced it by.
    pub replaced_by: Option<Uuid>,
    /// It is a user's identity token.
    pub identity: bool,
    /// A bearer with it would be accepted now.
    pub alive: bool,
}

impl Token {
    pub(super) fn lifetime(&self) -> Option<u64> {
        self.expires_at.map(|at| u64::try_from(at - self.issued_at).unwrap_or(0))
    }

    pub(super) fn revocable(&self) -> bool {
        self.force_revocable || self.lifetime().is_none_or(|s| s >= REVOCABLE_FROM_SECONDS)
    }

    pub(super) fn stored(&self) -> bool {
        self.refresh_token.is_some() || self.force_revocable || self.lifetime().is_none_or(|s| s >= STORED_FROM_SECONDS)
    }

    /// The server has a row for it.
    pub(super) fn has_row(&self) -> bool {
        self.stored() && !self.revoked && self.replaced_by.is_none()
    }

    pub(super) fn expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    pub(super) fn dead(&self, now: i64) -> bool {
        self.dies_at.is_some_and(|at| at <= now)
    }

    pub(super) fn claims(&self, service_id: &str) -> Claims {
        let audiences: Vec<&str> = self.audience.split_whitespace().collect();
        Claims {
            sub: subject(service_id, &self.user),
            scp: self.scope.clone(),
            aud: match audiences[..] {
                [only] => json!(only),
                _ => json!(audiences),
            },
            iss: service_id.to_owned(),
            exp: self.expires_at,
            iat: self.issued_at,
            jti: self.id,
            ext: self.revocable().then(|| r#"{"revocable":"true"}"#.to_owned()),
        }
    }

    /// What create and refresh answer.
    pub(super) fn pair(&self) -> Value {
        let mut pair = json!({
            "token_id": self.id,
            "access_token": self.access_token,
            "scope": self.scope,
            "token_type": "Bearer",
        });
        if let Some(refresh_token) = &self.refresh_token {
            pair["refresh_token"] = json!(refresh_token);
        }
        if let Some(lifetime) = self.lifetime() {
            pair["expires_in"] = json!(lifetime);
        }
        if let Some(reference_token) = &self.reference_token {
            pair["reference_token"] = json!(reference_token);
        }
        if !self.description.is_empty() {
            pair["description"] = json!(self.description);
        }
        pair
    }

    /// What the GETs answer: never a value.
    pub(super) fn record(&self, service_id: &str) -> Value {
        let mut record = json!({
            "token_id": self.id,
            "subject": subject(service_id, &self.user),
            "issued_at": self.issued_at,
            "issuer": service_id,
            "refreshable": self.refresh_token.is_some(),
            "scope": self.scope,
        });
        if let Some(at) = self.expires_at {
            record["expiry"] = json!(at);
        }
        if let Some(at) = self.last_used {
            record["last_used"] = json!(at);
        }
        if !self.description.is_empty() {
            record["description"] = json!(self.description);
        }
        record
    }

    pub(super) fn view(&self, alive: bool) -> TokenView {
        TokenView {
            token_id: self.id,
            user: self.user.clone(),
            scope: self.scope.clone(),
            audience: self.audience.clone(),
            description: self.description.clone(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            refreshable: self.refresh_token.is_some(),
            refresh_token_unused: self.refresh_token.is_some() && self.has_row(),
            revocable: self.revocable(),
            stored: self.stored(),
            revoked: self.revoked,
            replaced_by: self.replaced_by,
            identity: self.identity,
            alive,
        }
    }
}

fn subject(service_id: &str, user: &str) -> String {
    format!("{service_id}/users/{user}")
}

/// The user of a subject; the name may hold `/` and `@`.
pub(super) fn user_of(subject: &str) -> Option<&str> {
    subject.split_once("/users/").map(|(_, user)| user)
}

/// 64 characters that hold the expiry, 0 for never.
pub(super) fn new_reference_token(expires_at: Option<i64>) -> String {
    let epoch = expires_at.unwrap_or(0).min(9_999_999_999);
    let secret = Alphanumeric.sample_string(&mut rand::rng(), 27);
    STANDARD.encode(format!("reftkn:01:{epoch:010}:{secret}"))
}
