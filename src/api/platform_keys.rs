//! `/platform/keys`: keys of platform admins.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, Parameters, PathName},
    key::{CreatePlatformKey, Key, NewKey, check_lifetime},
    page::{Page, PageParameters},
    problem::Problem,
    validation::Validation,
};

/// Make a platform key
///
/// A key of a platform admin: everything, everywhere. The key itself is in this answer and never again.
#[utoipa::path(post, path = "/platform/keys", tag = docs::PLATFORM, security(("bearer" = [])), request_body = CreatePlatformKey,
    responses((status = 201, description = "The key, shown this once.", body = NewKey,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn create_platform_key(
    State(state): State<ApiState>,
    who: Authenticated,
    Json(new): Json<CreatePlatformKey>,
) -> Result<impl IntoResponse, Problem> {
    check_lifetime(&mut Validation::default(), new.expires_in).done()?;
    let (key, row) = state.broker.create_platform_key(&who.caller, new.name, new.expires_in, &who.actor).await?;
    let location = format!("/platform/keys/{}", row.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(NewKey { key, shown: row.into() })))
}

/// List platform keys
///
/// Without the keys themselves.
#[utoipa::path(get, path = "/platform/keys", tag = docs::PLATFORM, security(("bearer" = [])), params(PageParameters),
    responses((status = 200, description = "A page of keys.", body = Page<Key>)))]
pub(super) async fn list_platform_keys(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Key>>, Problem> {
    let (after, limit) = page.read()?;
    let keys = state.broker.list_keys(&who.caller, None, &after, limit).await?;
    Ok(Answer(Page::new(keys.into_iter().map(Key::from).collect(), limit, |key| &key.name)))
}

/// Delete a platform key
///
/// Felt within a second on every replica.
#[utoipa::path(delete, path = "/platform/keys/{name}", tag = docs::PLATFORM, security(("bearer" = [])),
    params(("name" = String, Path, description = "The key's name.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete_platform_key(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(name): PathName,
) -> Result<StatusCode, Problem> {
    state.broker.delete_key(&who.caller, None, &name, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
