//! `PATCH /tokens/{name}`.

use axum::{Json as Answer, extract::State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TEN_YEARS, Token};
use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{Json, Parameters, PathName, TeamParameter},
        problem::Problem,
        validation::Validation,
    },
    store::TokenChanges,
};

/// What to change; what is absent stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct UpdateToken {
    /// For people.
    #[schema(example = "pushes images from the main branch")]
    description: Option<String>,
    /// Seconds. Lowering it does not shorten what was promised for tokens handed out already.
    #[schema(example = 7200)]
    reuse_for: Option<i64>,
    /// From the next rotation on.
    #[schema(example = true)]
    include_reference_token: Option<bool>,
    /// Longest life of a child token from now on, seconds.
    #[schema(example = 3600)]
    issue_max_expires_in: Option<i64>,
    /// What a child token may be given from now on; `[]`: the token's own scope.
    #[schema(example = json!(["applied-permissions/groups:readers"]))]
    issue_scopes: Option<Vec<String>>,
}

/// Change a token's settings
#[utoipa::path(patch, path = "/tokens/{name}", tag = docs::TOKENS, security(("bearer" = [])), request_body = UpdateToken,
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The token as it is now.", body = Token)))]
pub(in crate::api) async fn update_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Json(changes): Json<UpdateToken>,
) -> Result<Answer<Token>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    Validation::default()
        .text("description", changes.description.as_deref(), 900)
        .seconds("reuse_for", changes.reuse_for, 0..=TEN_YEARS)
        .seconds("issue_max_expires_in", changes.issue_max_expires_in, 1..=TEN_YEARS)
        .scopes("issue_scopes", changes.issue_scopes.as_deref())
        .done()?;
    let changes = TokenChanges {
        description: changes.description,
        reuse_for: changes.reuse_for.and_then(|seconds| i32::try_from(seconds).ok()),
        include_reference_token: changes.include_reference_token,
        issue_max_expires_in: changes.issue_max_expires_in.and_then(|seconds| i32::try_from(seconds).ok()),
        issue_scopes: changes.issue_scopes,
    };
    let view = state.broker.update_token(&who.caller, &team, &name, &changes, &who.actor).await?;
    Ok(Answer(Token::new(view, &team.name, &who.caller)))
}
