//! `POST /tokens`.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, StatusCode, header},
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
    secret::IdentityToken,
};

/// A token to be registered through JFrog's create flow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(try_from = "Settings")]
pub(in crate::api) struct CreateToken {
    /// A person's identity token from the JFrog UI. Serves for this registration and is destroyed.
    #[schema(value_type = String, format = Password, example = "eyJ2ZXIiOiIyIiwidHlw…")]
    identity_token: IdentityToken,
    #[serde(flatten)]
    settings: Settings,
}

impl TryFrom<Settings> for CreateToken {
    type Error = String;

    fn try_from(mut settings: Settings) -> Result<Self, String> {
        unknown("access_token", settings.access_token.is_some())?;
        unknown("refresh_token", settings.refresh_token.is_some())?;
        let identity_token = settings.identity_token.take().ok_or_else(|| missing("identity_token"))?;
        Ok(Self { identity_token, settings })
    }
}

/// Register a token
///
/// Makes two independent chains at JFrog with the identity token, which is then destroyed. Repeated with the same
/// `Idempotency-Key`: the same 201, or the registration resumed.
#[utoipa::path(post, path = "/tokens", tag = docs::TOKENS, security(("bearer" = [])), 
    request_body(content = CreateToken, example = json!({"name": "publish", "identity_token": "eyJ2ZXIiOiIyIiwidHlw…", "description": "pushes images from the main branch"})),
    params(TeamParameter, ("Idempotency-Key" = Option<String>, Header, description = "Any text of yours, a new one for each registration: makes repeating the call safe.")),
    responses((status = 201, description = "The token is registered.", body = Token,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken` or `busy`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json"),
              (status = 422, description = "`invalid-request`, `identity-token-rejected`, `not-refreshable` or `scope-refused`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn create_token(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    headers: HeaderMap,
    Json(new): Json<CreateToken>,
) -> Result<impl IntoResponse, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default().to_owned());
    let mut checks = Validation::default();
    checks.check(
        "Idempotency-Key",
        key.as_ref().is_none_or(|key| (1..=255).contains(&key.len())),
        "must be 1 to 255 ASCII characters",
    );
    new.settings.check(&mut checks).credential("identity_token", new.identity_token.expose()).done()?;
    let request =
        broker::CreateToken { settings: new.settings.accepted(), identity_token: new.identity_token, idempotency_key: key };
    let view = state.broker.create(&who.caller, &team, request, &who.actor).await?;
    let location = location(&view.name, &team.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(Token::new(view, &team.name, &who.caller))))
}
