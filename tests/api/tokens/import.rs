//! `POST /tokens/import`.

use reqwest::Method;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, OldAccessToken, Route};

use crate::app::{Answer, Client, TestApp, jfrog::chain_ids};

fn pasting(pair: &Value) -> Value {
    json!({"name": "deploy", "access_token": pair["access_token"], "refresh_token": pair["refresh_token"]})
}

/// What JFrog says to whoever still uses the pasted refresh token.
async fn refreshed_by_hand(app: &TestApp, pair: &Value, bearer: &str) -> Answer {
    let person = Client::at(&app.simulator.url(), bearer.to_owned());
    let form = [("grant_type", "refresh_token"), ("refresh_token", pair["refresh_token"].as_str().expect("a pair"))];
    Answer::of(person.request(Method::POST, "/access/api/v1/tokens").form(&form)).await
}

#[tokio::test]
async fn an_adopted_pair_gets_a_second_chain_and_what_was_pasted_is_dead() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    let made = app.admin.post("/tokens/import", pasting(&pair)).await.expect(201);
    insta::assert_json_snapshot!(made.shown());
    assert_eq!(app.alive(), chain_ids(&made.json));
    assert!(!app.simulator.is_alive(pair["access_token"].as_str().expect("a token")));
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    refreshed_by_hand(&app, &pair, handed.access_token()).await.expect(404);
    let dump = app.database.dump().await;
    for word in ["access_token", "refresh_token"] {
        assert!(!dump.contains(pair[word].as_str().expect("a pair")), "{word}");
    }
}

#[tokio::test]
async fn an_adopted_chain_is_made_anew_with_our_marker_when_its_turn_comes() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    let mut body = pasting(&pair);
    body["reuse_for"] = json!(1);
    app.admin.post("/tokens/import", body).await.expect(201);
    let without_marker = |app: &TestApp| {
        let alive = app.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity);
        alive.filter(|token| !token.description.contains("tb:")).count()
    };
    assert_eq!(without_marker(&app), 1);
    let refreshes = app.simulator.refreshes();
    for _ in 0..2 {
        assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    }
    // The one that had no marker was not refreshed, and is revoked when its holders had their time.
    assert_eq!(app.simulator.refreshes(), refreshes + 1);
    for _ in 0..100 {
        if without_marker(&app) == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let token = app.admin.get("/tokens/deploy").await.json;
    assert_eq!((without_marker(&app), app.alive()), (0, chain_ids(&token)));
}

#[tokio::test]
async fn an_adopted_pair_can_live_on_one_chain() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    let mut body = pasting(&pair);
    body["chains"] = json!(1);
    let made = app.admin.post("/tokens/import", body).await.expect(201);
    assert_eq!((chain_ids(&made.json).len(), app.alive()), (1, chain_ids(&made.json)));
    refreshed_by_hand(&app, &pair, app.ci.refresh("deploy", json!({})).await.access_token()).await.expect(404);
}

#[tokio::test]
async fn an_access_token_that_jfrog_refuses_is_told_and_nothing_is_registered() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    let mut body = pasting(&pair);
    body["access_token"] = json!("not-a-token");
    let answer = app.admin.post("/tokens/import", body).await.refused(422, "identity-token-rejected");
    assert!(answer.detail().contains("Invalid token, parse"), "{}", answer.text);
    app.admin.get("/tokens/deploy").await.expect(404);
    assert_eq!(app.alive(), [pair["token_id"].as_str().expect("an id")], "the person's own pair is untouched");
    app.admin.post("/tokens/import", pasting(&pair)).await.expect(201);
}

#[tokio::test]
async fn a_used_refresh_token_is_told_and_nothing_of_ours_stays_alive() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.old_access_token = OldAccessToken::Valid);
    let pair = app.pair_made_by_hand("person").await;
    let newer = refreshed_by_hand(&app, &pair, pair["access_token"].as_str().expect("a token")).await.expect(200).json;
    let before = app.alive();
    let answer = app.admin.post("/tokens/import", pasting(&pair)).await.refused(422, "not-refreshable");
    insta::assert_json_snapshot!(answer.shown());
    assert_eq!(app.alive(), before);
    for table in ["tokens", "chains", "attempts", "jobs where kind <> 'close-audit'"] {
        assert_eq!(app.database.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    app.admin.post("/tokens/import", pasting(&newer)).await.expect(201);
}

#[tokio::test]
async fn the_refresh_token_of_another_user_is_refused_and_stays_theirs() {
    let app = TestApp::start().await;
    let (one, other) = (app.pair_made_by_hand("one").await, app.pair_made_by_hand("other").await);
    let before = app.alive();
    let body = json!({"name": "deploy", "access_token": one["access_token"], "refresh_token": other["refresh_token"]});
    app.admin.post("/tokens/import", body).await.refused(422, "scope-refused");
    assert_eq!(app.alive(), before);
    refreshed_by_hand(&app, &other, other["access_token"].as_str().expect("a token")).await.expect(200);
}

#[tokio::test]
async fn credentials_that_cannot_be_any_are_named() {
    let app = TestApp::start().await;
    for (field, bad) in [
        ("access_token", ""),
        ("refresh_token", ""),
        ("refresh_token", "a b"),
        ("access_token", "a\r\nb"),
        ("refresh_token", "ü"),
    ] {
        let mut body = json!({"name": "deploy", "access_token": "x", "refresh_token": "y"});
        body[field] = json!(bad);
        assert_eq!(app.admin.post("/tokens/import", body).await.refused(422, "invalid-request").fields(), [field]);
    }
    assert_eq!(app.simulator.calls().len(), 0);
}

#[tokio::test]
async fn a_rotation_whose_answer_is_lost_is_healed_from_the_second_chain() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.post("/tokens/import", pasting(&pair)).await.expect(201);
    let whole =
        |token: &Value| token["chains"].as_array().is_some_and(|chains| chains.iter().all(|chain| chain["status"] == "active"));
    app.token_until("deploy", "whole", whole).await;
    assert!(!app.simulator.is_alive(pair["access_token"].as_str().expect("a token")));
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_rate_limit_at_the_rotation_gives_the_import_up_cleanly() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    app.once(Fault::RateLimited { retry_after: Some("1".into()) }, Route::Refresh);
    let answer = app.admin.post("/tokens/import", pasting(&pair)).await.refused(503, "jfrog-unavailable");
    assert_eq!(answer.retry_after(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(app.alive(), [pair["token_id"].as_str().expect("an id")]);
    app.admin.post("/tokens/import", pasting(&pair)).await.expect(201);
}

#[tokio::test]
async fn a_jfrog_that_is_down_leaves_the_pasted_pair_with_its_owner() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    app.simulator.stop().await;
    app.admin.post("/tokens/import", pasting(&pair)).await.refused(503, "jfrog-unavailable");
}
