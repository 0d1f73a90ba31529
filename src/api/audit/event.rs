//! One event of the audit, as it is shown.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::store::AuditRow;

/// Something that was done or refused. Never a secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEvent {
    /// Grows with each event, whichever team's.
    #[schema(example = 4711)]
    id: i64,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// `null`: the platform's.
    #[schema(example = "payments")]
    team: Option<String>,
    /// Who: `key:<team>/<name>`, `platform-key:<name>`, a CI identity as `github:<sub>`, `system`, `nobody`.
    #[schema(example = "key:payments/ci")]
    actor: String,
    /// How the actor was recognised: which key, or which rules let it in and the claims that identify the job.
    #[schema(value_type = Object, example = json!({"type": "api-key", "id": "0f3a5c7e9b1d2f40", "name": "ci"}))]
    recognised_by: serde_json::Value,
    /// `noun.verb`; of a refusal the method and the route.
    #[schema(example = "token.hand_out")]
    action: String,
    /// `done`, `refused` (by the broker) or `failed` (at JFrog).
    #[schema(example = "done")]
    outcome: String,
    /// Precisely why, where it was not done; the caller itself was told less. May quote JFrog.
    #[schema(example = json!(null))]
    reason: Option<String>,
    /// The token's name, as it was asked for.
    #[schema(example = "deploy")]
    token: Option<String>,
    /// JFrog's id of the access token that was handed out or made.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: Option<String>,
    /// First 16 hex digits of that access token's SHA-256.
    #[schema(example = "9f86d081884c7d65")]
    fingerprint: Option<String>,
    /// The token's.
    #[schema(example = 7)]
    generation: Option<i64>,
    /// The answer's `x-request-id`.
    #[schema(example = "01a209f3-519d-704a-a19d-b2f8dd4b3844")]
    request_id: Option<String>,
    /// The caller's.
    #[schema(example = "10.1.2.3")]
    address: Option<String>,
    /// What else is worth knowing, action by action.
    #[schema(value_type = Option<Object>, example = json!({"warnings": ["short-lived"]}))]
    detail: Option<serde_json::Value>,
}

impl From<AuditRow> for AuditEvent {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: row.at,
            team: row.team,
            actor: row.actor,
            recognised_by: row.recognised_by,
            action: row.action,
            outcome: row.outcome,
            reason: row.reason,
            token: row.token_name,
            token_id: row.jfrog_token_id,
            fingerprint: row.fingerprint,
            generation: row.generation,
            request_id: row.request_id,
            address: row.address,
            detail: row.detail,
        }
    }
}
