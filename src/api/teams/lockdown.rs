//! `/teams/{team}/lockdown`.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};

use super::super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{OptionalJson, Parameters, PathName},
    lockdown::{self, DryRun, LockDown, Lockdown, WouldHit},
    problem::Problem,
};
use crate::broker::Scope;

/// Lock a team down
///
/// As for one token, for all of the team's, also those registered later; and no session begins. For admins of all its tokens.
#[utoipa::path(post, path = "/teams/{team}/lockdown", tag = docs::TEAMS, security(("bearer" = [])),
    request_body(content = Option<LockDown>, content_type = "application/json"),
    params(("team" = String, Path, description = "The team's name."), DryRun),
    responses((status = 200, description = "A dry run: what would be hit.", body = WouldHit),
              (status = 201, description = "The lockdown.", body = Lockdown)))]
pub(in crate::api) async fn lock_team_down(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Parameters(DryRun { dry_run }): Parameters<DryRun>,
    OptionalJson(asked): OptionalJson<LockDown>,
) -> Result<Response, Problem> {
    let team = state.broker.team_for(&who.caller, Some(team.as_str())).await?;
    lockdown::lock_down(&state, &who, (&team, &Scope::Team), dry_run, asked).await
}

/// Read a team's lockdown
///
/// With what is still to be revoked.
#[utoipa::path(get, path = "/teams/{team}/lockdown", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 200, description = "The lockdown.", body = Lockdown)))]
pub(in crate::api) async fn get_team_lockdown(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
) -> Result<Answer<Lockdown>, Problem> {
    let team = state.broker.team_for(&who.caller, Some(team.as_str())).await?;
    Ok(Answer(state.broker.lockdown(&who.caller, &team, &Scope::Team).await?.into()))
}

/// End a team's lockdown
///
/// Lockdowns of single tokens stay. What a platform admin has locked down, only a platform admin ends.
#[utoipa::path(delete, path = "/teams/{team}/lockdown", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.")),
    responses((status = 204, description = "It has ended.")))]
pub(in crate::api) async fn end_team_lockdown(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
) -> Result<StatusCode, Problem> {
    let team = state.broker.team_for(&who.caller, Some(team.as_str())).await?;
    state.broker.end_lockdown(&who.caller, &team, &Scope::Team, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
