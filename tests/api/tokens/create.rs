//! `POST /tokens`, when it works, at once or in the end. What is refused is in `create_refused`.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route};

use crate::app::{Answer, TestApp, jfrog::chain_ids};

#[tokio::test]
async fn a_registration_makes_two_marked_chains_and_destroys_the_identity_token() {
    let app = TestApp::start().await;
    let more = json!({"description": "pushes images", "scope": "applied-permissions/user", "audience": "*@*",
                      "expires_in": 86_400, "include_reference_token": true, "reuse_for": 3600, "instance": "main"});
    let made = app.register_with("deploy", more).await.expect(201);
    insta::assert_json_snapshot!(made.shown());
    assert_eq!(app.alive(), chain_ids(&made.json), "both chains, and nothing else");

    let installation = app.database.text("select id::text from installation").await;
    let token = app.database.text("select id::text from tokens").await;
    let mut descriptions: Vec<String> =
        app.simulator.tokens().into_iter().filter(|token| !token.identity).map(|token| token.description).collect();
    descriptions.sort();
    assert_eq!(descriptions, ["a", "b"].map(|chain| format!("tb:{installation}:{token}:{chain} pushes images")));

    assert_eq!(app.database.count("select count(*) from tokens where identity_token is null").await, 1);
    assert_eq!(
        app.database.count("select count(*) from jobs where kind in ('settle', 'sweep')").await,
        0,
        "nothing is left to do"
    );
    let read = app.admin.get(made.header("location")).await.expect(200);
    assert_eq!(read.json, made.json);
}

#[tokio::test]
async fn on_one_chain_it_says_so() {
    let app = TestApp::start().await;
    let made = app.register_with("deploy", json!({"chains": 1})).await.expect(201);
    assert_eq!((made.json["chains"].as_array().expect("chains").len(), &made.json["status"]), (1, &json!("active")));
    assert_eq!(app.alive(), chain_ids(&made.json));
}

#[tokio::test]
async fn a_token_that_never_expires_has_no_expiry() {
    let app = TestApp::start().await;
    let made = app.register_with("deploy", json!({"expires_in": 0})).await.expect(201);
    assert_eq!((&made.json["expires_at"], &made.json["effective_reuse_for"]), (&json!(null), &json!(21_600)));
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&handed.json["expires_in"], &handed.json["expires_at"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn a_short_lifetime_bounds_what_can_be_promised() {
    let app = TestApp::start().await;
    let made = app.register_with("deploy", json!({"expires_in": 3660})).await.expect(201);
    assert_eq!((&made.json["reuse_for"], &made.json["effective_reuse_for"]), (&json!(21_600), &json!(1800)));
}

#[tokio::test]
async fn jfrogs_odd_answers_are_understood() {
    let app = TestApp::start().await;
    for (name, fault) in
        [("quoted", Fault::ExpiresInString), ("absent", Fault::ExpiresInAbsent), ("huge", Fault::HugeBody { bytes: 40_000 })]
    {
        app.once(fault, Route::Create);
        let made = app.register_with(name, json!({"expires_in": 86_400, "chains": 1})).await.expect(201);
        assert!(made.json["expires_at"].is_string(), "{name}: {}", made.text);
    }
    app.simulator.knobs(|knobs| knobs.success_status = 201);
    app.register("created").await;
}

async fn with_key(app: &TestApp, key: &str, body: &Value) -> Answer {
    Answer::of(app.admin.request(Method::POST, "/tokens").header("idempotency-key", key).json(body)).await
}

#[tokio::test]
async fn the_same_idempotency_key_gets_the_same_201_and_jfrog_is_not_asked_again() {
    let app = TestApp::start().await;
    let body =
        json!({"name": "deploy", "identity_token": app.simulator.add_user("one", false), "scope": "applied-permissions/user"});
    let first = with_key(&app, "register-1", &body).await.expect(201);
    let asked = app.asked_for_pairs();
    let again = with_key(&app, "register-1", &body).await.expect(201);
    assert_eq!((&again.json, again.header("location")), (&first.json, first.header("location")));
    assert_eq!(app.asked_for_pairs(), asked);
    // Another request under that key, and that request under another key.
    let mut other = body.clone();
    other["scope"] = json!("applied-permissions/groups:a");
    let answer = with_key(&app, "register-1", &other).await.refused(422, "invalid-request");
    assert_eq!(answer.fields(), ["Idempotency-Key"]);
    other["name"] = json!("another");
    with_key(&app, "register-1", &other).await.refused(422, "invalid-request");
    with_key(&app, "register-2", &body).await.refused(409, "name-taken");
    app.admin.post("/tokens", body).await.refused(409, "name-taken");
    assert_eq!(app.asked_for_pairs(), asked, "all of this was decided here");
}

#[tokio::test]
async fn an_idempotency_key_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let body = json!({"name": "deploy", "identity_token": app.simulator.add_user("one", false)});
    for key in ["", &"k".repeat(256), "ü"] {
        let answer = with_key(&app, key, &body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["Idempotency-Key"]);
    }
    with_key(&app, &"k".repeat(255), &body).await.expect(201);
}

#[tokio::test]
async fn of_many_at_once_one_registers_and_the_others_find_the_name_taken() {
    let app = TestApp::start().await;
    let answers = join_all((0..8).map(|_| app.register_with("deploy", json!({})))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    for answer in answers.into_iter().filter(|answer| answer.status == 409) {
        answer.refused(409, "name-taken");
    }
    assert_eq!(app.alive(), chain_ids(&app.admin.get("/tokens/deploy").await.json));
}

#[tokio::test]
async fn of_many_at_once_with_one_idempotency_key_one_registers_and_none_fails_for_good() {
    let app = TestApp::start().await;
    let body = json!({"name": "deploy", "identity_token": app.simulator.add_user("one", false)});
    let answers = join_all((0..8).map(|_| with_key(&app, "k", &body))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(made >= 1);
    for answer in answers {
        assert!([201, 409, 503].contains(&answer.status), "{}", answer.text);
    }
    let token = with_key(&app, "k", &body).await.expect(201).json;
    assert_eq!(app.alive(), chain_ids(&token), "one registration, no orphan");
}

#[tokio::test]
async fn a_second_chain_that_jfrog_refuses_leaves_a_token_on_one_chain_that_says_so() {
    let app = TestApp::start().await;
    app.second_time(Fault::Forbidden, Route::Create);
    let made = app.register_with("deploy", json!({})).await.expect(201);
    assert_eq!((&made.json["status"], &made.json["chains"][1]["status"]), (&json!("active"), &json!("lost")));
    assert_eq!(made.json["last_error"]["kind"], "jfrog-forbidden");
    assert_eq!(app.alive().len(), 1);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    let viewed = app.viewer.get("/tokens/deploy").await.expect(200);
    assert_eq!(viewed.json["last_error"]["detail"], json!(null), "JFrog's own words are for admins");
}

#[tokio::test]
async fn a_lost_answer_is_finished_in_the_background_without_an_orphan() {
    for (fault, which) in [
        (Fault::DropResponseAfterCommit, 1),
        (Fault::DropBeforeCommit, 1),
        (Fault::TruncatedJson, 1),
        (Fault::BadGatewayHtml, 1),
        (Fault::Unavailable, 1),
        (Fault::Html404, 1),
        (Fault::DelayAfterCommit { ms: 2_500 }, 1),
        (Fault::DropResponseAfterCommit, 2),
        (Fault::TruncatedJson, 2),
    ] {
        let app = TestApp::start().await;
        match which {
            1 => app.once(fault.clone(), Route::Create),
            _ => app.second_time(fault.clone(), Route::Create),
        }
        let answer = app.register_with("deploy", json!({})).await;
        if which == 1 {
            let answer = answer.refused(503, "jfrog-unavailable");
            assert!(answer.detail().contains("GET /tokens/{name}"), "it says how to go on: {}", answer.text);
            app.ci.refresh("deploy", json!({})).await.refused(409, "busy");
            app.register_with("deploy", json!({})).await.refused(409, "name-taken");
        }
        let whole = |token: &Value| token["status"] == "active" && token["chains"][1]["status"] == "active";
        let token = app.token_until("deploy", &format!("whole after {fault:?} at call {which}"), whole).await;
        // What nobody holds is looked for at once; an orphan of chain b only when the sweep is due.
        if which == 1 {
            assert_eq!(app.alive(), chain_ids(&token), "{fault:?}: exactly the registered chains live");
        }
        assert_eq!(app.database.count("select count(*) from tokens where identity_token is not null").await, 0, "{fault:?}");
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn the_orphan_of_a_second_chain_is_swept() {
    let app = TestApp::start().await;
    app.second_time(Fault::DropResponseAfterCommit, Route::Create);
    // Swept no sooner than `reuse_for` after it was issued.
    app.register_with("deploy", json!({"reuse_for": 0})).await;
    let token = app.token_until("deploy", "whole", |token| token["chains"][1]["status"] == "active").await;
    for _ in 0..100 {
        if app.alive() == chain_ids(&token) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the orphan lives on: {:?} beside {:?}", app.alive(), chain_ids(&token));
}

#[tokio::test]
async fn an_interrupted_registration_is_resumed_under_its_idempotency_key() {
    let app = TestApp::start().await;
    app.once(Fault::DropResponseAfterCommit, Route::Create);
    let body = json!({"name": "deploy", "identity_token": app.simulator.add_user("one", false)});
    with_key(&app, "k", &body).await.refused(503, "jfrog-unavailable");
    // The first call may still be running at JFrog.
    let answer = with_key(&app, "k", &body).await.refused(409, "busy");
    assert!(answer.retry_after() <= 60);
    app.token_until("deploy", "active", |token| token["status"] == "active").await;
    let made = with_key(&app, "k", &body).await.expect(201);
    assert_eq!(app.alive(), chain_ids(&made.json));
}
