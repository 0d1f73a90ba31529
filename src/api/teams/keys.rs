//! `/teams/{team}/keys`.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, Parameters, PathName, PathNames},
    key::{Key, NewKey, check_lifetime},
    page::{Page, PageParameters},
    problem::{Problem, ProblemBody},
    validation::Validation,
};
use crate::{
    broker,
    identity::Role,
    names::{Name, TokenPattern},
};

/// An API key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CreateKey {
    /// Unique in its team.
    #[schema(value_type = String, example = "nightly")]
    name: Name,
    /// `ci`, `viewer` or `admin`.
    #[schema(value_type = String, pattern = "^(ci|viewer|admin)$", example = "ci")]
    role: Role,
    /// Token names and `*` globs; absent: all of the team.
    #[schema(value_type = Option<Vec<String>>, example = json!(["deploy", "ci-*"]))]
    tokens: Option<Vec<TokenPattern>>,
    /// Seconds until it expires; absent: never.
    #[schema(example = 7_776_000)]
    expires_in: Option<i64>,
}

/// Make an API key
///
/// The key itself is in this answer and never again. It cannot have more than its creator has.
#[utoipa::path(post, path = "/teams/{team}/keys", tag = docs::TEAMS, security(("bearer" = [])), request_body = CreateKey,
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 201, description = "The key, shown this once.", body = NewKey,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn create_key(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Json(new): Json<CreateKey>,
) -> Result<impl IntoResponse, Problem> {
    let tokens = new.tokens.unwrap_or_else(|| vec![TokenPattern::all()]);
    let mut checks = Validation::default();
    checks.check(
        "role",
        new.role != Role::PlatformAdmin,
        "must be ci, viewer or admin: platform-admin is not granted under a team",
    );
    checks.check("tokens", (1..=50).contains(&tokens.len()), "must have 1 to 50 names or patterns");
    check_lifetime(&mut checks, new.expires_in).done()?;
    let new = broker::NewKey { name: new.name, role: new.role, tokens, expires_in: new.expires_in };
    let (key, row) = state.broker.create_key(&who.caller, &team, new, &who.actor).await?;
    let location = format!("/teams/{team}/keys/{}", row.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(NewKey { key, shown: row.into() })))
}

/// List a team's API keys
///
/// Without the keys themselves.
#[utoipa::path(get, path = "/teams/{team}/keys", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.", example = "demo"), PageParameters),
    responses((status = 200, description = "A page of keys.", body = Page<Key>)))]
pub(in crate::api) async fn list_keys(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Key>>, Problem> {
    let (after, limit) = page.read()?;
    let keys = state.broker.list_keys(&who.caller, Some(&team), &after, limit).await?;
    Ok(Answer(Page::new(keys.into_iter().map(Key::from).collect(), limit, |key| &key.name)))
}

/// Delete an API key
///
/// Felt within a second on every replica.
#[utoipa::path(delete, path = "/teams/{team}/keys/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The key's name.")),
    responses((status = 204, description = "It is gone.")))]
pub(in crate::api) async fn delete_key(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<StatusCode, Problem> {
    state.broker.delete_key(&who.caller, Some(&team), &name, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
