//! kill -9 at random moments, over and over: two replicas, several tokens, JFrog killing old access tokens at once, and Postgres
//! crashing now and then. `KILLS=10000 cargo test --test faults after_kill_9 -- --nocapture` is the long run.

use std::{
    env, fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use rand::RngExt;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use token_broker::dev::simulator::OldAccessToken;

use crate::app::{
    Answer, Client, TestApp, TestDatabase,
    jfrog::{chain_ids, sorted},
    journal::logs,
    process::Replica,
};

const TOKENS: usize = 12;
/// A slow JFrog makes the moment between spending and saving long enough to be hit.
const LATENCY_MS: u64 = 20;
/// After so many kills everything holds still and is looked at.
const ROUND: usize = 300;
/// Short, so that the next kill meets tokens at work and not waiting.
const QUICK: [(&str, &str); 3] =
    [("RUST_LOG", "off,token_broker=info"), ("TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", "1"), ("TOKEN_BROKER_LEASE_SECONDS", "2")];

struct World {
    app: TestApp,
    journals: [TempDir; 2],
    /// The replicas' addresses, dead ones too.
    replicas: Mutex<[Option<Client>; 2]>,
    /// What each token's last answer said.
    generations: [AtomicI64; TOKENS],
    /// Of every 200: each must have its audit row.
    handed_out: Mutex<Vec<String>>,
    holding_still: AtomicBool,
    crashes: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_at_any_moment_every_token_can_be_rotated_for_real() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let kills: usize = env::var("KILLS").ok().map_or(ROUND, |kills| kills.parse().expect("KILLS: a number"));
    let began = Instant::now();
    let world = World::new().await;
    let (mut killed, mut handed_out) = (0, 0);
    while killed < kills {
        let now = ROUND.min(kills - killed);
        world.play(now).await;
        killed += now;
        handed_out += world.look().await;
        let in_the_dark = world.app.database.count("select count(*) from audit_events where action = 'attempt.recover'").await;
        println!(
            "{killed} kills of two replicas, {} crashes of Postgres: {in_the_dark} attempts found in the dark, {} rotations, \
             {handed_out} hand-outs, no token of {TOKENS} lost, no orphan, in {} s",
            world.crashes.load(Ordering::Relaxed),
            world.app.simulator.refreshes(),
            began.elapsed().as_secs()
        );
        let least = killed / 10;
        let hit = usize::try_from(in_the_dark).expect("few");
        assert!(hit > least && world.app.simulator.refreshes() > least, "it hit refreshes at work");
    }
}

impl World {
    async fn new() -> Self {
        let mut app = TestApp::start_on(TestDatabase::alone().await).await;
        for number in 0..TOKENS {
            app.register_with(&name(number), json!({"reuse_for": 1})).await.expect(201);
        }
        app.stop().await;
        app.simulator.knobs(|knobs| {
            knobs.latency_ms = LATENCY_MS;
            knobs.old_access_token = OldAccessToken::Revoked;
        });
        Self {
            app,
            journals: [(); 2].map(|()| tempfile::tempdir().expect("a directory")),
            replicas: Mutex::default(),
            generations: [const { AtomicI64::new(0) }; TOKENS],
            handed_out: Mutex::default(),
            holding_still: AtomicBool::new(false),
            crashes: AtomicUsize::new(0),
        }
    }

    /// Rotations as fast as they go, while both replicas are killed `kills` times in all.
    async fn play(&self, kills: usize) {
        self.holding_still.store(false, Ordering::SeqCst);
        let killing = async {
            tokio::join!(self.kill(0, kills / 2), self.kill(1, kills - kills / 2));
            self.holding_still.store(true, Ordering::SeqCst);
        };
        tokio::join!(killing, self.crash_postgres(), join_all((0..TOKENS).map(|token| self.refresh(token))));
    }

    async fn kill(&self, replica: usize, kills: usize) {
        for _ in 0..kills {
            let mut running = self.start(replica).await;
            let pause = rand::rng().random_range(20..250);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            running.kill();
        }
    }

    /// As an orchestrator does: again, while Postgres is recovering.
    async fn start(&self, replica: usize) -> Replica {
        let mut said = String::new();
        for _ in 0..100 {
            match Replica::launch(&self.app, self.journals[replica].path(), &QUICK).await {
                Ok(running) => {
                    self.replicas.lock().expect("no panic there")[replica] = Some(running.client(&self.app.admin));
                    return running;
                }
                Err(log) => said = log,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not start any more: {said}");
    }

    async fn crash_postgres(&self) {
        while !self.holding_still.load(Ordering::SeqCst) {
            let pause = rand::rng().random_range(8_000..30_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if !self.holding_still.load(Ordering::SeqCst) {
                self.app.database.crash().await;
                self.crashes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// `max_age: 0`: every call is a rotation for real, of whichever replica is up.
    async fn refresh(&self, token: usize) {
        while !self.holding_still.load(Ordering::SeqCst) {
            let replica = self.replicas.lock().expect("no panic there")[rand::rng().random_range(0..2)].clone();
            let Some(admin) = replica else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let request = admin.request(Method::POST, &format!("/tokens/{}/refresh", name(token)));
            let request = request.json(&json!({"max_age": 0, "wait": 1})).timeout(Duration::from_secs(5));
            match Answer::try_of(request).await {
                Ok(answer) if answer.status == 200 => self.check(token, &answer),
                Ok(answer) => assert!([503, 409].contains(&answer.status), "{}", answer.text),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn check(&self, token: usize, answer: &Answer) {
        let generation = answer.json["generation"].as_i64().expect("a number");
        let before = self.generations[token].fetch_max(generation, Ordering::SeqCst);
        assert!(generation >= before, "generations never go back: {generation} after {before}");
        assert!(self.app.simulator.is_alive(answer.access_token()), "a dead token was handed out: {}", answer.json["warnings"]);
        self.handed_out.lock().expect("no panic there").push(answer.header("x-request-id").to_owned());
    }

    /// At rest, from outside: nothing is lost, nothing is left over. Returns how many hand-outs there were.
    async fn look(&self) -> usize {
        // A day passes for the journals, or they would grow with the rotations.
        for log in self.journals.iter().flat_map(|dir| logs(dir.path())) {
            let file = fs::File::options().write(true).open(log).expect("a log");
            file.set_modified(SystemTime::now() - Duration::from_hours(48)).expect("a time");
        }
        let (mut one, mut other) = (self.start(0).await, self.start(1).await);
        let admin = one.client(&self.app.admin);
        for token in 0..TOKENS {
            let rotated = rotate_for_real(&admin, &name(token)).await;
            self.check(token, &rotated);
        }
        let simulator = &self.app.simulator;
        assert!(simulator.max_refreshes_in_flight() <= 1, "a refresh token was spent twice at once");
        self.at_rest(&admin).await;
        let handed_out = std::mem::take(&mut *self.handed_out.lock().expect("no panic there"));
        let ids = handed_out.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        let audited = format!(
            "select count(distinct request_id) from audit_events where action = 'token.hand_out' and outcome = 'done' and request_id in ({ids})"
        );
        assert_eq!(self.app.database.count(&audited).await, i64::try_from(handed_out.len()).expect("few"), "each has its row");
        assert!(one.terminate() && other.terminate(), "exit code 0");
        handed_out.len()
    }

    /// No orphan, and nothing under way.
    async fn at_rest(&self, admin: &Client) {
        let (mut ours, mut alive) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            ours.clear();
            for token in 0..TOKENS {
                ours.extend(chain_ids(&admin.get(&format!("/tokens/{}", name(token))).await.expect(200).json));
            }
            (ours, alive) = (sorted(ours), self.app.alive());
            if ours == alive && self.app.database.count("select count(*) from attempts").await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("alive at JFrog: {alive:?}, ours: {ours:?}");
    }
}

fn name(token: usize) -> String {
    format!("deploy-{token}")
}

/// Asks until a rotation of its own has succeeded: an attempt in the dark is waited for, its chain healed.
async fn rotate_for_real(admin: &Client, name: &str) -> Answer {
    for _ in 0..60 {
        let answer = admin.refresh(name, json!({"max_age": 0, "wait": 5})).await;
        if answer.status == 200 && answer.json["refreshed"] == true {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the token is lost: {:#}", admin.get(&format!("/tokens/{name}")).await.json);
}
