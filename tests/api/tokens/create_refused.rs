//! `POST /tokens`, when it is refused for good: then nothing is registered, nothing lives at JFrog, and the name is free.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route, Simulator};

use crate::app::{Answer, TestApp, any_port, jfrog::chain_ids};

/// After the refusal the same name can be registered.
async fn is_free_again(app: &TestApp, name: &str) {
    app.nothing_is_left_of(name).await;
    let token = app.register(name).await;
    assert_eq!(app.alive(), chain_ids(&token));
}

async fn refused(app: &TestApp, more: Value, status: u16, slug: &str) -> Answer {
    let answer = app.register_with("deploy", more).await.refused(status, slug);
    app.nothing_is_left_of("deploy").await;
    answer
}

#[tokio::test]
async fn a_name_in_use_is_taken() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let answer = app.register_with("deploy", json!({})).await.refused(409, "name-taken");
    insta::assert_json_snapshot!(answer.shown());
    let import = json!({"name": "deploy", "access_token": "x", "refresh_token": "y"});
    app.admin.post("/tokens/import", import).await.refused(409, "name-taken");
}

#[tokio::test]
async fn an_identity_token_that_jfrog_refuses_is_told_in_jfrogs_words() {
    let app = TestApp::start().await;
    let answer = refused(&app, json!({"identity_token": "not-a-token"}), 422, "identity-token-rejected").await;
    insta::assert_json_snapshot!(answer.shown());

    let disabled = app.simulator.add_user("gone", false);
    app.simulator.disable("gone");
    let answer = refused(&app, json!({"identity_token": disabled}), 422, "identity-token-rejected").await;
    assert!(answer.detail().contains("User is disabled"), "{}", answer.text);
    assert!(!answer.text.contains(&disabled));
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_jfrog_that_gives_no_refresh_token_is_told_with_the_setting_to_look_at() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.allow_refreshable = false);
    let answer = refused(&app, json!({}), 422, "not-refreshable").await;
    assert!(answer.detail().contains("allow-refreshable"), "{}", answer.text);
    insta::assert_json_snapshot!(answer.shown());
    app.simulator.knobs(|knobs| knobs.allow_refreshable = true);
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_scope_wider_than_the_users_is_refused() {
    let app = TestApp::start().await;
    let answer = refused(&app, json!({"scope": "applied-permissions/admin"}), 422, "scope-refused").await;
    insta::assert_json_snapshot!(answer.shown());
    refused(&app, json!({"scope": "applied-permissions/groups:not-mine"}), 422, "scope-refused").await;
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_scope_that_jfrog_does_not_know_is_told_in_jfrogs_words() {
    let app = TestApp::start().await;
    let answer = refused(&app, json!({"scope": "no-such/scope"}), 422, "invalid-request").await;
    assert!(answer.detail().contains("Invalid scope"), "{}", answer.text);
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_lifetime_above_jfrogs_maximum_is_refused() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.max_expiry_seconds = Some(3600));
    for expires_in in [3601, 0] {
        let answer = refused(&app, json!({"expires_in": expires_in}), 422, "scope-refused").await;
        assert!(answer.detail().contains("expires_in"), "it names what it may be: {}", answer.text);
    }
    app.register_with("deploy", json!({"expires_in": 3600})).await.expect(201);
}

#[tokio::test]
async fn a_rate_limit_is_passed_on_with_jfrogs_wait_or_one_of_our_own() {
    let app = TestApp::start().await;
    app.once(Fault::RateLimited { retry_after: None }, Route::Create);
    assert!((1..=60).contains(&refused(&app, json!({}), 503, "jfrog-unavailable").await.retry_after()));
    app.once(Fault::RateLimited { retry_after: Some("Wed, 21 Oct 2015 07:28:00 GMT".into()) }, Route::Create);
    assert_eq!(refused(&app, json!({}), 503, "jfrog-unavailable").await.retry_after(), 1);
    app.once(Fault::RateLimited { retry_after: Some("2".into()) }, Route::Create);
    assert_eq!(refused(&app, json!({}), 503, "jfrog-unavailable").await.retry_after(), 2);
    // As long as it asked, JFrog is left alone.
    let asked = app.asked_for_pairs();
    refused(&app, json!({}), 503, "jfrog-unavailable").await;
    assert_eq!(app.asked_for_pairs(), asked);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_jfrog_that_is_down_costs_nothing() {
    let app = TestApp::start().await;
    app.simulator.stop().await;
    let answer = app.register_with("deploy", json!({})).await.refused(503, "jfrog-unavailable");
    insta::assert_json_snapshot!(answer.shown());
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let app = TestApp::start().await;
    let thief = Simulator::start(any_port(), None).await.expect("starts");
    for path in ["/access/api/v1/tokens", "/"] {
        app.once(Fault::Redirect { location: format!("{}{path}", thief.url()) }, Route::Create);
        refused(&app, json!({}), 503, "jfrog-unavailable").await;
    }
    assert_eq!(thief.calls().len(), 0, "the identity token went nowhere else");
    is_free_again(&app, "deploy").await;
}

#[tokio::test]
async fn a_bearer_that_jfrog_refuses_is_shown_to_it_once() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.lock_user_after_bad_bearers = Some(3));
    let user = app.simulator.add_user("someone", false);
    app.once(Fault::Unauthorized, Route::Create);
    refused(&app, json!({"identity_token": user}), 422, "identity-token-rejected").await;
    assert_eq!(app.simulator.counters()[&Route::Create].calls, 1, "JFrog locks users for repeated bad credentials");
}

#[tokio::test]
async fn a_refusal_shows_no_part_of_the_identity_token_anywhere() {
    let app = TestApp::start().await;
    let identity = app.simulator.add_user("gone", false);
    app.simulator.disable("gone");
    let answer = refused(&app, json!({"identity_token": identity}), 422, "identity-token-rejected").await;
    let signature = identity.rsplit('.').next().expect("a JWT");
    assert!(!answer.text.contains(signature));
    assert!(!app.database.dump().await.contains(signature));
}
