//! One call, from its arrival to its end.

use super::answers::Answer;
use super::calls::{Call, Route};
use super::faults;
use super::ledger::Ledger;
use super::parameters::Fields;
use super::{Simulator, State};
use axum::http::{HeaderMap, Method, Uri, header};
use std::time::{Duration, Instant};
use uuid::Uuid;

const TOKENS: &str = "/access/api/v1/tokens";

/// A call as it came, sorted but not checked.
pub(super) struct Request {
    pub(super) route: Route,
    pub(super) target: Target,
    pub(super) query: String,
    pub(super) content_type: Option<String>,
    /// What follows `Bearer `.
    pub(super) bearer: Option<String>,
    /// The body's fields, or the answer to an unreadable body, given only to an accepted bearer.
    pub(super) fields: Result<Fields, Answer>,
}

/// The token a path names.
pub(super) enum Target {
    Me,
    Id(String),
    None,
}

/// What the log wants to know of a call.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) user: Option<String>,
    pub(super) token_id: Option<Uuid>,
    pub(super) target_token_id: Option<Uuid>,
    pub(super) new_token_id: Option<Uuid>,
    pub(super) committed: bool,
}

impl Request {
    pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let content_type = text(header::CONTENT_TYPE).map(str::to_owned);
        let bearer = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer "));
        let fields = Fields::read(content_type.as_deref(), body);
        let (route, target) = sort(method, uri.path(), &fields);
        Self {
            route,
            target,
            query: uri.query().unwrap_or_default().to_owned(),
            content_type,
            bearer: bearer.map(|b| b.trim().to_owned()),
            fields,
        }
    }

    fn refresh_token(&self) -> Option<String> {
        let fields = self.fields.as_ref().ok()?;
        let refresh_token = fields.text("refresh_token")?;
        (self.route == Route::Refresh).then_some(refresh_token)
    }
}

fn sort(method: &Method, path: &str, fields: &Result<Fields, Answer>) -> (Route, Target) {
    let rest = path.strip_prefix(TOKENS);
    let segment = rest.and_then(|r| r.strip_prefix('/'));
    let segment = segment.filter(|s| !s.is_empty() && !s.contains('/'));
    match (method.as_str(), rest, segment) {
        ("POST", Some(""), _) => {
            let grant = fields.as_ref().ok().and_then(|f| f.text("grant_type"));
            if grant.as_deref() == Some("refresh_token") { (Route::Refresh, Target::None) } else { (Route::Create, Target::None) }
        }
        ("GET", Some(""), _) => (Route::List, Target::None),
        ("GET", _, Some("me")) => (Route::Me, Target::Me),
        ("GET", _, Some(id)) => (Route::Get, Target::Id(id.to_owned())),
        ("DELETE", _, Some("me")) => (Route::Revoke, Target::Me),
        ("DELETE", _, Some(id)) => (Route::Revoke, Target::Id(id.to_owned())),
        ("GET", None, _) if is_ping(path) => (Route::Ping, Target::None),
        _ => (Route::Other, Target::None),
    }
}

fn is_ping(path: &str) -> bool {
    ["/access/api/v1/system/ping", "/artifactory/api/system/ping"].contains(&path)
}

impl Ledger {
    fn answer(&mut self, request: &Request, trace: &mut Trace) -> Answer {
        let answer = match request.route {
            Route::Create => self.create(request, trace),
            Route::Refresh => self.refresh(request, trace),
            Route::Revoke => self.delete(request, trace),
            Route::Me | Route::Get => self.read(request, trace),
            Route::List => self.list(request, trace),
            Route::Ping => Ok(Answer::ok()),
            Route::Other => Ok(Answer::not_found("Not Found")),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }
}

impl Simulator {
    /// Runs to its end even when the caller leaves: so does a real server's commit.
    pub(super) async fn play(&self, request: Request) -> Answer {
        let began = Instant::now();
        let refresh_token = request.refresh_token();
        let (at_ms, latency, fault) = self.arrive(request.route, refresh_token.as_deref());
        pass(latency).await;
        let mut trace = Trace::default();
        let answer = match fault.as_ref().and_then(faults::Fault::instead) {
            Some(answer) => answer,
            None => {
                let before = fault.as_ref().map(faults::Fault::delay_before_commit);
                pass(before.unwrap_or_default()).await;
                let answer = self.commit(&request, &mut trace);
                let after = fault.as_ref().map(faults::Fault::delay_after_commit);
                pass(after.unwrap_or_default()).await;
                match &fault {
                    Some(fault) => fault.spoil(answer),
                    None => answer,
                }
            }
        };
        let mut state = self.state();
        if let Some(refresh_token) = refresh_token {
            state.calls.end(&refresh_token);
        }
        state.calls.add(Call {
            at_ms,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            route: request.route,
            status: answer.status(),
            user: trace.user,
            token_id: trace.token_id,
            target_token_id: trace.target_token_id,
            new_token_id: trace.new_token_id,
            committed: trace.committed,
            fault,
        });
        answer
    }

    fn arrive(&self, route: Route, refresh_token: Option<&str>) -> (i64, Duration, Option<faults::Fault>) {
        let state = &mut *self.state();
        if let Some(refresh_token) = refresh_token {
            state.calls.begin(refresh_token);
        }
        let fault = faults::next(&mut state.rules, route);
        (state.ledger.now_ms(), state.ledger.knobs.latency(), fault)
    }

    fn commit(&self, request: &Request, trace: &mut Trace) -> Answer {
        self.change(|state: &mut State| {
            // A call that was still waiting when the simulator stopped must not write into the state file,
            // which the next simulator may have read already.
            if state.stopped {
                return Answer::Dropped;
            }
            state.ledger.answer(request, trace)
        })
    }
}

/// No time is none: a timer would round it up to a millisecond.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
