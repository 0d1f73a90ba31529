//! `/tokens/{name}/lockdown`.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};

use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{OptionalJson, Parameters, PathName, TeamParameter},
        lockdown::{self, DryRun, LockDown, Lockdown, WouldHit},
        problem::Problem,
    },
    broker::Scope,
};

/// Lock a token down
///
/// From now on nothing of it is handed out to anybody, whatever their grants say (409 `locked-down`), and its child tokens are revoked
/// in the background. With `renew` both chains are made anew too, and whatever was handed out before is revoked. Keys, rules and
/// sessions stay: ending the lockdown gives everybody back what they had. Can be repeated.
#[utoipa::path(post, path = "/tokens/{name}/lockdown", tag = docs::TOKENS, security(("bearer" = [])),
    request_body(content = Option<LockDown>, content_type = "application/json"),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter, DryRun),
    responses((status = 200, description = "A dry run: what would be hit.", body = WouldHit),
              (status = 201, description = "The lockdown.", body = Lockdown)))]
pub(in crate::api) async fn lock_down(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Parameters(DryRun { dry_run }): Parameters<DryRun>,
    OptionalJson(asked): OptionalJson<LockDown>,
) -> Result<Response, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    lockdown::lock_down(&state, &who, (&team, &Scope::Token(name)), dry_run, asked).await
}

/// Read a token's lockdown
///
/// With what is still to be revoked. 404: this very token is not locked down; its team may be.
#[utoipa::path(get, path = "/tokens/{name}/lockdown", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name.", example = "deploy"), TeamParameter),
    responses((status = 200, description = "The lockdown.", body = Lockdown)))]
pub(in crate::api) async fn get_lockdown(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
) -> Result<Answer<Lockdown>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    Ok(Answer(state.broker.lockdown(&who.caller, &team, &Scope::Token(name)).await?.into()))
}

/// End a token's lockdown
///
/// What a platform admin has locked down, only a platform admin ends.
#[utoipa::path(delete, path = "/tokens/{name}/lockdown", tag = docs::TOKENS, security(("bearer" = [])),
    params(("name" = String, Path, description = "The token's name."), TeamParameter),
    responses((status = 204, description = "It is handed out again, unless its team is locked down.")))]
pub(in crate::api) async fn end_lockdown(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
) -> Result<StatusCode, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    state.broker.end_lockdown(&who.caller, &team, &Scope::Token(name), &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
