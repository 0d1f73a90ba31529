//! `/health/live` and `/health/ready`.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn a_well_service_is_alive_and_ready_to_anyone() {
    let app = TestApp::start().await;
    for path in ["/health/live", "/health/ready"] {
        let answer = app.ci.nobody().get(path).await.expect(200);
        assert_eq!(answer.json, json!({"status": "ok"}));
    }
    let bad = app.ci.with_key("tbk_wrong".to_owned());
    bad.get("/health/ready").await.expect(200);
    app.ci.nobody().post("/health/live", json!({})).await.refused(405, "method-not-allowed");
}

#[tokio::test]
async fn metrics_are_not_for_the_api_address() {
    let app = TestApp::start().await;
    app.admin.get("/metrics").await.refused(404, "not-found");
}

#[tokio::test]
async fn a_master_key_that_is_not_the_one_makes_it_unready_and_is_named() {
    let app = TestApp::start().await;
    app.database.run("update master_keys set canary = decode(repeat('00', 80), 'hex')").await;
    let answer = app.ci.nobody().get("/health/ready").await.refused(503, "master-key-unusable");
    insta::assert_json_snapshot!(answer.shown());
    app.ci.nobody().get("/health/live").await.expect(200);
}

#[tokio::test]
async fn jfrogs_absence_makes_nothing_unready() {
    let app = TestApp::start().await;
    app.simulator.stop().await;
    app.ci.nobody().get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn a_database_that_is_away_makes_it_unready_not_dead() {
    let app = TestApp::start().await;
    app.database.take_away().await;
    app.ci.nobody().get("/health/ready").await.refused(503, "database-unavailable");
    app.ci.nobody().get("/health/live").await.expect(200);
    let answer = app.ci.get("/tokens").await.refused(503, "database-unavailable");
    insta::assert_json_snapshot!(answer.shown());
}
