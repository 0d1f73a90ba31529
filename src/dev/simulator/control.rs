//! The tests' own routes, under `/_sim`.

use super::{Knobs, Rule, Simulator};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use uuid::Uuid;

type Refusal = (StatusCode, String);
type Answered = Result<Json<Value>, Refusal>;

pub(super) fn routes() -> Router<Simulator> {
    Router::new()
        .route("/_sim/knobs", get(knobs).patch(turn_knobs))
        .route("/_sim/faults", get(faults).post(add_fault).delete(no_faults))
        .route("/_sim/users", post(add_user))
        .route("/_sim/users/{name}/disable", post(disable))
        .route("/_sim/users/{name}/enable", post(enable))
        .route("/_sim/users/{name}/identity-token", post(identity_token))
        .route("/_sim/clock", get(clock).post(advance))
        .route("/_sim/tokens", get(tokens))
        .route("/_sim/tokens/{id}/revoke", post(revoke))
        .route("/_sim/secrets", get(secrets))
        .route("/_sim/calls", get(calls))
        .route("/_sim/signing-key", get(signing_key))
        .route("/_sim/signing-key/rotate", post(rotate))
}

async fn knobs(State(simulator): State<Simulator>) -> Json<Knobs> {
    Json(simulator.knobs(|_| ()))
}

/// Fields that are sent replace the knob's whole value; the others stay.
async fn turn_knobs(State(simulator): State<Simulator>, Json(patch): Json<Map<String, Value>>) -> Result<Json<Knobs>, Refusal> {
    let mut refused = None;
    let knobs = simulator.knobs(|knobs| match merged(knobs, patch) {
        Ok(merged) => *knobs = merged,
        Err(error) => refused = Some((StatusCode::BAD_REQUEST, error.to_string())),
    });
    refused.map_or(Ok(Json(knobs)), Err)
}

fn merged(knobs: &Knobs, patch: Map<String, Value>) -> serde_json::Result<Knobs> {
    let mut all = serde_json::to_value(knobs)?;
    for (name, value) in patch {
        all[name] = value;
    }
    serde_json::from_value(all)
}

async fn faults(State(simulator): State<Simulator>) -> Json<Vec<Rule>> {
    Json(simulator.faults())
}

async fn add_fault(State(simulator): State<Simulator>, Json(rule): Json<Rule>) -> (StatusCode, Json<Vec<Rule>>) {
    simulator.fault(rule);
    (StatusCode::CREATED, Json(simulator.faults()))
}

async fn no_faults(State(simulator): State<Simulator>) -> StatusCode {
    simulator.clear_faults();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct NewUser {
    name: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    groups: Vec<String>,
}

async fn add_user(State(simulator): State<Simulator>, Json(user): Json<NewUser>) -> (StatusCode, Json<Value>) {
    let token = simulator.add_user_in_groups(&user.name, user.admin, &user.groups);
    let user = json!({ "name": user.name, "identity_token": token });
    (StatusCode::CREATED, Json(user))
}

async fn disable(State(simulator): State<Simulator>, Path(name): Path<String>) -> Answered {
    found(simulator.disable(&name), &name)
}

async fn enable(State(simulator): State<Simulator>, Path(name): Path<String>) -> Answered {
    found(simulator.enable(&name), &name)
}

fn found(found: bool, name: &str) -> Answered {
    if found { Ok(Json(json!({ "name": name }))) } else { Err((StatusCode::NOT_FOUND, format!("no {name} here"))) }
}

async fn identity_token(State(simulator): State<Simulator>, Path(name): Path<String>) -> Answered {
    if !simulator.knows(&name) {
        return found(false, &name);
    }
    let token = simulator.identity_token(&name);
    Ok(Json(json!({ "name": name, "identity_token": token })))
}

async fn clock(State(simulator): State<Simulator>) -> Json<Value> {
    Json(json!({ "now": simulator.now() }))
}

#[derive(Deserialize)]
struct Advance {
    advance_seconds: u64,
}

async fn advance(State(simulator): State<Simulator>, Json(by): Json<Advance>) -> Json<Value> {
    simulator.advance(Duration::from_secs(by.advance_seconds));
    Json(json!({ "now": simulator.now() }))
}

async fn tokens(State(simulator): State<Simulator>) -> Json<Value> {
    Json(json!({ "tokens": simulator.tokens() }))
}

async fn revoke(State(simulator): State<Simulator>, Path(id): Path<Uuid>) -> Answered {
    found(simulator.revoke(id), &id.to_string())
}

async fn secrets(State(simulator): State<Simulator>) -> Json<Value> {
    Json(json!({ "secrets": simulator.secrets() }))
}

#[derive(Deserialize)]
struct Last {
    last: Option<usize>,
}

/// `?last=N` leaves out all but the last N calls; the counters are always of all.
async fn calls(State(simulator): State<Simulator>, Query(Last { last }): Query<Last>) -> Json<Value> {
    Json(json!({
        "calls": simulator.last_calls(last.unwrap_or(usize::MAX)),
        "counters": simulator.counters(),
        "refreshes": simulator.refreshes(),
        "max_refreshes_of_one_refresh_token_in_flight": simulator.max_refreshes_in_flight(),
    }))
}

async fn signing_key(State(simulator): State<Simulator>) -> Json<Value> {
    Json(json!({ "public_key": simulator.public_key_pem() }))
}

async fn rotate(State(simulator): State<Simulator>) -> Json<Value> {
    simulator.rotate_signing_key();
    Json(json!({ "public_key": simulator.public_key_pem() }))
}
