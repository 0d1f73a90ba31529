//! `DELETE /tokens/{name}`.

use std::time::Duration;

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::TestApp;

#[tokio::test]
async fn a_deleted_token_is_revoked_at_jfrog_and_forgotten_here() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.admin.delete("/tokens/deploy").await.expect(204);
    assert!(!app.simulator.is_alive(handed.access_token()));
    app.nothing_is_left_of("deploy").await;
    app.ci.refresh("deploy", json!({})).await.refused(404, "not-found");
    app.admin.delete("/tokens/deploy").await.refused(404, "not-found");
    app.register("deploy").await;
}

#[tokio::test]
async fn while_jfrog_cannot_be_told_the_token_stays_as_revoked_and_the_delete_can_be_repeated() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.fault(Rule::always(Fault::Unavailable));
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    assert_eq!(app.admin.get("/tokens/deploy").await.expect(200).json["status"], "revoked");
    let answer = app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    assert!(answer.detail().contains("being deleted"), "{}", answer.text);
    let recreated = json!({"identity_token": app.simulator.add_user("someone", false)});
    app.admin.post("/tokens/deploy/recreate", recreated).await.refused(409, "busy");
    app.register_with("deploy", json!({})).await.refused(409, "name-taken");
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    app.simulator.clear_faults();
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn a_delete_that_got_half_way_goes_on_where_it_stopped() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.second_time(Fault::Unavailable, Route::Revoke);
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    assert_eq!(app.alive().len(), 1);
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn a_lost_answer_to_a_revocation_is_no_obstacle() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.once(Fault::DropResponseAfterCommit, Route::Revoke);
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn by_force_it_is_forgotten_whatever_jfrog_says_and_the_audit_tells() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.stop().await;
    app.admin.delete("/tokens/deploy?force=false").await.refused(503, "jfrog-unavailable");
    app.admin.delete("/tokens/deploy?force=true").await.expect(204);
    app.admin.get("/tokens/deploy").await.refused(404, "not-found");
    let told = app.database.text("select reason from audit_events where action = 'token.delete' and outcome = 'done'").await;
    assert!(told.starts_with("forced; JFrog could not be told"), "{told}");
}

#[tokio::test]
async fn a_token_that_jfrog_does_not_revoke_is_forgotten_all_the_same() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.admin.get("/tokens/deploy").await.refused(404, "not-found");
}

#[tokio::test]
async fn a_token_that_is_dead_at_jfrog_already_is_forgotten() {
    let app = TestApp::start().await;
    let token = app.register("deploy").await;
    for chain in 0..2 {
        app.simulator.revoke(token["chains"][chain]["token_id"].as_str().expect("an id").parse().expect("a UUID"));
    }
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test]
async fn while_something_is_under_way_it_is_busy_and_nothing_is_revoked() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.once(Fault::DelayBeforeCommit { ms: 1_000 }, Route::Refresh);
    let refresh = tokio::spawn({
        let ci = app.ci.clone();
        async move { ci.refresh("deploy", json!({})).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let answer = app.admin.delete("/tokens/deploy").await.refused(409, "busy");
    assert!(answer.retry_after() >= 1);
    let recreated = json!({"identity_token": app.simulator.add_user("someone", false)});
    app.admin.post("/tokens/deploy/recreate", recreated).await.refused(409, "busy");
    let handed = refresh.await.expect("no panic").expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    app.admin.delete("/tokens/deploy").await.expect(204);
}

#[tokio::test]
async fn only_admins_may() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.ci.delete("/tokens/deploy").await.refused(403, "forbidden");
    let answer = app.viewer.delete("/tokens/deploy?force=true").await.refused(403, "forbidden");
    insta::assert_json_snapshot!(answer.shown());
    assert_eq!(app.alive().len(), 2);
}
