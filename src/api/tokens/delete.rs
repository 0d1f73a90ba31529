//! `DELETE /tokens/{name}`.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Parameters, PathName, TeamParameter},
    problem::{Problem, ProblemBody},
};

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct DeleteParameters {
    /// Forget the token even if JFrog cannot be told; the audit says so.
    #[param(required = false, example = false)]
    force: Option<bool>,
}

/// Delete a token
///
/// Revokes both chains at JFrog, then forgets the token. While JFrog cannot be reached the token stays, as `revoked`, and the call
/// is to be repeated.
#[utoipa::path(delete, path = "/tokens/{name}", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name."), TeamParameter, DeleteParameters),
    responses((status = 204, description = "It is revoked and forgotten."),
              (status = 409, description = "`busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn delete_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Parameters(DeleteParameters { force }): Parameters<DeleteParameters>,
) -> Result<StatusCode, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    state.broker.delete(&who.caller, &team, &name, force.unwrap_or(false), &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
