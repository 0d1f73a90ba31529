//! Over real sockets, as the broker will call.

#![expect(clippy::unwrap_used, reason = "a test that panics has said what is wrong")]

mod control;
mod errors;
mod faults;
mod knobs;
mod memory;
mod tokens;

use super::{Knobs, Simulator};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

pub(super) const TOKENS: &str = "/access/api/v1/tokens";
pub(super) const ANY_PORT: &str = "127.0.0.1:0";

/// A simulator with the user `ci` and its identity token.
pub(super) struct World {
    pub(super) simulator: Simulator,
    pub(super) identity: String,
    pub(super) http: Client,
}

pub(super) struct Pair {
    pub(super) id: String,
    pub(super) access: String,
    pub(super) refresh: String,
}

impl World {
    pub(super) async fn new() -> Self {
        let simulator = Simulator::start(ANY_PORT.parse().unwrap(), None).await.unwrap();
        Self::of(simulator)
    }

    pub(super) async fn with(knobs: impl FnOnce(&mut Knobs)) -> Self {
        let world = Self::new().await;
        world.simulator.knobs(knobs);
        world
    }

    pub(super) fn of(simulator: Simulator) -> Self {
        let identity = simulator.add_user("ci", false);
        let http = Client::builder().retry(reqwest::retry::never()).redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { simulator, identity, http }
    }

    pub(super) fn get(&self, path: &str, bearer: &str) -> RequestBuilder {
        let url = self.simulator.url() + path;
        self.http.get(url).bearer_auth(bearer)
    }

    pub(super) fn post(&self, bearer: &str, body: &Value) -> RequestBuilder {
        let url = self.simulator.url() + TOKENS;
        self.http.post(url).bearer_auth(bearer).json(body)
    }

    pub(super) fn delete(&self, id: &str, bearer: &str) -> RequestBuilder {
        let url = format!("{}{TOKENS}/{id}", self.simulator.url());
        self.http.delete(url).bearer_auth(bearer)
    }

    /// A new pair of the identity token's user, with whatever else is asked for.
    pub(super) async fn pair(&self, also: Value) -> Pair {
        let mut body = json!({ "refreshable": true });
        body.as_object_mut().unwrap().append(also.clone().as_object_mut().unwrap());
        let (status, answer) = told(self.post(&self.identity, &body)).await;
        assert_eq!(status, 200, "{answer}");
        Pair::of(&answer)
    }

    pub(super) async fn refresh(&self, pair: &Pair) -> (u16, Value) {
        self.refresh_with(&pair.access, &pair.refresh, json!({})).await
    }

    pub(super) async fn refresh_with(&self, bearer: &str, refresh: &str, also: Value) -> (u16, Value) {
        let mut body = json!({ "grant_type": "refresh_token", "refresh_token": refresh });
        body.as_object_mut().unwrap().append(also.clone().as_object_mut().unwrap());
        told(self.post(bearer, &body)).await
    }

    pub(super) async fn me(&self, bearer: &str) -> (u16, Value) {
        told(self.get("/access/api/v1/tokens/me", bearer)).await
    }
}

impl Pair {
    pub(super) fn of(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Self { id: text("token_id"), access: text("access_token"), refresh: text("refresh_token") }
    }
}

/// Status, and the body as JSON, or as text where it is none.
pub(super) async fn told(request: RequestBuilder) -> (u16, Value) {
    read(request.send().await.unwrap()).await
}

pub(super) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, json)
}

pub(super) fn access_error(code: &str, message: &str) -> Value {
    json!({ "errors": [{ "code": code, "message": message }] })
}

pub(super) fn not_found_by_refresh_token() -> (u16, Value) {
    let message = "Token matching the provided refresh token was not found.";
    (404, access_error("NOT_FOUND", message))
}

pub(super) fn unauthorized(message: &str) -> (u16, Value) {
    (401, access_error("UNAUTHORIZED", message))
}

pub(super) fn forbidden() -> (u16, Value) {
    (403, access_error("FORBIDDEN", "Forbidden"))
}
