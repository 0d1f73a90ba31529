//! `POST /tokens/{name}/refresh`: the main job.

use std::time::Duration;

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{OptionalJson, Parameters, PathName, TeamParameter},
        key::FOREVER,
        problem::{Problem, ProblemBody},
        validation::Validation,
    },
    broker::{Ask, HandedOut, Warning},
};

/// Longest `wait`, seconds.
const LONGEST_WAIT: i64 = 120;

/// What the caller asks of the token; all of it may be absent, and so may the body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RefreshToken {
    /// Seconds since the token was obtained; absent: the token's `reuse_for`. A `ci` caller's smaller one is raised to `reuse_for`;
    /// an admin's is obeyed, and 0 means a rotation begun after this request arrived.
    #[schema(example = 21_600)]
    max_age: Option<i64>,
    /// Seconds the token must still have; absent: 60.
    #[schema(example = 600)]
    min_ttl: Option<i64>,
    /// Seconds to wait for a rotation; absent: 15.
    #[schema(example = 15)]
    wait: Option<i64>,
    /// "JFrog refuses the token you gave me": its `token_id`. If it is the current one, JFrog is asked; if it is dead, another one is
    /// handed out.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    rejected_token_id: Option<String>,
}

/// A token handed out. Flat, so that a webhook-style secret fetcher can use it as is.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RefreshedToken {
    #[schema(example = "payments")]
    team: String,
    #[schema(example = "deploy")]
    name: String,
    /// JFrog's access token: the bearer for Artifactory.
    #[schema(example = "eyJ2ZXIiOiIyIiwidHlw…")]
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds left; `null`: never expires.
    #[schema(example = 64_800)]
    expires_in: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    /// JFrog's id of it.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: Option<String>,
    /// Where the registration asks for one.
    #[schema(example = json!(null))]
    reference_token: Option<String>,
    /// JFrog's user.
    #[schema(example = "deployer")]
    username: Option<String>,
    /// Counts rotations, from 1.
    #[schema(example = 7)]
    generation: i64,
    /// Whether this call waited for a rotation.
    refreshed: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    refreshed_at: Option<OffsetDateTime>,
    /// `max-age-raised`, `short-lived`, `refresh-pending`, `refresh-uncertain`, `jfrog-unavailable`.
    #[schema(value_type = Vec<String>, example = json!([]))]
    warnings: Vec<Warning>,
}

/// Refresh a token
///
/// Hands out the current access token if it is fresh enough; else the older chain is rotated and its new one is handed out. However
/// many ask at once, JFrog sees one refresh, and all get its result. With `Accept: text/plain`: the access token alone.
#[utoipa::path(post, path = "/tokens/{name}/refresh", tag = docs::TOKENS, security(("bearer" = [])),
    request_body(content = Option<RefreshToken>, content_type = "application/json"),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The access token.", content((RefreshedToken = "application/json"), (String = "text/plain"))),
              (status = 409, description = "`token-lost`, `locked-down` or `busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 503, description = "`jfrog-unavailable`, `refresh-uncertain`, `refresh-pending` or `database-unavailable`, with `Retry-After`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn refresh_token(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    headers: HeaderMap,
    OptionalJson(asked): OptionalJson<RefreshToken>,
) -> Result<Response, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    Validation::default()
        .seconds("max_age", asked.max_age, 0..=FOREVER)
        .seconds("min_ttl", asked.min_ttl, 0..=FOREVER)
        .check(
            "rejected_token_id",
            asked.rejected_token_id.as_ref().is_none_or(|id| (1..=255).contains(&id.len())),
            "must be a token_id",
        )
        .seconds("wait", asked.wait, 0..=LONGEST_WAIT)
        .done()?;
    let wait = Duration::from_secs(asked.wait.unwrap_or(15).unsigned_abs());
    let ask =
        Ask { max_age: asked.max_age, min_ttl: asked.min_ttl.unwrap_or(60), wait, rejected_token_id: asked.rejected_token_id };
    let handed = state.broker.refresh(&who.caller, &team, &name, &ask, &who.actor).await?;
    if headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain")) {
        return Ok(handed.access_token.expose().to_owned().into_response());
    }
    Ok(Answer(RefreshedToken::new(team.name, name.to_string(), handed)).into_response())
}

impl RefreshedToken {
    fn new(team: String, name: String, handed: HandedOut) -> Self {
        Self {
            team,
            name,
            access_token: handed.access_token.expose().to_owned(),
            token_type: "Bearer",
            expires_in: handed.expires_in,
            expires_at: handed.expires_at,
            scope: handed.scope,
            token_id: handed.token_id,
            reference_token: handed.reference_token.map(|token| token.expose().to_owned()),
            username: handed.username,
            generation: handed.generation,
            refreshed: handed.refreshed,
            refreshed_at: handed.refreshed_at,
            warnings: handed.warnings,
        }
    }
}
