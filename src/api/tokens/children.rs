//! `/tokens/{name}/children`: what was issued.

use axum::{
    Json as Answer,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{Parameters, PathName, TeamParameter},
        page::{Page, PageParameters},
        problem::{FieldError, Problem},
    },
    identity::{Caller, Role},
    names::Name,
    store::ChildRow,
};

/// A child token as it is kept: never its value.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Child {
    /// JFrog's id; `null`: its answer was lost, it is looked for.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: Option<String>,
    /// `issuing`, `live`, `revoking` (JFrog is being told), `revoked`, `not-revocable` (JFrog does not: it works until it expires).
    #[schema(example = "live")]
    status: &'static str,
    /// First 16 hex digits of the access token's SHA-256.
    #[schema(example = "9f86d081884c7d65")]
    fingerprint: Option<String>,
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    issued_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Who was issued it, as the audit writes it.
    #[schema(example = "key:payments/ci")]
    issued_to: String,
    /// How that was recognised: of a CI identity the claims that tell which job it was.
    #[schema(value_type = Object)]
    recognised_by: serde_json::Value,
    /// `x-request-id` of the answer that held it.
    #[schema(example = "0198c0de-0000-7000-8000-000000000000")]
    request_id: Option<String>,
    /// Why JFrog did not revoke it yet. May quote JFrog; shown to admins only.
    #[schema(example = json!(null))]
    last_error: Option<String>,
}

impl Child {
    /// What `caller` may see of a child of this token.
    fn new(row: ChildRow, token: &Name, caller: &Caller) -> Self {
        let admin = caller.role_for(token.as_str()) >= Some(Role::Admin);
        Self {
            token_id: row.jfrog_token_id,
            status: row.state.as_str(),
            fingerprint: row.fingerprint,
            scope: row.scope,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            issued_to: row.actor,
            recognised_by: row.recognised_by,
            request_id: row.request_id,
            last_error: row.last_error.filter(|_| admin),
        }
    }
}

/// List child tokens
///
/// The newest first, until a day after they expired. An admin sees all of them, a job those that its own credential was issued.
#[utoipa::path(get, path = "/tokens/{name}/children", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter, PageParameters),
    responses((status = 200, description = "A page of child tokens.", body = Page<Child>)))]
pub(in crate::api) async fn list_children(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Child>>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let (after, limit) = page.read()?;
    let bad =
        || Problem::invalid(vec![FieldError { field: "after".to_owned(), message: "is not a cursor of this list".to_owned() }]);
    let before = if after.is_empty() { None } else { Some(after.parse::<Uuid>().map_err(|_| bad())?) };
    let rows = state.broker.list_children(&who.caller, &team, &name, before, limit).await?;
    let shown = |row| Child::new(row, &name, &who.caller);
    Ok(Answer(Page::of(rows, limit, |row| row.id.to_string(), shown)))
}

/// Revoke a child token
///
/// JFrog is told in the background, as often as it takes: `status` says how far that is. An admin ends any, a job what its own
/// credential was issued. Can be repeated.
#[utoipa::path(delete, path = "/tokens/{name}/children/{token_id}", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name."), ("token_id" = String, Path, description = "JFrog's id of the child token."),
           TeamParameter),
    responses((status = 202, description = "It is being revoked, or was.", body = Child)))]
pub(in crate::api) async fn revoke_child(
    State(state): State<ApiState>,
    who: Authenticated,
    Path((name, token_id)): Path<(String, String)>,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
) -> Result<(StatusCode, Answer<Child>), Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let name: Name = name.parse().map_err(Problem::not_found)?;
    let row = state.broker.give_up_child(&who.caller, &team, &name, &token_id, &who.actor).await?;
    Ok((StatusCode::ACCEPTED, Answer(Child::new(row, &name, &who.caller))))
}
