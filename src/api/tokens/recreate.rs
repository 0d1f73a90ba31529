//! `POST /tokens/{name}/recreate`.

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
        problem::{Problem, ProblemBody},
        validation::Validation,
    },
    broker,
    secret::IdentityToken,
};

/// What the new chains are made with; what is absent stays as it was registered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RecreateToken {
    /// A person's identity token from the JFrog UI. Serves for this call and is kept nowhere.
    #[schema(value_type = String, format = Password, example = "eyJ2ZXIiOiIyIiwidHlw…")]
    identity_token: IdentityToken,
    /// Asked of JFrog.
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    /// Asked of JFrog.
    #[schema(example = "*@*")]
    audience: Option<String>,
    /// Asked of JFrog, seconds.
    #[schema(example = 86_400)]
    expires_in: Option<i64>,
}

/// Recreate a token
///
/// New chains under the same name, grants and settings: for a token that is `lost`, or to move it to another user. What was handed
/// out before works for `reuse_for` seconds more.
#[utoipa::path(post, path = "/tokens/{name}/recreate", tag = docs::TOKENS, security(("bearer" = [])), 
    request_body(content = RecreateToken, example = json!({"identity_token": "eyJ2ZXIiOiIyIiwidHlw…"})),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The token as it is now.", body = Token),
              (status = 409, description = "`busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 422, description = "`invalid-request`, `identity-token-rejected`, `not-refreshable` or `scope-refused`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn recreate_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Json(asked): Json<RecreateToken>,
) -> Result<Answer<Token>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    Validation::default()
        .credential("identity_token", asked.identity_token.expose())
        .words("scope", asked.scope.as_deref(), 500)
        .words("audience", asked.audience.as_deref(), 255)
        .seconds("expires_in", asked.expires_in, 0..=TEN_YEARS)
        .done()?;
    let request = broker::RecreateToken {
        identity_token: asked.identity_token,
        scope: asked.scope,
        audience: asked.audience,
        expires_in: asked.expires_in,
    };
    let view = state.broker.recreate(&who.caller, &team, &name, request, &who.actor).await?;
    Ok(Answer(Token::new(view, &team.name, &who.caller)))
}
