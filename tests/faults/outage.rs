//! JFrog is away for longer than its access tokens live: its refresh tokens are not spent by that.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Filter, Route, Rule};

use crate::app::{TIMING, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_outlasts_every_access_token_loses_no_token() {
    let cases = [(2, Fault::Unavailable), (1, Fault::Unavailable), (2, Fault::BadGatewayHtml)];
    futures_util::future::join_all(cases.map(|(chains, fault)| outlasts_every_access_token(chains, fault))).await;
}

async fn outlasts_every_access_token(chains: u8, fault: Fault) {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600, "chains": chains})).await.expect(201);
    app.simulator.fault(Rule::always(fault.clone()));
    app.let_pass(2_000).await;
    app.keep_alive_now().await;
    tokio::time::sleep(TIMING.lease + TIMING.poll).await;
    app.let_pass(1_700).await;
    // Enough for every step of settling.
    for _ in 0..6 {
        app.keep_alive_now().await;
        tokio::time::sleep(TIMING.lease).await;
    }
    assert_eq!(app.simulator.refreshes(), 0, "nothing was ever spent");
    app.simulator.clear_faults();
    let whole = |token: &Value| token["chains"].as_array().is_some_and(|all| all.iter().all(|chain| chain["status"] == "active"));
    for _ in 0..15 {
        // As after each minute.
        app.database.run("update jobs set due_at = least(due_at, now()) where kind in ('settle', 'keep-alive')").await;
        tokio::time::sleep(TIMING.lease).await;
        if whole(&app.admin.get("/tokens/deploy").await.expect(200).json) {
            break;
        }
    }
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert!(whole(&token), "{chains} chains, {fault:?}: {token:#}");
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_chains_in_doubt_one_whose_bearer_is_refused_does_not_keep_the_other_from_being_settled() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.refresh_window_seconds = 0);
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    // JFrog lets nobody make a chain any more: once an answer is lost, the token lives on the other chain.
    app.simulator.fault(Rule { route: Filter::Only(Route::Create), ..Rule::always(Fault::Forbidden) });
    app.let_pass(1_800).await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    app.database.until("exists (select 1 from tokens where heal_after > now())").await;
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!(rotated.json["refreshed"], true, "{}", rotated.text);
    // The first one's old access token has expired; and the other's refresh never reaches JFrog.
    app.let_pass(1_900).await;
    app.once(Fault::DropBeforeCommit, Route::Refresh);
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(503);
    for _ in 0..6 {
        tokio::time::sleep(TIMING.lease).await;
        app.let_pass(301).await;
        app.database.run("update jobs set due_at = least(due_at, now()) where kind = 'settle'").await;
    }
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!((&token["status"], &token["chains"][1]["status"]), (&json!("active"), &json!("active")), "{token:#}");
}
