//! `/teams`.

pub(super) mod explain;
pub(super) mod keys;
pub(super) mod lockdown;
pub(super) mod trust_rules;
pub(super) mod webhooks;

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, Parameters, PathName},
    page::{Page, PageParameters},
    problem::Problem,
    validation::Validation,
};
use crate::{identity::Action, names::Name, store::TeamRow};

/// A team to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTeam {
    /// Unique: `[a-z0-9][a-z0-9._-]{0,62}`.
    #[schema(value_type = String, example = "payments")]
    name: Name,
    /// For people.
    #[schema(example = "Payments backend, #payments-dev")]
    description: Option<String>,
}

/// A team.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Team {
    #[schema(example = "payments")]
    name: String,
    #[schema(example = "Payments backend, #payments-dev")]
    description: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[schema(example = "platform-key:bootstrap")]
    created_by: String,
}

impl From<TeamRow> for Team {
    fn from(row: TeamRow) -> Self {
        Self { name: row.name, description: row.description, created_at: row.created_at, created_by: row.created_by }
    }
}

/// Make a team
///
/// With a data key of its own, under which everything of the team is sealed.
#[utoipa::path(post, path = "/teams", tag = docs::TEAMS, security(("bearer" = [])), request_body = CreateTeam,
    responses((status = 201, description = "The team.", body = Team,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken` or `key-not-everywhere`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn create_team(
    State(state): State<ApiState>,
    who: Authenticated,
    Json(new): Json<CreateTeam>,
) -> Result<impl IntoResponse, Problem> {
    Validation::default().text("description", new.description.as_deref(), 500).done()?;
    let description = new.description.unwrap_or_default();
    let row = state.broker.create_team(&who.caller, &new.name, &description, &who.actor).await?;
    let location = format!("/teams/{}", row.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(Team::from(row))))
}

/// List teams
///
/// All of them for a platform admin; a team's own admin sees its own.
#[utoipa::path(get, path = "/teams", tag = docs::TEAMS, security(("bearer" = [])), params(PageParameters),
    responses((status = 200, description = "A page of teams.", body = Page<Team>)))]
pub(super) async fn list_teams(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Team>>, Problem> {
    let (after, limit) = page.read()?;
    let teams = state.broker.list_teams(&who.caller, &after, limit).await?;
    Ok(Answer(Page::new(teams.into_iter().map(Team::from).collect(), limit, |team| &team.name)))
}

/// Read a team
#[utoipa::path(get, path = "/teams/{team}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 200, description = "The team.", body = Team)))]
pub(super) async fn get_team(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
) -> Result<Answer<Team>, Problem> {
    Ok(Answer(state.broker.team(&who.caller, &team, Action::ReadTeam).await?.into()))
}

/// Delete a team
///
/// With its keys of both kinds: whatever was sealed for the team, backups included, is noise from then on.
#[utoipa::path(delete, path = "/teams/{team}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.")),
    responses((status = 204, description = "It is gone."),
              (status = 409, description = "`team-in-use`: it still has tokens.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn delete_team(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
) -> Result<StatusCode, Problem> {
    state.broker.delete_team(&who.caller, &team, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
