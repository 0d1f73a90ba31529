//! A replica that is frozen beyond its lease, with an answer of JFrog's on its way.

use std::time::Duration;

use serde_json::{Value, json};
use token_broker::dev::simulator::{OldAccessToken, Route};

use crate::app::{Client, TestApp, jfrog::chain_ids, process::Replica};

/// Long enough to be frozen in.
const LATENCY_MS: u64 = 700;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_frozen_beyond_its_lease_and_wakes_up_with_an_answer_harms_nothing() {
    let mut app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.old_access_token = OldAccessToken::Revoked);
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    let mut before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.stop().await;
    let journals = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let (frozen, awake) =
        tokio::join!(Replica::start(&app, journals[0].path(), "info"), Replica::start(&app, journals[1].path(), "info"));
    let (asker, admin) = (frozen.client(&app.admin), awake.client(&app.admin));

    let asked = loop {
        let answered = app.simulator.refreshes();
        app.simulator.knobs(|knobs| knobs.latency_ms = LATENCY_MS);
        let asker = asker.clone();
        let asked = tokio::spawn(async move { asker.refresh("deploy", json!({"max_age": 0, "wait": 30})).await });
        // Its request is on its way: JFrog answers to a socket that nobody reads.
        let heard = async || app.simulator.refreshes_in_flight() == 1 || app.simulator.refreshes() > answered;
        until("JFrog has heard of it", heard).await;
        frozen.freeze();
        let in_time = app.simulator.refreshes() == answered;
        until("JFrog has answered", async || app.simulator.refreshes() == answered + 1).await;
        app.simulator.knobs(|knobs| knobs.latency_ms = 0);
        if in_time {
            break asked;
        }
        // This machine was so busy that the answer may have been read before: again.
        frozen.thaw();
        before = asked.await.expect("an answer").expect(200);
    };
    let spent = app.simulator.refreshes();
    let healed = admin.refresh("deploy", json!({"max_age": 0, "wait": 20})).await.expect(200);
    // The worker may have been faster: then it is handed out without waiting.
    assert_eq!(app.simulator.refreshes(), spent, "healed, not rotated: {}", healed.text);
    assert!(app.simulator.is_alive(before.access_token()) && app.simulator.is_alive(healed.access_token()));

    frozen.thaw();
    let woken = asked.await.expect("an answer").expect(200);
    assert_eq!(woken.access_token(), healed.access_token(), "who asked there is handed what is current");
    for token in [&before, &healed] {
        assert!(app.simulator.is_alive(token.access_token()), "what was handed out died");
    }
    let token = at_rest(&app, &admin).await;
    assert!(token["chains"].as_array().expect("chains").iter().all(|chain| chain["status"] == "active"), "{token:#}");
    for client in [&admin, &frozen.client(&app.admin)] {
        let current = client.refresh("deploy", json!({"max_age": 3600})).await.expect(200);
        let rotated = client.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(rotated.json["refreshed"], true, "{}", rotated.text);
        assert!(app.simulator.is_alive(current.access_token()) && app.simulator.is_alive(rotated.access_token()));
    }
    assert!(
        app.simulator.calls().iter().all(|call| call.route != Route::Refresh || call.committed),
        "one was sent that was spent"
    );
}

/// The token, once nothing lives at JFrog but its chains.
async fn at_rest(app: &TestApp, admin: &Client) -> Value {
    until("no orphan is left", async || {
        let token = admin.get("/tokens/deploy").await.expect(200).json;
        let busy = "select (select count(*) from attempts) + (select count(*) from jobs where kind in ('settle', 'sweep'))";
        app.alive() == chain_ids(&token) && app.database.count(busy).await == 0
    })
    .await;
    admin.get("/tokens/deploy").await.json
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came: {what}");
}
