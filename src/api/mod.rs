//! The broker over HTTP: folder = URL. Handlers translate, they don't decide. The only place with status codes.

mod caller;
mod docs;
mod examples;
mod extract;
mod health;
mod key;
mod listen;
mod metrics;
mod page;
mod platform_keys;
mod problem;
mod request;
mod teams;
mod tokens;
mod validation;
mod whoami;

use std::sync::Arc;

use axum::{Router, middleware};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use tokio::sync::Semaphore;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use docs::openapi_json;
pub use listen::Listeners;
pub use metrics::Metrics;

use crate::broker::Broker;

/// Requests under way at once; a waiting caller is one.
const CONCURRENCY: usize = 10_000;
/// Audit rows a minute for refusals of nobody in particular: a flood of bad credentials must not fill the table.
const AUDITED_STRANGERS: u32 = 60;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct ApiState {
    broker: Broker,
    /// Networks whose `X-Forwarded-For` is believed.
    trusted_proxies: Arc<[IpNet]>,
    room: Arc<Semaphore>,
    strangers: Arc<DefaultDirectRateLimiter>,
}

impl ApiState {
    /// Over this broker.
    pub fn new(broker: Broker, trusted_proxies: Vec<IpNet>) -> Self {
        let quota = Quota::per_minute(std::num::NonZeroU32::new(AUDITED_STRANGERS).expect("it is not zero"));
        Self {
            broker,
            trusted_proxies: trusted_proxies.into(),
            room: Arc::new(Semaphore::new(CONCURRENCY)),
            strangers: Arc::new(RateLimiter::direct(quota)),
        }
    }
}

/// The route table, each route with its documentation.
fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(tokens::list::list_tokens, tokens::create::create_token))
        .routes(routes!(tokens::import::import_token))
        .routes(routes!(tokens::read::get_token, tokens::update::update_token, tokens::delete::delete_token))
        .routes(routes!(tokens::refresh::refresh_token))
        .routes(routes!(tokens::recreate::recreate_token))
        .routes(routes!(teams::list_teams, teams::create_team))
        .routes(routes!(teams::get_team, teams::delete_team))
        .routes(routes!(teams::keys::list_keys, teams::keys::create_key))
        .routes(routes!(teams::keys::delete_key))
        .routes(routes!(platform_keys::list_platform_keys, platform_keys::create_platform_key))
        .routes(routes!(platform_keys::delete_platform_key))
        .routes(routes!(whoami::whoami))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The API's router, `/docs` and `/openapi.json` included.
fn router(state: ApiState) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = docs::completed(document);
    router
        .merge(docs::swagger_ui(document))
        .layer(middleware::from_fn_with_state(state.clone(), request::around))
        .with_state(state)
}

/// The router of the operators' address: `/metrics` and health.
fn ops_router(state: ApiState, metrics: Metrics) -> Router {
    let (health, _) = OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready)).split_for_parts();
    health
        .route("/metrics", axum::routing::get(metrics::metrics))
        .layer(axum::Extension(metrics))
        .layer(middleware::from_fn_with_state(state.clone(), request::around))
        .with_state(state)
}
