//! Who asks during a case, and holds every answer against the database and the simulator at the moment it arrives.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgConnection;
use token_broker::{
    crypto::fingerprint,
    dev::simulator::{Call, Route, Simulator, TokenView},
};
use tokio_util::sync::CancellationToken;

use crate::app::{Answer, Client, TestApp};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);

pub(super) struct Witness {
    pub(super) simulator: Simulator,
    user: String,
    /// Calls that JFrog saw before.
    calls_before: usize,
    deletes_before: i64,
    reuse_for: Duration,
    database: tokio::sync::Mutex<PgConnection>,
    /// The highest generation that was handed out.
    highest: AtomicI64,
    /// By chain, and of the token.
    generations: Mutex<HashMap<String, i64>>,
    /// What was handed out, and when it was asked for.
    handed: Mutex<Vec<(Instant, String)>>,
    broken: Mutex<Vec<String>>,
}

impl Witness {
    pub(super) async fn new(app: &TestApp, user: &str, reuse_for: Duration) -> Arc<Self> {
        let mut database = app.database.connect().await;
        let deletes = "select count(*) from audit_events where action = 'token.delete'";
        let deletes_before = sqlx::query_scalar(deletes).fetch_one(&mut database).await.expect("a number");
        Arc::new(Self {
            deletes_before,
            simulator: app.simulator.clone(),
            user: user.to_owned(),
            calls_before: app.simulator.calls().len(),
            reuse_for,
            database: tokio::sync::Mutex::new(database),
            highest: AtomicI64::new(0),
            generations: Mutex::default(),
            handed: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// Asks; `None`: the connection ended without an answer. What is handed out is durable, alive and newer than what was handed
    /// out before, and every success has its audit row.
    pub(super) async fn ask(&self, client: &Client, method: Method, path: &str, body: Value) -> Option<Answer> {
        let (sent, highest) = (Instant::now(), self.highest.load(Ordering::SeqCst));
        let response = client.request(method.clone(), path).json(&body).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.ok()?;
        let answer = Answer { status, headers, json: serde_json::from_str(&text).unwrap_or(Value::Null), text };
        if !(200..300).contains(&status) || method == Method::GET {
            return Some(answer);
        }
        if let Some(token) = answer.json["access_token"].as_str() {
            self.check(self.simulator.is_alive(token), || format!("a dead access token was handed out: {}", answer.shown()));
            let generation = answer.json["generation"].as_i64().unwrap_or(0);
            self.check(generation >= highest.max(1), || format!("generation {generation} was handed out after {highest}"));
            self.highest.fetch_max(generation, Ordering::SeqCst);
            let durable =
                "select exists (select from audit_events where action like 'chain.%' and outcome = 'done' and fingerprint = $1)";
            self.check(self.is_true(durable, &fingerprint(token)).await, || "what was handed out is not durable".to_owned());
            self.handed.lock().unwrap_or_else(PoisonError::into_inner).push((sent, token.to_owned()));
        }
        if method == Method::DELETE {
            // Of two deletes at once the second finds it gone: the first one's row says it.
            let gone = "select count(*) from audit_events where action = 'token.delete' and outcome = 'done'";
            self.check(self.count(gone).await > self.deletes_before, || "a delete was not audited".to_owned());
            return Some(answer);
        }
        let audited = "select exists (select from audit_events where outcome = 'done' and request_id = $1)";
        self.check(self.is_true(audited, answer.header("x-request-id")).await, || {
            format!("no audit row of {method} {path}: {status}")
        });
        Some(answer)
    }

    pub(super) async fn refresh(&self, client: &Client, body: Value) -> Option<Answer> {
        self.ask(client, Method::POST, "/tokens/deploy/refresh", body).await
    }

    /// Looks again and again until `stop`: what was handed out works, nothing goes back, and callers of `client` are served. Those who do not
    /// rotate take what there is.
    pub(super) async fn watch(self: Arc<Self>, client: Client, rotates: bool, serves: bool, stop: CancellationToken) {
        let body = if rotates { json!({"wait": 2}) } else { json!({"wait": 2, "max_age": 3600}) };
        while !stop.is_cancelled() {
            let answer = self.refresh(&client, body.clone()).await;
            let status = answer.as_ref().map(|answer| answer.status);
            self.check(status == Some(200) || !serves, || {
                format!("a caller was not served: {status:?} {}", answer.map(|answer| answer.text).unwrap_or_default())
            });
            self.look().await;
            drop(tokio::time::timeout(LOOK, stop.cancelled()).await);
        }
    }

    /// One look at the generations, and at what was handed out.
    pub(super) async fn look(&self) {
        let all = "select letter, generation from chains union all select 'token', generation from tokens";
        let rows: Vec<(String, i64)> =
            sqlx::query_as(all).fetch_all(&mut *self.database.lock().await).await.expect("the generations");
        for (which, generation) in rows {
            let before = self.generations.lock().unwrap_or_else(PoisonError::into_inner).insert(which.clone(), generation);
            self.check(before.is_none_or(|before| before <= generation), || {
                format!("{which} went back from {before:?} to {generation}")
            });
        }
        self.works();
    }

    /// What was handed out within `reuse_for` works.
    pub(super) fn works(&self) {
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (sent, token) in handed {
            // Asked after it was looked at: what dies at its last moment is not counted.
            let alive = self.simulator.is_alive(&token);
            self.check(alive || sent.elapsed() >= self.reuse_for, || {
                "what was handed out died before reuse_for was over".to_owned()
            });
        }
    }

    /// The user's pairs that work at JFrog.
    pub(super) fn alive(&self) -> Vec<TokenView> {
        self.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity && token.user == self.user).collect()
    }

    /// JFrog's calls of this kind in this case.
    pub(super) fn calls(&self, route: Route) -> Vec<Call> {
        self.simulator.calls().into_iter().skip(self.calls_before).filter(|call| call.route == route).collect()
    }

    /// The access token that was handed out last.
    pub(super) fn last_handed(&self) -> Option<String> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).last().map(|(_, token)| token.clone())
    }

    /// One number from the database.
    pub(super) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut *self.database.lock().await).await.expect("a number")
    }

    pub(super) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut *self.database.lock().await).await.expect("runs");
    }

    pub(super) async fn texts(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql).fetch_all(&mut *self.database.lock().await).await.expect("texts")
    }

    async fn is_true(&self, sql: &'static str, value: &str) -> bool {
        sqlx::query_scalar(sql).bind(value).fetch_one(&mut *self.database.lock().await).await.expect("an answer")
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(what());
        }
    }

    /// Fails unless all of it held.
    pub(super) fn held(&self) {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(broken.is_empty(), "{broken:#?}");
    }
}
