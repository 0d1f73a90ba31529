//! `PATCH /tokens/{name}`.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn what_is_sent_is_changed_and_the_rest_stays() {
    let app = TestApp::start().await;
    let before = app.register_with("deploy", json!({"description": "old", "reuse_for": 600})).await.expect(201).json;
    let changed = app.admin.patch("/tokens/deploy", json!({"description": "new"})).await.expect(200).json;
    let mut expected = before.clone();
    expected["description"] = json!("new");
    assert_eq!(changed, expected);
    let all = json!({"description": "", "reuse_for": 0, "include_reference_token": true});
    let changed = app.admin.patch("/tokens/deploy", all).await.expect(200).json;
    assert_eq!((&changed["description"], &changed["reuse_for"]), (&json!(""), &json!(0)));
    assert_eq!(changed, app.admin.get("/tokens/deploy").await.json);
    assert_eq!(app.admin.patch("/tokens/deploy", json!({})).await.expect(200).json, changed, "nothing sent, nothing changed");
}

#[tokio::test]
async fn lowering_reuse_for_takes_back_no_promise() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    let changed = app.admin.patch("/tokens/deploy", json!({"reuse_for": 0})).await.expect(200);
    let promised = app.admin.get("/tokens/deploy").await.json["next_refresh_at"].clone();
    assert_eq!(changed.json["next_refresh_at"], promised);
    for ask in [json!({}), json!({"max_age": 0})] {
        let answer = app.ci.refresh("deploy", ask).await.expect(200);
        assert_eq!((answer.access_token(), &answer.json["refreshed"]), (before.access_token(), &json!(false)));
    }
    assert_eq!(app.simulator.refreshes(), 0);
}

#[tokio::test]
async fn raising_reuse_for_counts_from_the_next_hand_out_on() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 60})).await.expect(201);
    app.admin.patch("/tokens/deploy", json!({"reuse_for": 7200})).await.expect(200);
    app.let_pass(100).await;
    let young = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(young.json["refreshed"], json!(false), "100 seconds are young enough now");
}

#[tokio::test]
async fn a_reference_token_is_there_from_the_next_rotation_on() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.admin.patch("/tokens/deploy", json!({"include_reference_token": true})).await.expect(200);
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["reference_token"], json!(null));
    app.let_pass(21_620).await;
    assert!(app.ci.refresh("deploy", json!({})).await.expect(200).json["reference_token"].is_string());
    app.admin.patch("/tokens/deploy", json!({"include_reference_token": false})).await.expect(200);
    app.let_pass(21_620).await;
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["reference_token"], json!(null));
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused_and_nothing_of_the_rest_is_done() {
    let app = TestApp::start().await;
    let before = app.register("deploy").await;
    let table = [
        (json!({"name": "other", "description": "x"}), "name"),
        (json!({"scope": "applied-permissions/admin", "description": "x"}), "scope"),
        (json!({"instance": "elsewhere"}), "instance"),
        (json!({"status": "active"}), "status"),
        (json!({"description": "x".repeat(901)}), "description"),
        (json!({"description": "a\u{0}b"}), "description"),
        (json!({"description": 1}), "description"),
        (json!({"reuse_for": -1, "description": "x"}), "reuse_for"),
        (json!({"reuse_for": 1.5}), "reuse_for"),
        (json!({"reuse_for": "60"}), "reuse_for"),
        (json!({"reuse_for": 4_294_967_296_i64}), "reuse_for"),
        (json!({"include_reference_token": 1}), "include_reference_token"),
    ];
    for (body, field) in table {
        let answer = app.admin.patch("/tokens/deploy", body.clone()).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{body}");
    }
    assert_eq!(app.admin.get("/tokens/deploy").await.json, before);
    app.admin.patch("/tokens/absent", json!({"description": "x"})).await.refused(404, "not-found");
    app.viewer.patch("/tokens/deploy", json!({"description": "x"})).await.refused(403, "forbidden");
    app.ci.patch("/tokens/deploy", json!({"description": "x"})).await.refused(403, "forbidden");
}
