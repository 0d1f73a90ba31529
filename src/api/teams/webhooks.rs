//! `/teams/{team}/webhooks`.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, Parameters, PathName, PathNames},
    page::{Page, PageParameters},
    problem::{Problem, ProblemBody},
    validation::Validation,
};
use crate::{broker::WEBHOOK_EVENTS, names::Name, store::WebhookRow};

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CreateWebhook {
    /// Unique in its team.
    #[schema(value_type = String, example = "on-call")]
    name: Name,
    /// Where to post to: at a server that the operator allows (`TOKEN_BROKER_WEBHOOK_HOSTS`).
    #[schema(example = "https://hooks.acme.internal/token-broker")]
    url: String,
    /// `token.uncertain`, `token.healed`, `token.lost`, `token.deadline`, `token.locked-down`, `team.locked-down`; absent: all.
    #[schema(example = json!(["token.lost", "token.deadline"]))]
    events: Option<Vec<String>>,
}

/// A webhook, without its URL's path and without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Webhook {
    #[schema(example = "on-call")]
    name: String,
    /// Scheme, host and port of its URL.
    #[schema(example = "https://hooks.acme.internal")]
    origin: String,
    /// What it is told.
    #[schema(example = json!(["token.lost", "token.deadline"]))]
    events: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// By whom.
    #[schema(example = "key:payments/admin")]
    created_by: String,
    /// When it last took a notice; `null`: not yet.
    #[serde(with = "time::serde::rfc3339::option")]
    told_at: Option<OffsetDateTime>,
    /// Notices that it has not taken yet.
    #[schema(example = 0)]
    waiting: i64,
    /// Why it did not take the last one; `null`: it did.
    last_error: Option<WebhookError>,
}

/// Why a webhook did not take a notice.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct WebhookError {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    #[schema(example = "it answered 503")]
    detail: String,
}

/// A new webhook: its secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct NewWebhook {
    /// Signs what is sent, as Standard Webhooks 1.0 says: `whsec_` and the base64 of the key.
    #[schema(example = "whsec_…")]
    secret: String,
    #[serde(flatten)]
    shown: Webhook,
}

impl From<WebhookRow> for Webhook {
    fn from(row: WebhookRow) -> Self {
        Self {
            name: row.name,
            origin: row.origin,
            events: row.events,
            created_at: row.created_at,
            created_by: row.created_by,
            told_at: row.told_at,
            waiting: row.waiting,
            last_error: row.last_error_at.zip(row.last_error).map(|(at, detail)| WebhookError { at, detail }),
        }
    }
}

/// Make a webhook
///
/// A server of the team that is told when a token needs attention, or no more: `POST` of `{type, timestamp, data: {team, token, …}}`,
/// signed as Standard Webhooks 1.0 says (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`), repeated for a day until it
/// answers 2xx. It may come twice, and in another order: `webhook-id` stays the same. It never has a secret in it. For admins of all
/// tokens of the team.
#[utoipa::path(post, path = "/teams/{team}/webhooks", tag = docs::TEAMS, security(("bearer" = [])), request_body = CreateWebhook,
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 201, description = "The webhook, with its secret shown this once.", body = NewWebhook,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn create_webhook(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Json(new): Json<CreateWebhook>,
) -> Result<impl IntoResponse, Problem> {
    Validation::default().text("url", Some(&new.url), 2_000).done()?;
    let events = new.events.unwrap_or_else(|| WEBHOOK_EVENTS.map(str::to_owned).to_vec());
    let (secret, row) = state.broker.create_webhook(&who.caller, &team, (new.name, new.url, events), &who.actor).await?;
    let location = format!("/teams/{team}/webhooks/{}", row.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(NewWebhook { secret, shown: row.into() })))
}

/// List a team's webhooks
///
/// With what each has not taken yet, and why.
#[utoipa::path(get, path = "/teams/{team}/webhooks", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.", example = "demo"), PageParameters),
    responses((status = 200, description = "A page of webhooks.", body = Page<Webhook>)))]
pub(in crate::api) async fn list_webhooks(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Webhook>>, Problem> {
    let (after, limit) = page.read()?;
    let rows = state.broker.list_webhooks(&who.caller, &team, &after, limit).await?;
    Ok(Answer(Page::new(rows.into_iter().map(Webhook::from).collect(), limit, |webhook| &webhook.name)))
}

/// Read a webhook
#[utoipa::path(get, path = "/teams/{team}/webhooks/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The webhook's name.")),
    responses((status = 200, description = "The webhook.", body = Webhook)))]
pub(in crate::api) async fn get_webhook(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<Answer<Webhook>, Problem> {
    Ok(Answer(state.broker.webhook(&who.caller, &team, &name).await?.into()))
}

/// Delete a webhook
///
/// With what it was still to be told.
#[utoipa::path(delete, path = "/teams/{team}/webhooks/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The webhook's name.")),
    responses((status = 204, description = "It is gone.")))]
pub(in crate::api) async fn delete_webhook(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<StatusCode, Problem> {
    state.broker.delete_webhook(&who.caller, &team, &name, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Test a webhook
///
/// It is sent a `webhook.test` in the background: `GET` shows whether it took it.
#[utoipa::path(post, path = "/teams/{team}/webhooks/{name}/test", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The webhook's name.")),
    responses((status = 202, description = "It is being sent. The webhook as it is meanwhile.", body = Webhook)))]
pub(in crate::api) async fn test_webhook(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<(StatusCode, Answer<Webhook>), Problem> {
    let row = state.broker.test_webhook(&who.caller, &team, &name, &who.actor).await?;
    Ok((StatusCode::ACCEPTED, Answer(row.into())))
}
