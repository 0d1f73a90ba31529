//! `GET /whoami`.

use axum::{Json, extract::State};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Parameters, TeamParameter},
    problem::Problem,
};
use crate::{
    identity::{Grant, Grants, Role},
    names::TokenPattern,
};

/// Who is calling, as the broker sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAmI {
    /// `null` for a platform admin.
    #[schema(example = "payments")]
    team: Option<String>,
    /// `ci`, `viewer`, `admin` or `platform-admin`; the strongest of `grants`.
    #[schema(value_type = String, example = "ci")]
    role: Role,
    /// Token names and globs.
    #[schema(value_type = Vec<String>, example = json!(["deploy-*"]))]
    tokens: Vec<TokenPattern>,
    /// Role by role: a CI identity has what each rule gives that lets it in.
    grants: Vec<ShownGrant>,
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

/// A role, and the tokens it is for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShownGrant {
    /// `ci`, `viewer`, `admin` or `platform-admin`.
    #[schema(value_type = String, example = "ci")]
    pub role: Role,
    /// Token names and globs.
    #[schema(value_type = Vec<String>, example = json!(["deploy-*"]))]
    pub tokens: Vec<TokenPattern>,
}

impl From<&Grant> for ShownGrant {
    fn from(grant: &Grant) -> Self {
        Self { role: grant.role, tokens: grant.tokens.clone() }
    }
}

/// Who am I
///
/// The caller's team, role and tokens, how it was recognised, and when its credential ends.
#[utoipa::path(get, path = "/whoami", tag = docs::SERVICE, security(("bearer" = [])), params(TeamParameter),
    responses((status = 200, description = "The caller.", body = WhoAmI)))]
pub(super) async fn whoami(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(team): Parameters<TeamParameter>,
) -> Result<Json<WhoAmI>, Problem> {
    let caller = who.caller;
    let team = match team.team.as_deref() {
        None if caller.is_platform_admin() => None,
        named => Some(state.broker.team_for(&caller, named).await?),
    };
    let all = || Grants(vec![Grant { role: Role::PlatformAdmin, tokens: vec![TokenPattern::all()] }]);
    let grants = caller.membership().map_or_else(all, |membership| membership.grants.clone());
    Ok(Json(WhoAmI {
        team: team.filter(|_| !caller.is_platform_admin()).map(|team| team.name),
        role: grants.role().unwrap_or(Role::Viewer),
        tokens: grants.tokens(),
        grants: grants.0.iter().map(ShownGrant::from).collect(),
        name: caller.name().to_owned(),
        recognised_by: caller.recognised_by(),
        expires_at: caller.expires_at(),
    }))
}
