//! While Postgres is away, callers are told so in time, nothing is spent, and what was spent already waits in the journal.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, future::join_all};
use serde_json::json;
use token_broker::dev::postgres::Durability;

use super::{all_live, behind_a_gate, own::Own, pairs_waiting, refreshes_asked, until};
use crate::app::{TestApp, process::Replica};

/// Seconds that callers say they would wait.
const WAIT: u64 = 2;
/// Beyond what a caller said it would wait; most of it is for a slow machine.
const MARGIN: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_refuses_connections_callers_get_503_in_time_and_nothing_is_spent() {
    let mut own = Own::start(Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    app.register("deploy").await;
    own.crash().await;
    told_in_time(&app).await;
    own.start_again().await;
    until("ready again", async || app.ci.get("/health/ready").await.status == 200).await;
    all_live(&app, &["deploy"]).await;
}

/// As when its machine or the network stalls: connections stay open, and nothing comes.
#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_holds_still_callers_get_503_in_time_and_nothing_is_spent() {
    let (gate, app) = behind_a_gate().await;
    app.register("deploy").await;
    gate.freeze(true);
    told_in_time(&app).await;
    gate.freeze(false);
    until("ready again", async || app.ci.get("/health/ready").await.status == 200).await;
    all_live(&app, &["deploy"]).await;
}

async fn told_in_time(app: &TestApp) {
    let (asked, began) = (app.asked_for_pairs(), Instant::now());
    let answers = join_all([
        app.ci.refresh("deploy", json!({"wait": WAIT})).boxed(),
        app.admin.refresh("deploy", json!({"wait": WAIT})).boxed(),
        app.admin.refresh("deploy", json!({"wait": WAIT, "max_age": 0})).boxed(),
        app.ci.get("/health/ready").boxed(),
    ]);
    for answer in answers.await {
        answer.refused(503, "database-unavailable");
    }
    assert!(began.elapsed() < Duration::from_secs(WAIT) + MARGIN, "{:?}", began.elapsed());
    app.ci.get("/health/live").await.expect(200);
    assert_eq!(app.asked_for_pairs(), asked, "nothing is spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_met_no_postgres_waits_in_the_journal_and_is_committed_at_once_when_it_is_back() {
    let mut own = Own::start(Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 500);
    let admin = app.admin.clone();
    let asked = tokio::spawn(async move { admin.refresh("deploy", json!({"max_age": 0, "wait": 2})).await });
    until("the call", async || app.simulator.refreshes_in_flight() == 1).await;
    own.crash().await;
    until("a pair in the journal", async || pairs_waiting(app.journal.path()) == 1).await;
    assert_eq!(asked.await.expect("an answer").status, 503);

    own.start_again().await;
    let back = Instant::now();
    until("the commit", async || app.database.count("select max(generation) from tokens").await == 2).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    until("the entry's end", async || pairs_waiting(app.journal.path()) == 0).await;
    assert_eq!((app.simulator.refreshes(), refreshes_asked(&app)), (1, 1), "the old refresh token was sent once");
    app.simulator.knobs(|knobs| knobs.latency_ms = 0);
    all_live(&app, &["deploy"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_a_replica_that_died_while_postgres_was_away_is_committed_before_the_next_start_is_ready() {
    let mut own = Own::start(Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 500);
    let journal = tempfile::tempdir().expect("a directory");
    let mut replica = Replica::start(&app, journal.path(), "info").await;
    let admin = replica.client(&app.admin);
    let asked = tokio::spawn(async move {
        let request = admin.request(reqwest::Method::POST, "/tokens/deploy/refresh").json(&json!({"max_age": 0}));
        request.send().await
    });
    until("the call", async || app.simulator.refreshes_in_flight() == 1).await;
    own.crash().await;
    until("a pair in the journal", async || pairs_waiting(journal.path()) == 1).await;
    replica.kill();
    asked.await.expect("it ends").expect_err("nobody is left to answer");

    own.start_again().await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 0);
    let replica = Replica::start(&app, journal.path(), "info").await;
    assert_eq!(app.database.count("select max(generation) from tokens").await, 2, "committed before it says that it is ready");
    assert_eq!((pairs_waiting(journal.path()), app.database.count("select count(*) from attempts").await), (0, 0));
    let handed = replica.client(&app.ci).refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!((handed.json["generation"].as_i64(), refreshes_asked(&app)), (Some(2), 1), "the old refresh token was sent once");
    all_live(&app, &["deploy"]).await;
}
