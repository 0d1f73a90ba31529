//! `POST /tokens/import`.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Settings, Token, location, missing, unknown};
use crate::{
    api::{
        ApiState,
        caller::Authenticated,
        docs,
        extract::{Json, Parameters, TeamParameter},
        problem::{Problem, ProblemBody},
        validation::Validation,
    },
    broker,
    secret::{AccessToken, RefreshToken},
};

/// A pair to be adopted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(try_from = "Settings")]
pub(in crate::api) struct ImportToken {
    /// The pair's access token; must not have expired.
    #[schema(value_type = String, format = Password, example = "eyJ2ZXIiOiIyIiwidHlw…")]
    access_token: AccessToken,
    /// The pair's refresh token; is spent at once.
    #[schema(value_type = String, format = Password, example = "7c9e6679-7425-40de-944b-e07fc1f90ae7")]
    refresh_token: RefreshToken,
    #[serde(flatten)]
    settings: Settings,
}

impl TryFrom<Settings> for ImportToken {
    type Error = String;

    fn try_from(mut settings: Settings) -> Result<Self, String> {
        unknown("identity_token", settings.identity_token.is_some())?;
        let access_token = settings.access_token.take().ok_or_else(|| missing("access_token"))?;
        let refresh_token = settings.refresh_token.take().ok_or_else(|| missing("refresh_token"))?;
        Ok(Self { access_token, refresh_token, settings })
    }
}

/// Adopt an existing pair
///
/// Makes the second chain with the pasted access token and rotates the pasted pair at once, so that what was pasted is dead.
#[utoipa::path(post, path = "/tokens/import", tag = docs::TOKENS, security(("bearer" = [])), params(TeamParameter),
    request_body(content = ImportToken, example = json!({"name": "publish", "access_token": "eyJ2ZXIiOiIyIiwidHlw…", "refresh_token": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "description": "pushes images from the main branch"})),
    responses((status = 201, description = "The token is registered.", body = Token,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken` or `busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 422, description = "`invalid-request`, `identity-token-rejected`, `not-refreshable` or `scope-refused`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn import_token(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Json(new): Json<ImportToken>,
) -> Result<impl IntoResponse, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    new.settings
        .check(&mut Validation::default())
        .credential("access_token", new.access_token.expose())
        .credential("refresh_token", new.refresh_token.expose())
        .done()?;
    let request = broker::ImportToken {
        settings: new.settings.accepted(),
        access_token: new.access_token,
        refresh_token: new.refresh_token,
    };
    let view = state.broker.import(&who.caller, &team, request, &who.actor).await?;
    let location = location(&view.name, &team.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(Token::new(view, &team.name, &who.caller))))
}
