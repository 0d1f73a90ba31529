//! Health, on both addresses.

use std::time::{Duration, Instant};

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::{ApiState, docs, problem::Problem};
use crate::{
    broker::{Broker, BrokerError},
    crypto::MasterKeyError,
};

/// A look at every part is two statements or more: so many a second at most.
const SAID_AGAIN: Duration = Duration::from_millis(100);

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
    state.readiness.of(&state.broker).await.map(|()| Json(Health { status: "ok" }))
}

/// What the last look found. Whoever asks meanwhile waits for the same one: anybody may ask, as often as they like.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), Problem>)>>);

impl Readiness {
    async fn of(&self, broker: &Broker) -> Result<(), Problem> {
        let mut last = self.0.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(at, _)| at.elapsed() < SAID_AGAIN) {
            return found.clone();
        }
        let found = broker.ready().await.map_err(|error| match error {
            BrokerError::MasterKey(MasterKeyError::Unavailable(..)) => error.into(),
            BrokerError::MasterKey(MasterKeyError::Missing(_) | MasterKeyError::Retired(_) | MasterKeyError::Damaged { .. }) => {
                unusable(format!("The {error}.")).because(error)
            }
            BrokerError::MasterKey(_) => master_key_unusable().because(error),
            error => error.into(),
        });
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

pub(super) fn master_key_unusable() -> Problem {
    unusable("A master key is not the one that was used under its id.")
}

fn unusable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "master-key-unusable", "Master key unusable", detail)
}
