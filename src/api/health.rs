//! Health, on both addresses.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiState, docs, problem::Problem};
use crate::{broker::BrokerError, crypto::MasterKeyError};

/// A good answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Is the process alive
///
/// 200 while the process can answer; asks nothing else.
#[utoipa::path(get, path = "/health/live", tag = docs::SERVICE, security(()),
    responses((status = 200, description = "The process answers.", body = Health)))]
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Is the service ready
///
/// 200 when Postgres answers and takes writes, the master keys open their canaries, none that is needed is missing, the first was not
/// retired, and the database is no copy; else 503 naming the failing part.
#[utoipa::path(get, path = "/health/ready", tag = docs::SERVICE, security(()),
    responses((status = 200, description = "Every part works.", body = Health),
              (status = 503, description = "`database-unavailable`, `key-service-unavailable`, `master-key-unusable` or `frozen`.", body = inline(super::problem::ProblemBody<'static>), content_type = "application/problem+json")))]
pub(super) async fn ready(State(state): State<ApiState>) -> Result<Json<Health>, Problem> {
    match state.broker.ready().await {
        Ok(()) => Ok(Json(Health { status: "ok" })),
        Err(error @ BrokerError::MasterKey(MasterKeyError::Unavailable(..))) => Err(error.into()),
        Err(
            error @ BrokerError::MasterKey(
                MasterKeyError::Missing(_) | MasterKeyError::Retired(_) | MasterKeyError::Damaged { .. },
            ),
        ) => Err(unusable(format!("The {error}.")).because(error)),
        Err(error @ BrokerError::MasterKey(_)) => Err(master_key_unusable().because(error)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn master_key_unusable() -> Problem {
    unusable("A master key is not the one that was used under its id.")
}

fn unusable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "master-key-unusable", "Master key unusable", detail)
}
