//! A replica is away for long, with a pair in its journal that nobody else knows of.

use std::time::Duration;

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{TestApp, journal::until_pending, process::Replica};

/// The pair gets no further than the journal, as when the process dies there.
const REFUSE_TO_COMMIT: &str = "
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
    create trigger refuse before update of access_token on chains for each row execute function refuse();";

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_pair_whose_replica_was_away_so_long_that_it_was_swept_takes_nobodys_place() {
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.database.run(REFUSE_TO_COMMIT).await;
    let identity_token = app.simulator.identity_token("user-of-deploy");
    app.admin.post("/tokens/deploy/recreate", json!({"identity_token": identity_token})).await.expect(500);
    // The journal has it, Postgres has not.
    until_pending(app.journal.path(), 1).await;
    app.stop().await;
    app.database.run("drop trigger refuse on chains").await;

    // The other replica goes on; to it, nobody holds that pair.
    assert_eq!(app.alive().len(), 3, "two chains and the one in the journal");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut other = Replica::start(&app, elsewhere.path(), "info").await;
    for _ in 0..100 {
        app.let_pass(3600).await;
        if app.alive().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(app.alive().len(), 2, "{}", other.log());
    other.kill();

    app.start_again().await;
    until_pending(app.journal.path(), 0).await;
    let token = app.token_until("deploy", "active", |token| token["chains"][1]["status"] == "active").await;
    assert_eq!((&token["chains"][0]["status"], &token["status"]), (&json!("active"), &json!("active")));
    for _ in 0..2 {
        let handed = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(handed.json["refreshed"], true, "{}", handed.text);
        assert!(app.simulator.is_alive(handed.access_token()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pair_that_was_made_for_a_missing_chain_is_not_swept_while_somebody_may_have_it() {
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.database.run("update chains set state = 'lost' where letter = 'a'").await;
    app.database.run(REFUSE_TO_COMMIT).await;
    app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    // The journal has it, Postgres has not.
    until_pending(app.journal.path(), 1).await;
    app.stop().await;
    app.database.run("drop trigger refuse on chains").await;
    let made = app.alive();
    assert_eq!(made.len(), 3, "two chains and the one in the journal");

    // The other replica cannot make the chain, for JFrog refuses for now; but it looks for orphans.
    app.simulator.fault(Rule::once(Fault::Forbidden, Route::Create));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut other = Replica::start(&app, elsewhere.path(), "info").await;
    let listings = || app.simulator.counters().get(&Route::List).map_or(0, |counter| counter.calls);
    let before = listings();
    for _ in 0..100 {
        if listings() >= before + 3 || app.alive().len() < 3 {
            break;
        }
        app.let_pass(5).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(app.alive(), made, "{}", other.log());
    assert!(listings() >= before + 3, "it did look: {}", other.log());
    other.kill();

    app.start_again().await;
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!(token["chains"][0]["status"], "active", "committed from the journal: {token:#}");
    let handed = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
}
