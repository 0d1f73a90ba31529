//! `POST /tokens/{name}/issue`: an access token of its own for one job.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::TEN_YEARS;
use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{OptionalJson, Parameters, PathName, TeamParameter},
        problem::{Problem, ProblemBody},
        validation::Validation,
    },
    broker::IssueChild,
};

/// What the job asks for; all of it may be absent, and so may the body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct IssueToken {
    /// Seconds, at most the token's `issue_max_expires_in`; absent: an hour.
    #[schema(example = 3600)]
    expires_in: Option<i64>,
    /// Some of the token's `issue_scopes`, or of its own scope where it has none; absent: all of it.
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    /// Within the token's own; absent: the same.
    #[schema(example = "jfrt@*")]
    audience: Option<String>,
    /// For people, at JFrog. Which job it is for stands there anyway.
    #[schema(example = "nightly image scan")]
    description: Option<String>,
    /// Whether a reference token is wanted besides; absent: no.
    #[schema(example = false)]
    include_reference_token: Option<bool>,
}

/// A child token: handed over this once, and kept nowhere. Flat, as a refreshed one.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct IssuedToken {
    #[schema(example = "payments")]
    team: String,
    #[schema(example = "deploy")]
    name: String,
    /// JFrog's access token: the bearer for Artifactory.
    #[schema(example = "eyJ2ZXIiOiIyIiwidHlw…")]
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds left.
    #[schema(example = 3600)]
    expires_in: i64,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    /// JFrog's id of it: `DELETE /tokens/{name}/children/{token_id}` gives it back.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: String,
    /// Where it was asked for.
    #[schema(example = json!(null))]
    reference_token: Option<String>,
    /// JFrog's user.
    #[schema(example = "deployer")]
    username: Option<String>,
}

/// Issue a child token
///
/// An access token of the job's own, which lives as long as it says whatever becomes of the token it was made with: rotations do not
/// touch it. Never wider than the registration allows. With `Accept: text/plain`: the access token alone. The call can be repeated:
/// each answer is another one.
#[utoipa::path(post, path = "/tokens/{name}/issue", tag = docs::TOKENS, security(("bearer" = [])),
    request_body(content = Option<IssueToken>, content_type = "application/json"),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The child token.", content((IssuedToken = "application/json"), (String = "text/plain"))),
              (status = 409, description = "`token-lost`, `locked-down` or `busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 422, description = "`invalid-request`: what is wider than the registration allows is named; `scope-refused`: JFrog does not give it to this user.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 502, description = "`wider-than-asked`: JFrog gave more than was asked; it was revoked.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 503, description = "`jfrog-unavailable`, `refresh-uncertain`, `refresh-pending` or `database-unavailable`, with `Retry-After`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn issue_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    headers: HeaderMap,
    OptionalJson(asked): OptionalJson<IssueToken>,
) -> Result<Response, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    Validation::default()
        .seconds("expires_in", asked.expires_in, 1..=TEN_YEARS)
        .words("scope", asked.scope.as_deref(), 500)
        .words("audience", asked.audience.as_deref(), 255)
        .text("description", asked.description.as_deref(), 500)
        .done()?;
    let asked = IssueChild {
        expires_in: asked.expires_in,
        scope: asked.scope,
        audience: asked.audience,
        description: asked.description,
        include_reference_token: asked.include_reference_token.unwrap_or(false),
    };
    let issued = state.broker.issue(&who.caller, &team, &name, asked, &who.actor).await?;
    let access_token = issued.access_token.expose().to_owned();
    if headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain")) {
        return Ok(access_token.into_response());
    }
    let answer = IssuedToken {
        team: team.name,
        name: name.to_string(),
        access_token,
        token_type: "Bearer",
        expires_in: issued.expires_in,
        expires_at: issued.expires_at,
        scope: issued.scope,
        token_id: issued.token_id,
        reference_token: issued.reference_token.map(|token| token.expose().to_owned()),
        username: issued.username,
    };
    Ok(Answer(answer).into_response())
}
