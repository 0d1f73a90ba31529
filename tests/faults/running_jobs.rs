//! A refresh never breaks a running job: jobs that last exactly `reuse_for`, under load, while JFrog kills old access tokens at
//! once, loses answers, and replicas are killed. Real time; each job looks at its token until it ends.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::RngExt;
use reqwest::Method;
use serde_json::json;
use token_broker::dev::simulator::{Fault, OldAccessToken, Route, Rule};

use crate::app::{Answer, Client, TestApp, process::Replica};

const REUSE_FOR: Duration = Duration::from_secs(3);
const TOKENS: usize = 4;
/// Callers of each token, one job after the other.
const CALLERS: usize = 6;
const LASTS: Duration = Duration::from_secs(40);

struct World {
    app: TestApp,
    replicas: Mutex<[Option<Client>; 2]>,
    over: AtomicBool,
    jobs: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_broken_under_load_kills_and_lost_answers() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    for token in 0..TOKENS {
        app.register_with(&name(token), json!({"reuse_for": REUSE_FOR.as_secs()})).await.expect(201);
    }
    app.stop().await;
    app.simulator.knobs(|knobs| {
        knobs.old_access_token = OldAccessToken::Revoked;
        knobs.latency_ms = 30;
    });
    let world = World {
        app,
        replicas: Mutex::default(),
        over: AtomicBool::new(false),
        jobs: AtomicUsize::new(0),
        broken: Mutex::default(),
    };
    let callers = (0..TOKENS * CALLERS).map(|caller| world.work(caller % TOKENS));
    let ending = async {
        tokio::time::sleep(LASTS).await;
        world.over.store(true, Ordering::SeqCst);
    };
    tokio::join!(ending, world.replica(0), world.replica(1), world.lose_answers(), join_all(callers));

    let jobs = world.jobs.load(Ordering::SeqCst);
    let heals = world.app.database.count("select count(*) from audit_events where action = 'chain.heal'").await;
    let rotations = world.app.simulator.refreshes();
    println!("{jobs} jobs of {} s, {rotations} rotations, {heals} heals", REUSE_FOR.as_secs());
    let broken = world.broken.lock().expect("no panic there");
    assert!(broken.is_empty(), "{} of {jobs} jobs were broken: {broken:#?}", broken.len());
    assert!(jobs > 50 && rotations > 10 && heals > 0, "there was something to break: {jobs}, {rotations}, {heals}");
}

impl World {
    /// A replica that is killed every few seconds.
    async fn replica(&self, number: usize) {
        let journal = tempfile::tempdir().expect("a directory");
        while !self.over.load(Ordering::SeqCst) {
            let mut replica = Replica::start(&self.app, journal.path(), "info").await;
            self.replicas.lock().expect("no panic there")[number] = Some(replica.client(&self.app.ci));
            let pause = rand::rng().random_range(1_500..4_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            replica.kill();
        }
    }

    async fn lose_answers(&self) {
        while !self.over.load(Ordering::SeqCst) {
            self.app.simulator.fault(Rule::once(Fault::DropResponseAfterCommit, Route::Refresh));
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        self.app.simulator.clear_faults();
    }

    /// One job after the other.
    async fn work(&self, token: usize) {
        while !self.over.load(Ordering::SeqCst) {
            let replica = self.replicas.lock().expect("no panic there")[rand::rng().random_range(0..2)].clone();
            let answer = match replica {
                Some(ci) => {
                    let request = ci.request(Method::POST, &format!("/tokens/{}/refresh", name(token))).json(&json!({"wait": 5}));
                    Answer::try_of(request.timeout(Duration::from_secs(10))).await.ok().filter(|answer| answer.status == 200)
                }
                None => None,
            };
            match answer {
                Some(answer) => self.run(token, &answer).await,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn run(&self, token: usize, answer: &Answer) {
        let began = Instant::now();
        while began.elapsed() < REUSE_FOR {
            if !self.app.simulator.is_alive(answer.access_token()) {
                let broken = format!("{} after {:?}: generation {}", name(token), began.elapsed(), answer.json["generation"]);
                return self.broken.lock().expect("no panic there").push(broken);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.jobs.fetch_add(1, Ordering::SeqCst);
    }
}

fn name(token: usize) -> String {
    format!("deploy-{token}")
}
