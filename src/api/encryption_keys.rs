//! `/encryption-keys`: what needs which key, and changing them. For platform admins.

mod shown;

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use shown::DataKey;
pub use shown::EncryptionKeys;

use super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, OptionalJson, Parameters},
    page::{Page, PageParameters},
    problem::{FieldError, Problem},
};
use crate::names::Name;

/// Whose data keys.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateDataKeys {
    /// Absent: every team's.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "payments")]
    team: Option<Name>,
}

/// By which master key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewrapDataKeys {
    /// The one that is meant, against surprises: it must be the first one of the replica that is asked. Absent: whichever that is.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "k2")]
    master_key: Option<Name>,
}

/// Which master key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetireMasterKey {
    /// Its id.
    #[schema(value_type = String, example = "k1")]
    id: Name,
}

/// Which journal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForgetJournal {
    /// Its id, as it is listed.
    #[schema(example = "6f0f7a3e-6a4c-4d2e-9a55-0d9a1b2c3d4e")]
    journal: Uuid,
}

/// Of which team.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfTeam {
    /// The team's name; absent: all.
    #[param(required = false)]
    team: Option<String>,
}

/// Show the encryption keys
///
/// Each master key with what needs it, what each replica reported, and how far a rotation or a re-wrapping is. A master key with
/// `used: false` can be retired.
#[utoipa::path(get, path = "/encryption-keys", tag = docs::KEYS, security(("bearer" = [])),
    responses((status = 200, description = "The keys; never one itself.", body = EncryptionKeys)))]
pub(super) async fn get_encryption_keys(
    State(state): State<ApiState>,
    who: Authenticated,
) -> Result<Answer<EncryptionKeys>, Problem> {
    Ok(Answer(state.broker.key_status(&who.caller).await?.into()))
}

/// List data keys
///
/// By id. An old one with `used: false` is needed by no row, and is deleted some minutes later.
#[utoipa::path(get, path = "/encryption-keys/data-keys", tag = docs::KEYS, security(("bearer" = [])), params(OfTeam, PageParameters),
    responses((status = 200, description = "A page of data keys; never one itself.", body = Page<DataKey>)))]
pub(super) async fn list_data_keys(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(of): Parameters<OfTeam>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<DataKey>>, Problem> {
    let (after, limit) = page.read()?;
    let not_ours =
        || Problem::invalid(vec![FieldError { field: "after".to_owned(), message: "is not a cursor of this list".to_owned() }]);
    let after = if after.is_empty() { Uuid::nil() } else { after.parse().map_err(|_| not_ours())? };
    let size = i32::try_from(limit).unwrap_or(i32::MAX);
    let keys = state.broker.list_data_keys(&who.caller, of.team.as_deref(), after, size).await?;
    Ok(Answer(Page::of(keys, limit, |key| key.id.to_string(), DataKey::from)))
}

/// Rotate data keys
///
/// A new data key for the team, or for every team. It seals from now on; what the old one sealed is sealed anew in the background,
/// then the old one is deleted. Watch `rotation`.
#[utoipa::path(post, path = "/encryption-keys/rotate", tag = docs::KEYS, security(("bearer" = [])),
    request_body(content = Option<RotateDataKeys>, content_type = "application/json"),
    responses((status = 202, description = "It is begun.", body = EncryptionKeys),
              (status = 409, description = "`key-not-everywhere`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn rotate_data_keys(
    State(state): State<ApiState>,
    who: Authenticated,
    OptionalJson(asked): OptionalJson<RotateDataKeys>,
) -> Result<(StatusCode, Answer<EncryptionKeys>), Problem> {
    let status = state.broker.rotate_data_keys(&who.caller, asked.team.as_ref(), &who.actor).await?;
    Ok((StatusCode::ACCEPTED, Answer(status.into())))
}

/// Wrap data keys by the first master key
///
/// Every data key that another master key wraps, in the background: after a new master key was put first, of the same provider or of
/// another. Watch `rewrap`.
#[utoipa::path(post, path = "/encryption-keys/rewrap", tag = docs::KEYS, security(("bearer" = [])),
    request_body(content = Option<RewrapDataKeys>, content_type = "application/json"),
    responses((status = 202, description = "It is begun.", body = EncryptionKeys),
              (status = 409, description = "`key-not-everywhere` or `key-not-first`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn rewrap_data_keys(
    State(state): State<ApiState>,
    who: Authenticated,
    OptionalJson(asked): OptionalJson<RewrapDataKeys>,
) -> Result<(StatusCode, Answer<EncryptionKeys>), Problem> {
    let status = state.broker.rewrap_data_keys(&who.caller, asked.master_key.as_ref(), &who.actor).await?;
    Ok((StatusCode::ACCEPTED, Answer(status.into())))
}

/// Retire a master key
///
/// Only one that nothing needs, in the database and in every replica's journal; else the answer says what does. Afterwards nothing is
/// ever wrapped by it again, and it can be taken out of the list.
#[utoipa::path(post, path = "/encryption-keys/retire", tag = docs::KEYS, security(("bearer" = [])), request_body = RetireMasterKey,
    responses((status = 200, description = "It is retired.", body = EncryptionKeys),
              (status = 409, description = "`key-in-use`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn retire_master_key(
    State(state): State<ApiState>,
    who: Authenticated,
    Json(asked): Json<RetireMasterKey>,
) -> Result<Answer<EncryptionKeys>, Problem> {
    Ok(Answer(state.broker.retire_master_key(&who.caller, &asked.id, &who.actor).await?.into()))
}

/// Forget a journal
///
/// Of a replica that does not come back: what it reported last holds up no retirement any more. Pairs in it that Postgres never had
/// are lost once their master key is destroyed.
#[utoipa::path(post, path = "/encryption-keys/forget-journal", tag = docs::KEYS, security(("bearer" = [])), request_body = ForgetJournal,
    responses((status = 200, description = "It is forgotten.", body = EncryptionKeys),
              (status = 409, description = "`journal-in-use`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn forget_journal(
    State(state): State<ApiState>,
    who: Authenticated,
    Json(asked): Json<ForgetJournal>,
) -> Result<Answer<EncryptionKeys>, Problem> {
    Ok(Answer(state.broker.forget_journal(&who.caller, asked.journal, &who.actor).await?.into()))
}
