//! `POST /tokens/{name}/revoke-handed-out`.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Token;
use crate::api::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Parameters, PathName, TeamParameter},
    problem::{Problem, ProblemBody},
};

/// What became of what was handed out before, by JFrog's token ids.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RevokedHandedOut {
    /// The token as it is now.
    token: Token,
    /// They do not work any more.
    #[schema(example = json!(["5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11"]))]
    revoked: Vec<String>,
    /// JFrog does not revoke them: they work until they expire.
    not_revocable: Vec<String>,
    /// JFrog could not be told: repeat the call.
    unreached: Vec<String>,
    /// `running-jobs-break`: whoever holds one of `revoked` must ask again.
    #[schema(example = json!(["running-jobs-break"]))]
    warnings: Vec<&'static str>,
}

/// Revoke what was handed out
///
/// After a leak: both chains are made anew, then every access token that was handed out before is revoked at JFrog. **This breaks
/// running jobs**, `reuse_for` notwithstanding: they must ask again. Child tokens are revoked too, in the background.
#[utoipa::path(post, path = "/tokens/{name}/revoke-handed-out", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "What was revoked, and what could not be.", body = RevokedHandedOut),
              (status = 409, description = "`token-lost` or `busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 503, description = "`jfrog-unavailable` or `database-unavailable`, with `Retry-After`: repeat the call.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn revoke_handed_out(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
) -> Result<Answer<RevokedHandedOut>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let (view, done) = state.broker.revoke_handed_out(&who.caller, &team, &name, &who.actor).await?;
    Ok(Answer(RevokedHandedOut {
        token: Token::new(view, &team.name, &who.caller),
        revoked: done.revoked,
        not_revocable: done.not_revocable,
        unreached: done.unreached,
        warnings: vec!["running-jobs-break"],
    }))
}
