//! `POST /tokens/{name}/refresh` while JFrog is away, slow, or says no.

use std::time::{Duration, Instant};

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{TestApp, jfrog::chain_ids};

#[tokio::test]
async fn a_current_token_that_is_still_good_bridges_jfrogs_absence() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(21_620).await;
    app.simulator.stop().await;
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&answer.json["refreshed"], &answer.json["warnings"]), (&json!(false), &json!(["jfrog-unavailable"])));
    assert_eq!(answer.access_token(), before.access_token());
    let shown = app.admin.get("/tokens/deploy").await.expect(200);
    assert_eq!((&shown.json["status"], &shown.json["last_error"]["kind"]), (&json!("active"), &json!("jfrog-unavailable")));
}

#[tokio::test]
async fn an_expired_token_without_jfrog_is_a_503() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    app.let_pass(3_700).await;
    app.simulator.stop().await;
    let answer = app.ci.refresh("deploy", json!({})).await.refused(503, "jfrog-unavailable");
    insta::assert_json_snapshot!(answer.shown());
}

#[tokio::test]
async fn jfrogs_refusals_bridge_too_and_are_for_admins_alone() {
    for (fault, kind) in [
        (Fault::RateLimited { retry_after: Some("1".into()) }, "jfrog-rate-limited"),
        (Fault::Forbidden, "jfrog-forbidden"),
        (Fault::Redirect { location: "http://127.0.0.1:9/".into() }, "jfrog-refused"),
    ] {
        let app = TestApp::start().await;
        app.register("deploy").await;
        app.let_pass(21_620).await;
        app.simulator.fault(Rule::always(fault.clone()));
        let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
        assert_eq!(answer.json["warnings"], json!(["jfrog-unavailable"]), "{fault:?}");
        let seen = [app.admin.get("/tokens/deploy").await, app.viewer.get("/tokens/deploy").await];
        assert_eq!((&seen[0].json["last_error"]["kind"], &seen[0].json["status"]), (&json!(kind), &json!("active")));
        assert!(seen[0].json["last_error"]["detail"].is_string() && seen[1].json["last_error"]["detail"].is_null());
        app.simulator.clear_faults();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = app.ci.refresh("deploy", json!({})).await.expect(200);
        assert_eq!(
            (&after.json["refreshed"], &after.json["warnings"]),
            (&json!(true), &json!([])),
            "{fault:?}: nothing was lost"
        );
        assert_eq!(app.admin.get("/tokens/deploy").await.json["last_error"], json!(null));
    }
}

#[tokio::test]
async fn after_a_401_jfrog_is_left_alone_for_a_while() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.simulator.fault(Rule::always(Fault::Unauthorized));
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(answer.json["warnings"], json!(["jfrog-unavailable"]));
    let asked = app.asked_for_pairs();
    for _ in 0..5 {
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
    assert_eq!(app.asked_for_pairs(), asked, "JFrog locks users for repeated bad credentials");
    assert_eq!(app.admin.get("/tokens/deploy").await.json["last_error"]["kind"], "jfrog-unauthenticated");
    app.simulator.clear_faults();
    app.database.run("update tokens set last_error_at = last_error_at - interval '301 s'").await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&after.json["refreshed"], &after.json["warnings"]), (&json!(true), &json!([])), "nothing was lost");
}

#[tokio::test]
async fn jfrogs_own_wait_reaches_the_caller_when_nothing_good_is_left() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    app.let_pass(3_700).await;
    app.simulator.fault(Rule::always(Fault::RateLimited { retry_after: Some("17".into()) }));
    let answer = app.ci.refresh("deploy", json!({})).await.refused(503, "jfrog-unavailable");
    assert_eq!(answer.retry_after(), 17);
    assert!(!answer.detail().contains("Too Many"), "JFrog's words are not for pipelines: {}", answer.text);
}

#[tokio::test]
async fn who_does_not_wait_gets_the_current_token_and_the_rotation_goes_on() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.once(Fault::DelayBeforeCommit { ms: 700 }, Route::Refresh);
    let began = Instant::now();
    let answer = app.ci.refresh("deploy", json!({"wait": 0})).await.expect(200);
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    assert_eq!((&answer.json["refreshed"], &answer.json["warnings"]), (&json!(false), &json!(["refresh-pending"])));
    app.token_until("deploy", "rotated", |token| token["generation"] == 2).await;
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn who_does_not_wait_and_has_nothing_good_is_told_to_ask_again() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    app.let_pass(3_700).await;
    app.once(Fault::DelayBeforeCommit { ms: 700 }, Route::Refresh);
    app.ci.refresh("deploy", json!({"wait": 0})).await.refused(503, "refresh-pending");
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(answer.json["refreshed"], json!(true));
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_nothing() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.once(Fault::DelayBeforeCommit { ms: 500 }, Route::Refresh);
    let gone = tokio::time::timeout(Duration::from_millis(200), app.ci.refresh("deploy", json!({}))).await;
    assert!(gone.is_err(), "it was to be cut off");
    app.token_until("deploy", "rotated", |token| token["generation"] == 2).await;
}

#[tokio::test]
async fn a_lost_answer_leaves_the_current_token_and_is_healed() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 60})).await.expect(201);
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(70).await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(answer.json["warnings"], json!(["refresh-uncertain"]));
    assert_eq!(answer.access_token(), before.access_token());
    let seen = app.admin.get("/tokens/deploy").await.expect(200);
    assert_eq!((&seen.json["status"], &seen.json["chains"][0]["status"]), (&json!("active"), &json!("uncertain")));
    let whole = app.token_until("deploy", "whole", |token| token["chains"][0]["status"] == "active").await;
    assert_eq!(whole["generation"], json!(2));
    assert!(app.simulator.is_alive(before.access_token()), "a heal never breaks a running job");
    let healed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(healed.access_token()));
}

#[tokio::test]
async fn an_uncertain_single_chain_past_its_end_is_a_503() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"chains": 1, "expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    app.let_pass(3_700).await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    // Whoever asks after the one who met it is told the same.
    for _ in 0..2 {
        app.ci.refresh("deploy", json!({"wait": 1})).await.refused(503, "refresh-uncertain");
    }
    assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "uncertain");
}

#[tokio::test]
async fn a_chain_that_jfrog_forgot_is_made_anew_from_the_other() {
    let app = TestApp::start().await;
    let token = app.register("deploy").await;
    app.simulator.revoke(token["chains"][0]["token_id"].as_str().expect("an id").parse().expect("a UUID"));
    app.let_pass(21_620).await;
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&answer.json["refreshed"], &answer.json["warnings"]), (&json!(true), &json!([])));
    let after = app.admin.get("/tokens/deploy").await.expect(200);
    assert_eq!(app.alive(), chain_ids(&after.json));
}

#[tokio::test]
async fn a_lost_token_says_what_to_do() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.database.run("update chains set state = 'lost'").await;
    let answer = app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    insta::assert_json_snapshot!(answer.shown());
    assert_eq!(app.viewer.get("/tokens/deploy").await.json["status"], "lost");
    assert_eq!(app.simulator.refreshes(), 0, "nothing is spent in vain");
}

#[tokio::test]
async fn a_rotation_that_jfrog_answers_without_a_refresh_token_is_not_trusted() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(21_620).await;
    app.once(Fault::NoRefreshToken, Route::Refresh);
    let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((answer.access_token(), &answer.json["warnings"]), (before.access_token(), &json!(["refresh-uncertain"])));
    app.token_until("deploy", "whole", |token| token["chains"][0]["status"] == "active").await;
}

#[tokio::test]
async fn without_postgres_nothing_is_handed_out_and_nothing_spent() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
    let asked = app.asked_for_pairs();
    app.database.take_away().await;
    let body = json!({"name": "other", "identity_token": app.simulator.add_user("other", false)});
    for answer in [app.ci.refresh("deploy", json!({})).await, app.admin.post("/tokens", body).await] {
        answer.refused(503, "database-unavailable");
    }
    assert_eq!(app.asked_for_pairs(), asked);
}

#[tokio::test]
async fn an_absent_token_and_a_name_that_is_none_are_not_found() {
    let app = TestApp::start().await;
    for name in ["absent", "UPPER", "a%20b", "%2e%2e", &"x".repeat(64), "import"] {
        app.ci.refresh(name, json!({})).await.refused(404, "not-found");
    }
}
