//! `POST /tokens/{name}/recreate`.

use std::time::Duration;

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{Answer, TestApp, jfrog::chain_ids};

async fn recreate(app: &TestApp, user: &str, more: Value) -> Answer {
    let mut body = json!({"identity_token": app.simulator.add_user(user, false)});
    for (field, value) in more.as_object().expect("fields") {
        body[field] = value.clone();
    }
    app.admin.post("/tokens/deploy/recreate", body).await
}

#[tokio::test]
async fn a_lost_token_lives_again_under_its_name_and_settings() {
    let app = TestApp::start().await;
    let before = app
        .register_with("deploy", json!({"description": "d", "reuse_for": 600, "scope": "applied-permissions/user"}))
        .await
        .expect(201)
        .json;
    app.database.run("update chains set state = 'lost'").await;
    app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    let after = recreate(&app, "user-of-deploy", json!({})).await.expect(200);
    insta::assert_json_snapshot!(after.shown());
    for kept in ["name", "description", "reuse_for", "scope", "audience", "created_at", "created_by", "subject"] {
        assert_eq!(after.json[kept], before[kept], "{kept}");
    }
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert!(chain_ids(&after.json).iter().all(|id| !chain_ids(&before).contains(id)), "both chains are new");
}

#[tokio::test]
async fn what_was_handed_out_before_works_on_for_reuse_for() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    recreate(&app, "user-of-deploy", json!({})).await.expect(200);
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_ne!(before.access_token(), after.access_token());
    assert!(app.simulator.is_alive(before.access_token()) && app.simulator.is_alive(after.access_token()));
    assert_eq!(app.alive().len(), 4, "the old chains and the new ones");
}

async fn only_the_new_chains_live_in_the_end(user: &str) {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 0})).await.expect(201);
    let after = recreate(&app, user, json!({})).await.expect(200);
    for _ in 0..100 {
        if app.alive() == chain_ids(&after.json) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?} live, and ours are {:?}", app.alive(), chain_ids(&after.json));
}

#[tokio::test]
async fn the_old_chains_are_revoked_after_reuse_for() {
    only_the_new_chains_live_in_the_end("user-of-deploy").await;
}

#[tokio::test]
async fn the_old_chains_of_the_user_it_is_moved_away_from_are_revoked_too() {
    only_the_new_chains_live_in_the_end("successor").await;
}

#[tokio::test]
async fn what_lives_of_the_user_it_is_moved_away_from_is_known_as_long_as_anything_of_that_user_may_be_lost() {
    // Nothing is settled or swept but by what is asked here.
    let app = TestApp::start_changed(|settings| settings.timing.poll = Duration::from_hours(1)).await;
    let first = app.register("deploy").await;
    recreate(&app, "user-of-deploy", json!({})).await.expect(200);
    // Of each chain an earlier pair is remembered now. They are dead, and cannot show what else their user has.
    for id in chain_ids(&first) {
        app.simulator.revoke(id.parse().expect("a UUID"));
    }
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    let lost = app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    assert_eq!(lost.json["warnings"], json!(["refresh-uncertain"]));
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    recreate(&app, "successor", json!({})).await.expect(200);
    app.token_until("deploy", "whole", crate::app::jfrog::both_active).await;
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn a_token_moves_to_another_user_with_another_scope() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let asked = json!({"scope": "artifact:repo/**:r", "audience": "jfac@*", "expires_in": 86_400});
    let after = recreate(&app, "successor", asked).await.expect(200).json;
    assert!(after["subject"].as_str().is_some_and(|subject| subject.ends_with("/users/successor")), "{after}");
    assert_eq!((&after["scope"], &after["audience"]), (&json!("artifact:repo/**:r"), &json!("jfac@*")));
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(handed.json["username"], "successor");
    assert!(handed.json["expires_in"].as_i64().is_some_and(|left| (86_000..=86_400).contains(&left)), "{}", handed.text);
}

#[tokio::test]
async fn what_jfrog_refuses_leaves_the_token_as_it_was() {
    let app = TestApp::start().await;
    let before = app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    recreate(&app, "x", json!({"identity_token": "not-a-token"})).await.refused(422, "identity-token-rejected");
    recreate(&app, "x", json!({"scope": "applied-permissions/admin"})).await.refused(422, "scope-refused");
    recreate(&app, "x", json!({"scope": "no-such/scope"})).await.refused(422, "invalid-request");
    app.simulator.knobs(|knobs| knobs.allow_refreshable = false);
    recreate(&app, "x", json!({})).await.refused(422, "not-refreshable");
    app.simulator.knobs(|knobs| knobs.allow_refreshable = true);
    app.once(Fault::RateLimited { retry_after: Some("1".into()) }, Route::Create);
    assert_eq!(recreate(&app, "x", json!({})).await.refused(503, "jfrog-unavailable").retry_after(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;

    assert_eq!(app.alive(), chain_ids(&before), "no more and no less lives");
    let mut after = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert!(after["last_error"].is_object());
    after["last_error"] = json!(null);
    assert_eq!(after, before);
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).access_token(), handed);
    app.let_pass(21_620).await;
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["refreshed"], json!(true));
}

#[tokio::test]
async fn a_mistyped_identity_token_does_not_stop_the_refreshes_of_a_token_that_works() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    recreate(&app, "x", json!({"identity_token": "not-a-token"})).await.refused(422, "identity-token-rejected");
    app.let_pass(21_620).await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&after.json["refreshed"], &after.json["warnings"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn without_jfrog_it_is_a_503_and_the_token_goes_on() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    app.simulator.stop().await;
    recreate(&app, "x", json!({})).await.refused(503, "jfrog-unavailable");
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).access_token(), handed);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_old_chains_in_use() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    app.once(Fault::DropResponseAfterCommit, Route::Create);
    recreate(&app, "user-of-deploy", json!({})).await.refused(503, "jfrog-unavailable");
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).access_token(), handed);
    // Once the attempt is over, it can be repeated.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    recreate(&app, "user-of-deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(&handed));
}

#[tokio::test]
async fn a_second_chain_that_fails_is_made_later() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.second_time(Fault::BadGatewayHtml, Route::Create);
    let after = recreate(&app, "user-of-deploy", json!({})).await.expect(200);
    assert_eq!(after.json["status"], "active");
    let active =
        |token: &Value| token["chains"].as_array().is_some_and(|chains| chains.iter().all(|chain| chain["status"] == "active"));
    app.token_until("deploy", "whole", active).await;
}

#[tokio::test]
async fn bad_requests_are_refused_before_jfrog_is_asked() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let asked = app.asked_for_pairs();
    app.simulator.fault(Rule::always(Fault::Unavailable));
    for (body, field) in [
        (json!({}), "identity_token"),
        (json!({"identity_token": ""}), "identity_token"),
        (json!({"identity_token": 7}), "identity_token"),
        (json!({"identity_token": "x", "expires_in": -1}), "expires_in"),
        (json!({"identity_token": "x", "scope": ""}), "scope"),
        (json!({"identity_token": "x", "reuse_for": 1}), "reuse_for"),
    ] {
        let answer = app.admin.post("/tokens/deploy/recreate", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field]);
    }
    let body = json!({"identity_token": "x"});
    app.admin.post("/tokens/absent/recreate", body.clone()).await.refused(404, "not-found");
    app.ci.post("/tokens/deploy/recreate", body).await.refused(403, "forbidden");
    assert_eq!(app.asked_for_pairs(), asked);
}
