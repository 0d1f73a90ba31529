//! API.md's conventions: every error is a problem, whatever was wrong.

mod bodies;
mod fields;

use reqwest::Method;
use serde_json::json;

use crate::app::{Answer, TestApp};

#[tokio::test]
async fn an_unknown_route_is_a_problem_for_anyone() {
    let app = TestApp::start().await;
    let answer = app.ci.get("/no/such/route").await.refused(404, "not-found");
    insta::assert_json_snapshot!(answer.shown());
    app.ci.nobody().get("/tokens/").await.refused(404, "not-found");
    app.admin.get("/tokens/deploy/absent").await.refused(404, "not-found");
    app.admin.get("/tokens/%00").await.refused(404, "not-found");
    app.admin.get("/tokens/%ff%fe").await.refused(404, "not-found");
    app.admin.get("/tokens/..%2f..%2fhealth").await.refused(404, "not-found");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = TestApp::start().await;
    let table = [
        (Method::PUT, "/tokens", vec!["GET", "HEAD", "POST"]),
        (Method::POST, "/tokens/deploy", vec!["DELETE", "GET", "HEAD", "PATCH"]),
        (Method::GET, "/tokens/deploy/refresh", vec!["POST"]),
        (Method::PATCH, "/teams", vec!["GET", "HEAD", "POST"]),
        (Method::POST, "/whoami", vec!["GET", "HEAD"]),
    ];
    for (method, path, allowed) in table {
        let answer = Answer::of(app.admin.request(method, path)).await.refused(405, "method-not-allowed");
        let mut allow: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{path}");
    }
}

#[tokio::test]
async fn a_sane_request_id_is_taken_over_and_any_other_replaced() {
    let app = TestApp::start().await;
    let asked = |id: &str| Answer::of(app.ci.request(Method::GET, "/tokens/none").header("x-request-id", id));
    for sane in ["a", "7f-3_b.c", &"x".repeat(128)] {
        let answer = asked(sane).await.refused(404, "not-found");
        assert_eq!(answer.header("x-request-id"), sane);
    }
    for other in ["", " ", "a b", "a\"b", "<script>", "a/b", "a,b", &"x".repeat(129)] {
        let answer = asked(other).await.refused(404, "not-found");
        let id = answer.header("x-request-id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{other:?} became {id:?}");
    }
    let good = app.ci.get("/whoami").await.expect(200);
    assert!(!good.header("x-request-id").is_empty(), "good answers have one too");
    assert_eq!((good.header("cache-control"), good.header("x-content-type-options")), ("no-store", "nosniff"));
}

#[tokio::test]
async fn a_credential_in_the_query_string_is_refused_even_beside_a_good_one() {
    let app = TestApp::start().await;
    let key = app.ci.key().to_owned();
    for name in [
        "access_token",
        "token",
        "api_key",
        "key",
        "authorization",
        "refresh_token",
        "identity_token",
        "Access_Token",
        "access%5Ftoken",
    ] {
        for client in [&app.ci, &app.ci.nobody()] {
            let answer = client.get(&format!("/tokens?{name}={key}")).await.refused(400, "invalid-request");
            assert!(!answer.text.contains(&key), "{}", answer.text);
        }
    }
    app.ci.get("/tokens?limit=5").await.expect(200);
}

#[tokio::test]
async fn a_query_string_that_cannot_be_read_is_a_problem() {
    let app = TestApp::start().await;
    for query in ["limit=abc", "limit=1&limit=2", "team=a&team=b", "limit=99999999999999999999", "limit=1e3"] {
        app.admin.get(&format!("/tokens?{query}")).await.refused(400, "invalid-request");
    }
    app.admin.delete("/tokens/deploy?force=perhaps").await.refused(400, "invalid-request");
    for (query, field) in [("limit=0", "limit"), ("limit=201", "limit"), ("limit=-1", "limit"), ("after=%21", "after")] {
        let answer = app.admin.get(&format!("/tokens?{query}")).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field]);
    }
    // The cursor of a name that holds a NUL, which Postgres would not take.
    app.admin.get("/tokens?after=AA").await.refused(422, "invalid-request");
}

#[tokio::test]
async fn a_platform_admin_must_say_which_team() {
    let app = TestApp::start().await;
    let answer = app.platform.get("/tokens").await.refused(400, "team-required");
    insta::assert_json_snapshot!(answer.shown());
    app.platform.post("/tokens/deploy/refresh", json!({})).await.refused(400, "team-required");
    app.platform.get("/tokens?team=payments").await.expect(200);
    app.platform.get("/tokens?team=nobody-s").await.refused(404, "not-found");
    app.platform.get("/tokens?team=").await.refused(404, "not-found");
}

#[tokio::test]
async fn headers_beyond_any_need_are_refused_and_the_service_goes_on() {
    let app = TestApp::start().await;
    let answer = app.ci.request(Method::GET, "/whoami").header("x-much", "x".repeat(100_000)).send().await;
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 431);
    }
    app.ci.get("/whoami").await.expect(200);
}
