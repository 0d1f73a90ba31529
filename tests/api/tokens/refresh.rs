//! `POST /tokens/{name}/refresh`.

use serde_json::json;

use crate::app::TestApp;

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
    app.let_pass(21_601).await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((&after.json["refreshed"], &after.json["generation"]), (&json!(true), &json!(2)));
    assert_ne!(before.access_token(), after.access_token());
    // The simulator kills the old access token of the rotated chain at once: it was not the one that was handed out.
    assert!(app.simulator.is_alive(before.access_token()), "a refresh never breaks a running job");
    assert_eq!(app.simulator.refreshes(), 1);
}
