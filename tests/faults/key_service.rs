//! The key service is away while Postgres comes back: what waits in the journal waits on, and holds up nothing else.

use std::time::Duration;

use serde_json::json;
use token_broker::broker::Timing;

use crate::app::{
    TIMING, TestApp,
    fake_transit::{Behaving, FakeTransit, listed},
    journal::{set_aside, until_pending},
};

/// Longer than the test: nobody else finds out what became of an attempt.
const PATIENT: Timing = Timing { lease: Duration::from_secs(120), ..TIMING };

/// Postgres refuses exactly the commit: the pair is in the journal and nowhere else.
const REFUSE: &str = "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
                      create trigger refuse before update of access_token on chains for each row execute function refuse();";

/// What was unwrapped is not remembered.
const KEPT: Duration = Duration::from_secs(1);

async fn with(app: &mut TestApp, list: String) {
    app.stop().await;
    app.change(move |settings| {
        settings.database.master_keys = listed(&list);
        settings.database.keys_kept = KEPT;
        settings.timing = PATIENT;
    });
    app.start_again().await;
}

/// A pair that is in the journal and nowhere else.
async fn left_waiting(app: &TestApp, name: &str) {
    let asked = app.admin.refresh(name, json!({"max_age": 0})).await.expect(200);
    assert_eq!(asked.json["warnings"], json!(["refresh-pending"]));
}

/// The broker loses the connection on which it listens, as when Postgres was away for a moment.
async fn reconnect(app: &TestApp) {
    // It was told to listen, and is asked now and then whether it still works.
    let listens = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and (query ilike 'listen%' or query = 'select 1')";
    assert!(app.database.count(listens).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_whose_key_service_is_away_waits_and_blocks_no_other() {
    let transit = FakeTransit::start().await;
    let mut app = TestApp::start().await;
    for name in ["theirs", "ours"] {
        app.register_with(name, json!({"reuse_for": 1})).await.expect(201);
    }
    app.database.run(REFUSE).await;
    let here = app.master_keys.clone();
    // The data key is wrapped here, the older entry there.
    with(&mut app, format!("{},{here}", transit.entry("bao"))).await;
    left_waiting(&app, "theirs").await;
    with(&mut app, format!("{here},{}", transit.entry("bao"))).await;
    left_waiting(&app, "ours").await;
    until_pending(app.journal.path(), 2).await;

    transit.behave(Behaving::Away);
    tokio::time::sleep(KEPT * 2).await;
    app.database.run("drop trigger refuse on chains").await;
    reconnect(&app).await;
    app.token_until("ours", "committed", |token| token["generation"] == 2).await;
    assert_eq!(app.admin.get("/tokens/theirs").await.expect(200).json["generation"], 1);
    until_pending(app.journal.path(), 1).await;
    assert_eq!(set_aside(app.journal.path()), 0);

    transit.behave(Behaving::Well);
    app.token_until("theirs", "committed", |token| token["generation"] == 2).await;
    let handed = app.ci.refresh("theirs", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    until_pending(app.journal.path(), 0).await;
    assert_eq!(app.simulator.refreshes(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_younger_pair_is_not_taken_for_a_stray_while_an_older_one_waits_for_its_key_service() {
    let transit = FakeTransit::start().await;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    let here = app.master_keys.clone();
    with(&mut app, format!("{},{here}", transit.entry("bao"))).await;
    app.database.run("create table kept_chains as select * from chains; create table kept_tokens as select * from tokens").await;
    let rotate = async |app: &TestApp| app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    rotate(&app).await;
    with(&mut app, format!("{here},{}", transit.entry("bao"))).await;
    rotate(&app).await;
    // Of the chain that was rotated first.
    app.database.run(REFUSE).await;
    left_waiting(&app, "deploy").await;
    let made = app.alive();

    transit.behave(Behaving::Away);
    tokio::time::sleep(KEPT * 2).await;
    // A failover loses all three.
    app.database
        .run(
            "drop trigger refuse on chains;
             delete from tokens; insert into tokens select * from kept_tokens; insert into chains select * from kept_chains;
             drop table kept_chains, kept_tokens",
        )
        .await;
    reconnect(&app).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    until_pending(app.journal.path(), 1).await;
    assert_eq!((app.alive(), set_aside(app.journal.path())), (made.clone(), 0), "the youngest was given back");

    transit.behave(Behaving::Well);
    app.token_until("deploy", "committed", |token| token["generation"] == 4).await;
    until_pending(app.journal.path(), 0).await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!(app.alive(), made);
}
