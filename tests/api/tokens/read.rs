//! `GET /tokens/{name}`.

use crate::app::TestApp;
use serde_json::json;

/// First 16 hex digits of the SHA-256.
fn fingerprint(token: &str) -> String {
    hex::encode(&token_broker::crypto::sha256(token.as_bytes())[..8])
}

#[tokio::test]
async fn a_token_says_where_it_stands_and_no_secret() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let shown = app.viewer.get("/tokens/deploy").await.expect(200);
    insta::assert_json_snapshot!(shown.shown());
    for secret in app.simulator.secrets() {
        assert!(!shown.text.contains(&secret));
    }
}

#[tokio::test]
async fn what_is_shown_is_the_chain_that_is_handed_out() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for _ in 0..3 {
        let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
        let shown = app.viewer.get("/tokens/deploy").await.expect(200).json;
        assert_eq!(shown["fingerprint"], fingerprint(handed.access_token()));
        for field in ["token_id", "expires_at", "refreshed_at", "generation", "scope"] {
            assert_eq!(shown[field], handed.json[field], "{field}");
        }
        app.let_pass(21_620).await;
    }
}

#[tokio::test]
async fn every_field_is_there_even_without_a_value() {
    let app = TestApp::start().await;
    let token = app.register("deploy").await;
    for field in [
        "team",
        "name",
        "description",
        "instance",
        "scope",
        "audience",
        "subject",
        "token_id",
        "fingerprint",
        "status",
        "generation",
        "expires_at",
        "refreshed_at",
        "next_refresh_at",
        "reuse_for",
        "include_reference_token",
        "chains",
        "last_error",
        "created_at",
        "created_by",
    ] {
        assert!(token.get(field).is_some(), "{field}");
    }
    assert_eq!((&token["audience"], &token["last_error"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let app = TestApp::start().await;
    let answer = app.viewer.get("/tokens/absent").await.refused(404, "not-found");
    insta::assert_json_snapshot!(answer.shown());
    for name in ["UPPER", "a'b", "a%00b", "%F0%9F%92%A9", &"x".repeat(64), "*", "%25"] {
        app.viewer.get(&format!("/tokens/{name}")).await.refused(404, "not-found");
    }
    // Not a name of a token: a path of this API, with POST.
    app.viewer.get("/tokens/import").await.refused(405, "method-not-allowed");
}
