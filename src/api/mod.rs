//! The broker over HTTP: folder = URL. Handlers translate, they don't decide. The only place with status codes.

mod audit;
mod caller;
mod docs;
mod encryption_keys;
mod examples;
mod extract;
mod health;
mod key;
mod limits;
mod listen;
mod lockdown;
mod metrics;
mod page;
mod parameters;
mod platform_keys;
mod problem;
mod request;
mod required;
mod sessions;
mod teams;
mod tokens;
mod validation;
mod whoami;

use std::sync::Arc;

use axum::{Router, middleware};
use ipnet::IpNet;
use tokio::sync::Semaphore;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use audit::AuditEvent;
pub use docs::openapi_json;
pub use encryption_keys::EncryptionKeys;
pub use limits::Rates;
pub use listen::Listeners;
pub use metrics::Metrics;

use self::{limits::Limits, parameters::Known};
use crate::broker::Broker;

/// Requests under way at once; a waiting caller is one.
const CONCURRENCY: usize = 10_000;

/// What handlers work with. Each request has a clone of it.
#[derive(Clone, Debug)]
pub struct ApiState(Arc<Parts>);

/// Its parts.
#[derive(Debug)]
pub struct Parts {
    broker: Broker,
    /// Networks whose `X-Forwarded-For` is believed.
    trusted_proxies: Vec<IpNet>,
    room: Arc<Semaphore>,
    limits: Limits,
    readiness: health::Readiness,
}

impl ApiState {
    /// Over this broker.
    pub fn new(broker: Broker, trusted_proxies: Vec<IpNet>, rates: Rates) -> Self {
        let (room, limits) = (Arc::new(Semaphore::new(CONCURRENCY)), Limits::new(rates));
        Self(Arc::new(Parts { broker, trusted_proxies, room, limits, readiness: health::Readiness::default() }))
    }
}

impl std::ops::Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
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
        .routes(routes!(tokens::issue::issue_token))
        .routes(routes!(tokens::children::list_children))
        .routes(routes!(tokens::children::revoke_child))
        .routes(routes!(tokens::revoke_handed_out::revoke_handed_out))
        .routes(routes!(tokens::lockdown::get_lockdown, tokens::lockdown::lock_down, tokens::lockdown::end_lockdown))
        .routes(routes!(teams::list_teams, teams::create_team))
        .routes(routes!(teams::get_team, teams::delete_team))
        .routes(routes!(teams::keys::list_keys, teams::keys::create_key))
        .routes(routes!(teams::keys::delete_key))
        .routes(routes!(teams::trust_rules::list_trust_rules, teams::trust_rules::create_trust_rule))
        .routes(routes!(
            teams::trust_rules::get_trust_rule,
            teams::trust_rules::replace_trust_rule,
            teams::trust_rules::delete_trust_rule
        ))
        .routes(routes!(teams::explain::explain_trust_rules))
        .routes(routes!(teams::lockdown::get_team_lockdown, teams::lockdown::lock_team_down, teams::lockdown::end_team_lockdown))
        .routes(routes!(teams::webhooks::list_webhooks, teams::webhooks::create_webhook))
        .routes(routes!(teams::webhooks::get_webhook, teams::webhooks::delete_webhook))
        .routes(routes!(teams::webhooks::test_webhook))
        .routes(routes!(sessions::create_session))
        .routes(routes!(sessions::end_session))
        .routes(routes!(platform_keys::list_platform_keys, platform_keys::create_platform_key))
        .routes(routes!(platform_keys::delete_platform_key))
        .routes(routes!(audit::list_audit))
        .routes(routes!(encryption_keys::get_encryption_keys))
        .routes(routes!(encryption_keys::list_data_keys))
        .routes(routes!(encryption_keys::rotate_data_keys))
        .routes(routes!(encryption_keys::rewrap_data_keys))
        .routes(routes!(encryption_keys::retire_master_key))
        .routes(routes!(encryption_keys::forget_journal))
        .routes(routes!(whoami::whoami))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The API's routes, `/docs` and `/openapi.json` included.
#[derive(Debug)]
pub struct Routes {
    router: Router<ApiState>,
    known: Known,
}

impl Routes {
    /// To put them together takes some milliseconds.
    pub fn documented() -> Self {
        let (router, document) = routes().split_for_parts();
        Self { router: router.merge(docs::routes()), known: Known::of(&document) }
    }

    /// The API's router.
    fn over(self, state: ApiState) -> Router {
        let around = middleware::from_fn_with_state((state.clone(), self.known), request::around);
        self.router.layer(around).with_state(state)
    }
}

/// The router of the operators' address: `/metrics` and health.
fn ops_router(state: ApiState, metrics: Metrics) -> Router {
    let (health, _) = OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready)).split_for_parts();
    health
        .route("/metrics", axum::routing::get(metrics::metrics))
        .layer(axum::Extension(metrics))
        .layer(middleware::from_fn_with_state((state.clone(), Known::default()), request::around))
        .with_state(state)
}
