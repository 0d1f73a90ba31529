//! `/sessions`: for jobs that outlive their own token.

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{OptionalJson, Parameters, TeamParameter},
    problem::Problem,
    whoami::ShownGrant,
};
use crate::{
    identity::{Grants, Role},
    names::TokenPattern,
};

/// Nothing is asked for: a session gives what the identity has.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSession {}

/// A session: shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// The credential itself: `tbs_…`. Sent as `Authorization: Bearer`, like the identity it stands for.
    #[schema(example = "tbs_…")]
    session: String,
    /// Seconds.
    #[schema(example = 21_600)]
    expires_in: i32,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    #[schema(example = "payments")]
    team: String,
    /// The strongest of `grants`.
    #[schema(value_type = String, example = "ci")]
    role: Role,
    /// Token names and globs.
    #[schema(value_type = Vec<String>, example = json!(["deploy-*"]))]
    tokens: Vec<TokenPattern>,
    /// Role by role.
    grants: Vec<ShownGrant>,
}

/// Begin a session
///
/// For a CI identity alone: turns it into a credential for a job that outlives its own token, with what the trust rules give that
/// let it in, for the shortest `session_max` of these. It ends sooner when one of the rules is changed or deleted.
#[utoipa::path(post, path = "/sessions", tag = docs::SERVICE, security(("bearer" = [])), params(TeamParameter),
    request_body(content = Option<CreateSession>, content_type = "application/json"),
    responses((status = 201, description = "The session, shown this once.", body = Session),
              (status = 409, description = "`locked-down`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn create_session(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(team): Parameters<TeamParameter>,
    OptionalJson(CreateSession {}): OptionalJson<CreateSession>,
) -> Result<(StatusCode, Answer<Session>), Problem> {
    let team = state.broker.team_for(&who.caller, team.team.as_deref()).await?;
    let begun = state.broker.begin_session(&who.caller, &team, &who.actor).await?;
    let grants = Grants(begun.grants);
    let session = Session {
        session: begun.credential,
        expires_in: begun.expires_in,
        expires_at: begun.expires_at,
        team: team.name,
        role: grants.role().unwrap_or(Role::Viewer),
        tokens: grants.tokens(),
        grants: grants.0.iter().map(ShownGrant::from).collect(),
    };
    Ok((StatusCode::CREATED, Answer(session)))
}

/// `?children=`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EndSession {
    /// `true`: the child tokens that this session was issued are revoked with it.
    #[serde(default)]
    #[param(required = false)]
    children: bool,
}

/// End the session
///
/// The one that is the bearer of this request.
#[utoipa::path(delete, path = "/sessions/current", tag = docs::SERVICE, security(("bearer" = [])), params(EndSession),
    responses((status = 204, description = "It has ended.")))]
pub(super) async fn end_session(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(EndSession { children }): Parameters<EndSession>,
) -> Result<StatusCode, Problem> {
    state.broker.end_session(&who.caller, children, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
