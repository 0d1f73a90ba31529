//! What stands around every request: its id, its bounds, the rendering of problems, and the audit of refusals.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    ApiState,
    caller::too_many,
    parameters::Known,
    problem::{ISSUER_UNAVAILABLE, Problem},
};
use crate::{
    actor::Actor,
    identity::{Caller, Team},
    names::Name,
    store::Event,
};

const REQUEST_ID: &str = "x-request-id";

/// What is known of a request besides its content; the caller is filled in once it is authenticated.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub request_id: String,
    pub address: Option<IpAddr>,
    pub caller: Arc<OnceLock<Arc<Caller>>>,
    pub stranger: Arc<OnceLock<Stranger>>,
}

/// A verified identity that no rule lets in, and the team that should hear of it.
#[derive(Debug)]
pub(super) struct Stranger {
    pub who: Arc<Caller>,
    pub team: Option<Team>,
    /// Whether that team's rules are about it: anyone can name a team.
    pub meant: bool,
}

impl Context {
    /// Whoever it is: not known yet.
    pub(super) fn nobody(&self) -> Actor {
        let (request_id, address) = (Some(self.request_id.clone()), self.address.map(|address| address.to_string()));
        Actor { name: "nobody".to_owned(), recognised_by: serde_json::json!({}), request_id, address }
    }
}

/// Runs a request and sees to what every answer needs.
pub(super) async fn around(State((state, known)): State<(ApiState, Known)>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let context = Context {
        request_id: request_id(request.headers()),
        address: peer.map(|peer| client_address(&state, peer, request.headers())),
        caller: Arc::default(),
        stranger: Arc::default(),
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let action = format!("{} {route}", request.method());
    let token = token_name(request.uri().path());
    let span = tracing::info_span!("request", id = context.request_id, action);
    let query = request.uri().query();
    let in_query = query.is_some_and(|query| has_credential(&route, query));
    let unknown = query.and_then(|query| known.refuses(request.method(), &route, query));
    request.extensions_mut().insert(context.clone());

    // Who operates the service must see it when it is full, too.
    let unbounded = route.starts_with("/health/") || route == "/metrics";
    let room = if unbounded { Ok(None) } else { Arc::clone(&state.room).try_acquire_owned().map(Some) };
    let within_limits = if unbounded { Ok(()) } else { state.limits.request(context.address).await };
    let response = match room {
        _ if let Err(too_often) = within_limits => too_many(too_often).into_response(),
        Err(_) => Problem::of_status(StatusCode::SERVICE_UNAVAILABLE).into_response(),
        Ok(_) if in_query => {
            Problem::malformed("Credentials in the query string are refused: they end up in logs.").into_response()
        }
        Ok(_) if let Some(unknown) = unknown => unknown.into_response(),
        // In a task of its own: a panic becomes a 500, and the process lives.
        Ok(room) => match tokio::spawn(bounded(room, next.run(request)).instrument(span)).await {
            Ok(response) => response,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
    };
    let mut response = match problem_of(&response) {
        None => response,
        Some(problem) => {
            // In a box: whoever waits for a good answer keeps no room for it.
            Box::pin(audit(&state, &context, action, token, &problem)).await;
            render(&problem, &context.request_id, response)
        }
    };
    finish(response.headers_mut(), &context.request_id);
    response
}

/// A request that nobody waits for any more takes up room until it has ended.
async fn bounded(room: Option<OwnedSemaphorePermit>, response: impl Future<Output = Response>) -> Response {
    let response = response.await;
    drop(room);
    response
}

fn problem_of(response: &Response) -> Option<Problem> {
    let status = response.status();
    let plain = status.is_client_error() || status.is_server_error();
    response.extensions().get::<Problem>().cloned().or_else(|| plain.then(|| Problem::of_status(status)))
}

fn render(problem: &Problem, request_id: &str, answered: Response) -> Response {
    let (mut parts, _) = answered.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let body = serde_json::to_vec(&problem.body(request_id)).unwrap_or_default();
    (parts.status, parts.headers, body).into_response()
}

fn finish(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ));
}

/// One row for each refusal of a known caller, and of a verified identity within its own bounds; of strangers, a sample.
async fn audit(state: &ApiState, context: &Context, action: String, token_name: Option<String>, problem: &Problem) {
    metrics::counter!("token_broker_problems_total", "slug" => problem.slug).increment(1);
    if problem.status.is_server_error() && problem.slug != ISSUER_UNAVAILABLE {
        return;
    }
    let too_many = problem.status == StatusCode::TOO_MANY_REQUESTS;
    let within_limits = match (context.caller.get(), context.stranger.get()) {
        (Some(caller), _) => !too_many || state.limits.audited_caller(caller.counted_as()).await,
        (None, Some(Stranger { who, team, meant })) => {
            let team = team.as_ref().filter(|_| *meant).map(|team| team.id);
            state.limits.audited_identity(who.counted_as(), team).await
        }
        (None, None) => state.limits.audited(context.address).await,
    };
    if !within_limits {
        return;
    }
    let address = context.address.map(|address| address.to_string());
    let request_id = Some(context.request_id.clone());
    let (actor, team) = match (context.caller.get(), context.stranger.get()) {
        (Some(caller), _) => (caller.actor(request_id, address), caller.team()),
        (None, Some(stranger)) => (stranger.who.actor(request_id, address), stranger.team.as_ref()),
        (None, None) if too_many || problem.status == StatusCode::UNAUTHORIZED || problem.slug == ISSUER_UNAVAILABLE => {
            (context.nobody(), None)
        }
        (None, None) => return,
    };
    let team = team.map(|team| team.id);
    let reason = format!("{}: {}", problem.slug, problem.reason).chars().filter(|c| !c.is_control()).take(500).collect();
    let event = Event { team, action, reason, token_name };
    if let Err(error) = state.broker.audit_refusal(&event, &actor).await {
        tracing::warn!(%error, "a refusal could not be audited");
    }
}

/// The caller's own id when it is sane, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane =
        |text: &&str| (1..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The nearest address that is not one of our own proxies: what stands further left was written by who knows whom.
fn client_address(state: &ApiState, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let ours = |address: &IpAddr| state.trusted_proxies.iter().any(|network| network.contains(address));
    // What is no text is no address: left out, it would take with it what our own proxies wrote after it.
    let lists = headers.get_all("x-forwarded-for").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let lists: Vec<Cow<'_, str>> = lists.collect();
    let hops: Vec<&str> = lists.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    let mut nearest = peer.to_canonical();
    // From the right, where our own proxies write, to the first that is no address: further left anyone may have written.
    for hop in hops.into_iter().rev() {
        let address = hop.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|with_port| with_port.ip()));
        let Some(address) = address.ok().filter(|_| ours(&nearest)) else { break };
        nearest = address.to_canonical();
    }
    nearest
}

fn token_name(path: &str) -> Option<String> {
    let name = path.strip_prefix("/tokens/")?.split('/').next()?;
    // A key that was pasted in the wrong place must not end up in the audit.
    let credential = ["tbk_", "tbs_", "eyJ"].iter().any(|start| name.starts_with(start));
    (!name.is_empty() && !credential).then(|| name.chars().take(63).collect())
}

fn has_credential(route: &str, query: &str) -> bool {
    const NAMES: [&str; 10] = [
        "access_token",
        "refresh_token",
        "identity_token",
        "id_token",
        "token",
        "jwt",
        "session",
        "api_key",
        "key",
        "authorization",
    ];
    // The audit is asked for a token by its name, which no credential can be mistaken for.
    let names_a_token =
        |pair: &&str| route == "/audit" && pair.strip_prefix("token=").is_some_and(|name| name.parse::<Name>().is_ok());
    let pairs = query.split('&').filter(|pair| !names_a_token(pair));
    // Read as a server would that knows the parameter: its name may be written in another way.
    let mut names = pairs.flat_map(|pair| form_urlencoded::parse(pair.as_bytes())).map(|(name, _)| name);
    names.any(|name| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
}
