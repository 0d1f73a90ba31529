//! Everything an admin can do to a token, at once and over and over, while callers refresh it, JFrog is slow and loses answers, and
//! both replicas are killed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::RngExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use token_broker::dev::simulator::{Fault, Filter, Route, Rule};
use uuid::Uuid;

use crate::app::{Answer, Client, TestApp, jfrog::made_by_hand, process::Replica};

pub(super) const NAMES: usize = 16;
const KILLS: usize = 20;
/// Short, so that the next kill meets tokens at work and not waiting.
const QUICK: [(&str, &str); 3] =
    [("RUST_LOG", "off,token_broker=info"), ("TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", "1"), ("TOKEN_BROKER_LEASE_SECONDS", "2")];

/// A request that was answered with a success.
pub(super) struct Done {
    pub(super) what: &'static str,
    pub(super) request_id: String,
    /// JFrog's ids of the chains that a 201 told of.
    pub(super) chains: Vec<String>,
}

pub(super) struct World {
    pub(super) app: TestApp,
    journals: [TempDir; 2],
    /// The replicas that are up; one that was just killed may be among them.
    replicas: Mutex<[Option<Client>; 2]>,
    over: AtomicBool,
    killed: AtomicUsize,
    answers: Mutex<BTreeMap<(&'static str, String), usize>>,
    pub(super) done: Mutex<Vec<Done>>,
    /// JFrog's ids of pairs whose import succeeded.
    pub(super) pasted: Mutex<Vec<String>>,
    moved: [AtomicBool; NAMES],
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_callers_and_crashes_race_and_every_name_comes_out_whole() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let began = Instant::now();
    let world = World::new().await;
    let replicas = world.play().await;
    let admin = replicas[0].client(&world.app.admin);
    let played = began.elapsed().as_secs();
    let left = world.look(&admin).await;
    for mut replica in replicas {
        assert!(replica.terminate(), "exit code 0");
    }
    let answers = world.answers.lock().expect("no panic there").clone();
    let said: Vec<String> = answers.iter().map(|((what, status), count)| format!("{what} {status}: {count}")).collect();
    println!(
        "{} kills of two replicas, {} rotations at JFrog, {left}, {played} s and {} s until all was still; {}",
        world.killed.load(Ordering::Relaxed),
        world.app.simulator.refreshes(),
        began.elapsed().as_secs() - played,
        said.join(", ")
    );
    for what in ["refresh 200", "recreate 200", "delete 204", "register 201", "import 201"] {
        let (op, status) = what.split_once(' ').expect("two words");
        assert!(answers.iter().any(|((o, s), _)| *o == op && s == status), "{what} never came: {said:?}");
    }
}

impl World {
    async fn new() -> Self {
        let mut app = TestApp::start().await;
        app.stop().await;
        app.simulator.knobs(|knobs| knobs.latency_ms = 30);
        for (route, probability) in [(Route::Create, 0.05), (Route::Refresh, 0.05), (Route::Revoke, 0.03)] {
            let always = Rule::always(Fault::DropResponseAfterCommit);
            app.simulator.fault(Rule { route: Filter::Only(route), probability, ..always });
        }
        Self {
            app,
            journals: [(); 2].map(|()| tempfile::tempdir().expect("a directory")),
            replicas: Mutex::default(),
            over: AtomicBool::new(false),
            killed: AtomicUsize::new(0),
            answers: Mutex::default(),
            done: Mutex::default(),
            pasted: Mutex::default(),
            moved: [const { AtomicBool::new(false) }; NAMES],
        }
    }

    async fn play(&self) -> [Replica; 2] {
        let killing = async {
            let (one, other) = tokio::join!(self.kill(0, KILLS / 2), self.kill(1, KILLS / 2));
            self.over.store(true, Ordering::SeqCst);
            [one, other]
        };
        let admins = join_all((0..NAMES).flat_map(|token| [self.manage(token), self.manage(token)]));
        let callers = join_all((0..NAMES).flat_map(|token| [self.call(token, true), self.call(token, false)]));
        tokio::join!(killing, admins, callers).0
    }

    /// Leaves it running in the end.
    async fn kill(&self, replica: usize, kills: usize) -> Replica {
        for _ in 0..kills {
            let mut running = self.start(replica).await;
            let pause = rand::rng().random_range(100..2_500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            running.kill();
            self.replicas.lock().expect("no panic there")[replica] = None;
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
        self.start(replica).await
    }

    async fn start(&self, replica: usize) -> Replica {
        let running = Replica::launch(&self.app, self.journals[replica].path(), &QUICK).await;
        let running = running.unwrap_or_else(|log| panic!("it did not become ready: {log}"));
        self.replicas.lock().expect("no panic there")[replica] = Some(running.client(&self.app.admin));
        running
    }

    /// One request to whichever replica comes. `None`: nobody answered.
    async fn ask(&self, what: &'static str, allowed: &[u16], request: impl Fn(&Client) -> RequestBuilder) -> Option<Answer> {
        let client = self.replicas.lock().expect("no panic there")[rand::rng().random_range(0..2)].clone();
        let Some(client) = client else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        let answer = Answer::try_of(request(&client).timeout(Duration::from_secs(15))).await.ok();
        let status = answer.as_ref().map_or("unanswered".to_owned(), |answer| answer.status.to_string());
        *self.answers.lock().expect("no panic there").entry((what, status)).or_default() += 1;
        let Some(answer) = answer else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        assert!(allowed.contains(&answer.status), "{what}: {}", answer.text);
        if answer.status < 300 {
            let told = answer.json["chains"].as_array().filter(|_| answer.status == 201).cloned().unwrap_or_default();
            let chains = told.iter().filter_map(|chain| Some(chain["token_id"].as_str()?.to_owned())).collect();
            let request_id = answer.header("x-request-id").to_owned();
            self.done.lock().expect("no panic there").push(Done { what, request_id, chains });
        }
        Some(answer)
    }

    async fn call(&self, token: usize, rotate: bool) {
        let path = format!("/tokens/{}/refresh", name(token));
        let body = if rotate { json!({"max_age": 0, "wait": 1}) } else { json!({"wait": 1}) };
        while !self.over.load(Ordering::SeqCst) {
            let client = |admin: &Client| if rotate { admin.clone() } else { admin.with_key(self.app.ci.key().to_owned()) };
            self.ask("refresh", &[200, 404, 409, 503], |admin| client(admin).request(Method::POST, &path).json(&body)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn manage(&self, token: usize) {
        while !self.over.load(Ordering::SeqCst) {
            let dice = rand::rng().random_range(0..16);
            match dice {
                0..4 => self.recreate(token).await,
                4..6 => self.delete(token).await,
                6..10 => self.register(token, true).await,
                10..12 => self.register(token, false).await,
                _ => self.import(token).await,
            }
            let pause = rand::rng().random_range(0..600);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn user(&self, token: usize) -> String {
        let moved = self.moved[token].load(Ordering::SeqCst);
        format!("{}-{token}", if moved { "successor" } else { "user" })
    }

    /// Now and then the one that moves it to another user, repeated until that is done.
    async fn recreate(&self, token: usize) {
        let moves = rand::rng().random_bool(0.2) && !self.moved[token].swap(true, Ordering::SeqCst);
        loop {
            let body = json!({"identity_token": self.app.simulator.identity_token(&self.user(token))});
            let path = format!("/tokens/{}/recreate", name(token));
            let answer =
                self.ask("recreate", &[200, 404, 409, 503], |admin| admin.request(Method::POST, &path).json(&body)).await;
            if !moves || answer.is_some_and(|answer| [200, 404].contains(&answer.status)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn delete(&self, token: usize) {
        let path = format!("/tokens/{}", name(token));
        loop {
            let answer = self.ask("delete", &[204, 404, 409, 503], |admin| admin.request(Method::DELETE, &path)).await;
            if answer.is_some_and(|answer| [204, 404].contains(&answer.status)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// With an `Idempotency-Key` it is repeated until it is answered for good.
    async fn register(&self, token: usize, repeated: bool) {
        let key = Uuid::new_v4().to_string();
        loop {
            let identity_token = self.app.simulator.identity_token(&self.user(token));
            let body = json!({"name": name(token), "reuse_for": 1, "identity_token": identity_token});
            let answer = self
                .ask("register", &[201, 404, 409, 503], |admin| {
                    let request = admin.request(Method::POST, "/tokens").json(&body);
                    if repeated { request.header("idempotency-key", &key) } else { request }
                })
                .await;
            let busy = |answer: &Answer| answer.status == 503 || answer.json["type"] == "/problems/busy";
            if !repeated || answer.is_some_and(|answer| !busy(&answer)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn import(&self, token: usize) {
        let Some(pair) = made_by_hand(&self.app.simulator, &self.user(token), BY_HAND).await else { return };
        let body: Value = json!({"name": name(token), "reuse_for": 1, "access_token": pair["access_token"],
                                 "refresh_token": pair["refresh_token"]});
        let answer =
            self.ask("import", &[201, 404, 409, 503], |admin| admin.request(Method::POST, "/tokens/import").json(&body)).await;
        if answer.is_some_and(|answer| answer.status == 201) {
            let id = pair["token_id"].as_str().expect("an id").to_owned();
            self.pasted.lock().expect("no panic there").push(id);
        }
    }
}

pub(super) const BY_HAND: &str = "made by hand";

pub(super) fn name(token: usize) -> String {
    format!("deploy-{token}")
}
