//! `GET /tokens/{name}`.

use axum::{Json as Answer, extract::State};

use super::Token;
use crate::api::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Parameters, PathName, TeamParameter},
    problem::Problem,
};

/// Read a token
///
/// Where it and each of its chains stand. Never a secret.
#[utoipa::path(get, path = "/tokens/{name}", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The token.", body = Token)))]
pub(in crate::api) async fn get_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
) -> Result<Answer<Token>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let view = state.broker.token(&who.caller, &team, &name).await?;
    Ok(Answer(Token::new(view, &team.name, &who.caller)))
}
