//! JFrog answers 401: one chain, or the user?

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route};

use crate::app::{TIMING, TestApp, jfrog::both_active};

/// Lets time pass in steps, and the background have its turn after each.
async fn half_hours(app: &TestApp, count: usize) {
    for _ in 0..count {
        app.let_pass(1_800).await;
        app.keep_alive_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_refused_for_hours_is_lost_with_a_reason_and_jfrog_is_not_hammered() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    assert!(app.simulator.disable("user-of-deploy"));
    // Rotation is due: its refusal is the first that is heard of it.
    app.let_pass(21_700).await;
    let before = app.simulator.calls().len();
    app.ci.refresh("deploy", json!({"wait": 1})).await.expect(200);
    half_hours(&app, 10).await;
    let doubted = app.admin.get("/tokens/deploy").await.json;
    assert_eq!((&doubted["status"], &doubted["last_error"]["kind"]), (&json!("active"), &json!("jfrog-unauthenticated")));
    half_hours(&app, 4).await;
    let lost = app.admin.get("/tokens/deploy").await.json;
    assert_eq!((&lost["status"], &lost["last_error"]["kind"]), (&json!("lost"), &json!("user-rejected")), "{lost:#}");
    app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    assert!(app.simulator.calls().len() - before < 20, "in seven hours: {}", app.simulator.calls().len() - before);
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'token.lost'").await, 1);
    half_hours(&app, 4).await;
    // What an earlier attempt left to be looked at may come only now.
    app.database
        .run("insert into jobs (kind, subject, due_at) select 'settle', id, now() from tokens on conflict do nothing")
        .await;
    app.database.until("not exists (select 1 from jobs where kind = 'settle')").await;
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'token.lost'").await, 1, "said once");
    assert_eq!(app.admin.get("/tokens/deploy").await.json["last_error"]["kind"], "user-rejected");

    app.simulator.enable("user-of-deploy");
    let identity_token = app.simulator.identity_token("user-of-deploy");
    app.admin.post("/tokens/deploy/recreate", json!({"identity_token": identity_token})).await.expect(200);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_refused_for_some_hours_and_then_let_in_again_loses_nothing() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.disable("user-of-deploy");
    app.let_pass(21_700).await;
    app.ci.refresh("deploy", json!({"wait": 1})).await.expect(200);
    half_hours(&app, 8).await;
    app.simulator.enable("user-of-deploy");
    half_hours(&app, 2).await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(handed.json["warnings"], json!([]), "{}", handed.text);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!(app.database.count("select rejections::bigint from tokens").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_revoked_at_jfrog_is_noticed_within_a_day_and_made_anew() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    let current = handed.json["token_id"].as_str().expect("an id").parse().expect("a UUID");
    assert!(app.simulator.revoke(current));
    for _ in 0..4 {
        app.let_pass(400).await;
        app.keep_alive_now().await;
    }
    let token = app.token_until("deploy", "healed", both_active).await;
    assert!(!token.to_string().contains(handed.json["token_id"].as_str().expect("an id")), "{token:#}");
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(now.access_token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_401_no_token_of_that_user_is_tried_for_five_minutes_whosever_it_is() {
    let app = TestApp::start().await;
    app.no_keep_alive().await;
    app.platform.post("/teams", json!({"name": "search"})).await.expect(201);
    let search = app.team_key("search", "admin", json!({"role": "admin"})).await;
    for (admin, name) in [(&app.admin, "one"), (&app.admin, "two"), (&search, "one")] {
        let identity_token = app.simulator.add_user("shared", false);
        admin.post("/tokens", json!({"name": name, "identity_token": identity_token})).await.expect(201);
    }
    let other = app.simulator.add_user("other", false);
    app.admin.post("/tokens", json!({"name": "of-another", "identity_token": other})).await.expect(201);
    app.no_keep_alive().await;
    app.simulator.disable("shared");
    app.let_pass(21_700).await;
    let before = app.asked_for_pairs();
    for (admin, name) in [(&app.admin, "one"), (&app.admin, "two"), (&search, "one"), (&app.admin, "one")] {
        let handed = admin.refresh(name, json!({})).await.expect(200);
        assert_eq!(handed.json["warnings"], json!(["jfrog-unavailable"]), "{name}");
    }
    assert_eq!(app.asked_for_pairs() - before, 1, "one bad credential in five minutes");
    assert_eq!(app.admin.refresh("of-another", json!({})).await.expect(200).json["refreshed"], true);
    app.let_pass(301).await;
    search.refresh("one", json!({})).await.expect(200);
    assert_eq!(app.asked_for_pairs() - before, 3);
    app.simulator.enable("shared");
    app.let_pass(301).await;
    for (admin, name) in [(&app.admin, "one"), (&app.admin, "two"), (&search, "one")] {
        assert_eq!(admin.refresh(name, json!({})).await.expect(200).json["refreshed"], true, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_not_made_anew_with_a_bad_credential_more_than_once_in_five_minutes() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.no_keep_alive().await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    app.simulator.disable("user-of-deploy");
    let before = app.asked_for_pairs();
    // Four leases.
    tokio::time::sleep(4 * TIMING.lease).await;
    assert_eq!(app.asked_for_pairs() - before, 1, "one bad credential in five minutes");
    app.simulator.enable("user-of-deploy");
    app.let_pass(301).await;
    app.database.run("update jobs set due_at = now() where kind = 'settle'").await;
    app.token_until("deploy", "healed", both_active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_heal_replaced_and_is_dead_does_not_lock_its_user_when_it_is_swept() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.simulator.knobs(|knobs| knobs.lock_user_after_bad_bearers = Some(3));
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    app.token_until("deploy", "healed", both_active).await;
    app.database.until("not exists (select 1 from chains where replaced_access_token is not null)").await;
    app.database.until("not exists (select 1 from jobs where kind in ('settle', 'sweep'))").await;
    for _ in 0..2 {
        let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(rotated.json["refreshed"], true, "{}", rotated.text);
    }
}
