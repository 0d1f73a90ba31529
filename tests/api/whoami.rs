//! `GET /whoami`.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn each_caller_is_told_what_it_is() {
    let app = TestApp::start().await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "ci", "tokens": ["a", "b-*"], "expires_in": 3600})).await;
    insta::assert_json_snapshot!("a_narrow_key", narrow.get("/whoami").await.expect(200).shown(), {".body.recognised_by.id" => "[id]"});
    insta::assert_json_snapshot!("a_platform_key", app.platform.get("/whoami").await.expect(200).shown(), {".body.recognised_by.id" => "[id]"});
    for (client, role) in [(&app.ci, "ci"), (&app.viewer, "viewer"), (&app.admin, "admin")] {
        let who = client.get("/whoami").await.expect(200).json;
        assert_eq!((&who["team"], &who["role"], &who["expires_at"]), (&json!("payments"), &json!(role), &json!(null)));
    }
}

#[tokio::test]
async fn nothing_of_the_key_is_told_but_its_id() {
    let app = TestApp::start().await;
    let answer = app.ci.get("/whoami").await.expect(200);
    let secret = app.ci.key().rsplit('_').next().expect("a secret");
    assert!(!answer.text.contains(&secret[..16]), "{}", answer.text);
    app.ci.nobody().get("/whoami").await.refused(401, "unauthenticated");
}
