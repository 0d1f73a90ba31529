//! `POST /tokens/{name}/refresh`, with a JFrog that works. When it does not: `refresh_troubled`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

/// Generation, whether it was refreshed, and the warnings.
fn came_to(answer: &Answer) -> (i64, bool, Vec<&str>) {
    let warnings = answer.json["warnings"].as_array().expect("warnings");
    let words = warnings.iter().map(|word| word.as_str().expect("a word")).collect();
    (answer.json["generation"].as_i64().expect("a number"), answer.json["refreshed"] == true, words)
}

#[tokio::test]
async fn a_fresh_token_is_handed_out_without_asking_jfrog() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let first = app.ci.refresh("deploy", json!({})).await.expect(200);
    let second = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(first.access_token(), second.access_token());
    assert!(app.simulator.is_alive(first.access_token()));
    assert_eq!(app.simulator.refreshes(), 0);
    insta::assert_json_snapshot!(second.shown());
}

#[tokio::test]
async fn a_stale_token_is_rotated_once_and_the_older_chain_is_the_one() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(21_620).await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&after.json["refreshed"], &after.json["generation"]), (&json!(true), &json!(2)));
    assert_ne!(before.access_token(), after.access_token());
    // The simulator kills the old access token of the rotated chain at once: it was not the one that was handed out.
    assert!(app.simulator.is_alive(before.access_token()), "a refresh never breaks a running job");
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn a_ci_callers_small_max_age_is_raised_with_a_warning() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(3_600).await;
    for max_age in [0, 1, 21_599] {
        let answer = app.ci.refresh("deploy", json!({"max_age": max_age})).await.expect(200);
        assert_eq!(came_to(&answer), (1, false, vec!["max-age-raised"]), "{max_age}");
    }
    let answer = app.ci.refresh("deploy", json!({"max_age": 21_600})).await.expect(200);
    assert_eq!(came_to(&answer), (1, false, vec![]));
    assert_eq!(app.simulator.refreshes(), 0);
}

#[tokio::test]
async fn a_larger_max_age_takes_an_older_token() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(30_000).await;
    let old = app.ci.refresh("deploy", json!({"max_age": 40_000})).await.expect(200);
    assert_eq!(came_to(&old), (1, false, vec![]));
    let new = app.ci.refresh("deploy", json!({"max_age": 29_000})).await.expect(200);
    assert_eq!(came_to(&new), (2, true, vec![]));
}

#[tokio::test]
async fn an_admins_max_age_is_obeyed_and_zero_means_now() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(100).await;
    let kept = app.admin.refresh("deploy", json!({"max_age": 200})).await.expect(200);
    assert_eq!(came_to(&kept), (1, false, vec![]));
    let rotated = app.admin.refresh("deploy", json!({"max_age": 50})).await.expect(200);
    assert_eq!(came_to(&rotated), (2, true, vec![]));
    for generation in 3..6 {
        let now = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(came_to(&now), (generation, true, vec![]));
    }
    assert_eq!(app.simulator.refreshes(), 4);
    let shared = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(came_to(&shared), (5, false, vec![]));
}

#[tokio::test]
async fn the_two_chains_take_turns() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let mut handed = Vec::new();
    for _ in 0..6 {
        app.let_pass(21_620).await;
        handed.push(app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned());
        let lives: Vec<bool> = handed.iter().rev().map(|token| app.simulator.is_alive(token)).collect();
        assert!(lives.iter().take(2).all(|alive| *alive), "the last two work: {lives:?}");
        assert!(lives.iter().skip(2).all(|alive| !*alive), "{lives:?}");
    }
}

#[tokio::test]
async fn min_ttl_warns_and_rotates_nothing_early() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 86_400})).await.expect(201);
    let answer = app.ci.refresh("deploy", json!({"min_ttl": 90_000})).await.expect(200);
    assert_eq!(came_to(&answer), (1, false, vec!["short-lived"]));
    let both = app.ci.refresh("deploy", json!({"min_ttl": 90_000, "max_age": 0})).await.expect(200);
    assert_eq!(came_to(&both), (1, false, vec!["max-age-raised", "short-lived"]));
    assert_eq!(app.simulator.refreshes(), 0);
    // Once what was handed out has had its time, it rotates.
    app.let_pass(21_620).await;
    let answer = app.ci.refresh("deploy", json!({"min_ttl": 80_000})).await.expect(200);
    assert_eq!(came_to(&answer), (2, true, vec![]));
}

#[tokio::test]
async fn the_access_token_alone_is_handed_out_as_plain_text() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let token = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    let plain = app.ci.request(Method::POST, "/tokens/deploy/refresh").header("accept", "text/plain");
    let answer = Answer::of(plain).await.expect(200);
    assert_eq!(answer.text, token, "no line break: it goes into a variable as it is");
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert_eq!(answer.header("cache-control"), "no-store");
    // Errors are problems for everyone.
    let plain = app.ci.request(Method::POST, "/tokens/absent/refresh").header("accept", "text/plain");
    Answer::of(plain).await.refused(404, "not-found");
    for accept in ["application/json", "*/*", "application/json, text/plain;q=0.5"] {
        let json = app.ci.request(Method::POST, "/tokens/deploy/refresh").header("accept", accept);
        assert_eq!(Answer::of(json).await.expect(200).access_token(), token, "{accept}");
    }
}

#[tokio::test]
async fn a_reference_token_comes_where_the_registration_asks_for_it() {
    let app = TestApp::start().await;
    app.register("plain").await;
    assert_eq!(app.ci.refresh("plain", json!({})).await.expect(200).json["reference_token"], json!(null));
    app.register_with("deploy", json!({"include_reference_token": true})).await.expect(201);
    for _ in 0..2 {
        let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
        let reference = answer.json["reference_token"].as_str().expect("a reference token");
        assert!(reference.len() == 64 && app.simulator.is_alive(reference));
        // It is not carried over by JFrog: asked for at each rotation.
        app.let_pass(21_620).await;
    }
}

#[tokio::test]
async fn a_single_chain_is_rotated_in_place() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"chains": 1})).await.expect(201);
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(21_620).await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(came_to(&after), (2, true, vec![]));
    assert!(app.simulator.is_alive(after.access_token()));
    assert!(!app.simulator.is_alive(before.access_token()), "this is the weaker promise");
}

#[tokio::test]
async fn an_expired_token_is_rotated_inside_jfrogs_window_and_past_it_too() {
    for window in [86_400, 0] {
        let app = TestApp::start().await;
        app.simulator.knobs(|knobs| knobs.refresh_window_seconds = window);
        app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
        app.no_keep_alive().await;
        app.let_pass(1_000).await;
        app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        // Chain a is past its end now, b is not: b's access token vouches for the user.
        app.let_pass(2_700).await;
        let answer = app.ci.refresh("deploy", json!({})).await.expect(200);
        assert_eq!(came_to(&answer), (3, true, vec![]), "window {window}");
        assert!(app.simulator.is_alive(answer.access_token()));
    }
}

#[tokio::test]
async fn a_reuse_for_of_zero_rotates_once_for_each_call() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 0})).await.expect(201);
    for generation in 2..5 {
        let answer = app.ci.refresh("deploy", json!({"wait": 2})).await.expect(200);
        assert_eq!(came_to(&answer), (generation, true, vec![]));
    }
    assert_eq!(app.simulator.refreshes(), 3);
}

#[tokio::test]
async fn a_max_age_shorter_than_jfrog_takes_rotates_once() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(100).await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 1_200);
    let answer = app.admin.refresh("deploy", json!({"max_age": 1, "wait": 6})).await.expect(200);
    assert_eq!(came_to(&answer), (2, true, vec![]));
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn a_lifetime_too_short_to_promise_anything_rotates_once_for_each_call() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 60})).await.expect(201);
    app.ci.refresh("deploy", json!({"wait": 2, "min_ttl": 10})).await.expect(200);
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn no_answer_ever_holds_a_refresh_token() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"include_reference_token": true})).await.expect(201);
    app.let_pass(21_620).await;
    let answers = [
        app.ci.refresh("deploy", json!({})).await.expect(200),
        app.admin.get("/tokens/deploy").await.expect(200),
        app.admin.get("/tokens").await.expect(200),
        app.admin.patch("/tokens/deploy", json!({})).await.expect(200),
    ];
    let refresh_tokens: Vec<String> =
        app.simulator.secrets().into_iter().filter(|secret| uuid::Uuid::parse_str(secret).is_ok()).collect();
    assert!(refresh_tokens.len() >= 3, "the simulator knows them");
    for answer in answers {
        assert!(refresh_tokens.iter().all(|secret| !answer.text.contains(secret)), "{}", answer.text);
        assert_eq!(answer.json.get("refresh_token"), None::<&Value>);
    }
}

#[tokio::test]
async fn a_min_ttl_that_no_token_has_rotates_at_most_once() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 0, "expires_in": 3600})).await.expect(201);
    let answer = app.ci.refresh("deploy", json!({"min_ttl": 1_000_000, "wait": 3})).await.expect(200);
    assert_eq!(answer.json["warnings"], json!(["short-lived"]));
    assert_eq!(app.simulator.refreshes(), 1);
}

#[tokio::test]
async fn who_has_given_up_waiting_is_not_said_to_have_been_handed_what_came_later() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 300);
    let before = app.admin.refresh("deploy", json!({"max_age": 0, "wait": 0})).await.expect(200);
    assert_eq!((&before.json["generation"], &before.json["warnings"]), (&json!(1), &json!(["refresh-pending"])));
    app.token_until("deploy", "rotated", |token| token["generation"] == 2).await;
    let handed = "select string_agg(generation::text, ',') from audit_events where action = 'token.hand_out'";
    assert_eq!(app.database.text(handed).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_with_a_key_that_is_deleted_meanwhile_is_handed_nothing() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let gone = app.team_key("payments", "gone", json!({"role": "admin"})).await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 1_800);
    let waiting = tokio::spawn(async move { gone.refresh("deploy", json!({"max_age": 0})).await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    app.admin.delete("/teams/payments/keys/gone").await.expect(204);
    waiting.await.expect("an answer").expect(401);
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'token.hand_out'").await, 0);
}
