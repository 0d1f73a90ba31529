//! `GET /whoami`.

use axum::Json;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{caller::Authenticated, docs};
use crate::identity::Role;

/// Who is calling, as the broker sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAmI {
    /// `null` for a platform admin.
    #[schema(example = "payments")]
    team: Option<String>,
    /// `ci`, `viewer`, `admin` or `platform-admin`.
    #[schema(value_type = String, example = "ci")]
    role: Role,
    /// Token names and globs.
    #[schema(example = json!(["deploy-*"]))]
    tokens: Vec<String>,
    /// As the audit writes it.
    #[schema(example = "key:payments/ci")]
    name: String,
    /// How the caller was recognised.
    #[schema(value_type = Object, example = json!({"type": "api-key", "id": "0f3a5c7e9b1d2f40", "name": "ci"}))]
    recognised_by: serde_json::Value,
    /// When the credential ends; `null`: never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// Who am I
///
/// The caller's team, role and tokens, how it was recognised, and when its credential ends.
#[utoipa::path(get, path = "/whoami", tag = docs::SERVICE, security(("bearer" = [])),
    responses((status = 200, description = "The caller.", body = WhoAmI)))]
pub(super) async fn whoami(who: Authenticated) -> Json<WhoAmI> {
    let caller = who.caller;
    Json(WhoAmI {
        team: caller.team().map(|team| team.name.clone()),
        role: caller.grant().role,
        tokens: caller.grant().tokens.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        name: caller.name().to_owned(),
        recognised_by: caller.recognised_by().clone(),
        expires_at: caller.expires_at(),
    })
}
