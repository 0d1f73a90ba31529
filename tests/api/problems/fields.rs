//! Fields of the wrong type, unknown, doubled, missing, too long, too short, out of range.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

/// A registration that is wrong in `field` alone; its identity token is one that JFrog does not know.
fn with(field: &str, value: &Value) -> Value {
    let mut body = json!({"name": "deploy", "identity_token": "not-one-of-jfrog-s"});
    body[field] = value.clone();
    body
}

async fn text(app: &TestApp, path: &str, body: String) -> Answer {
    Answer::of(app.admin.request(Method::POST, path).header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn a_wrong_type_names_its_field_and_repeats_no_value() {
    let app = TestApp::start().await;
    let texts = ["name", "identity_token", "description", "scope", "audience", "project_key", "instance"];
    let numbers = ["expires_in", "reuse_for", "chains"];
    let mut table: Vec<(&str, Value)> =
        vec![("include_reference_token", json!("hunter2")), ("include_reference_token", json!(1))];
    table.extend(texts.map(|field| (field, json!(["hunter2"]))));
    table.extend(texts.map(|field| (field, json!(424_242))));
    table.extend(texts.map(|field| (field, json!({"hunter2": true}))));
    table.extend(numbers.map(|field| (field, json!("hunter2"))));
    table.extend(numbers.map(|field| (field, json!(true))));
    table.extend(numbers.map(|field| (field, json!(1.5))));
    for (field, value) in table {
        let answer = app.admin.post("/tokens", with(field, &value)).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{value}: {}", answer.text);
        assert!(answer.detail().contains(field), "{}", answer.text);
        assert!(!answer.text.contains("hunter2") && !answer.text.contains("424242"), "{}", answer.text);
    }
    // The same on import, whose settings are the same.
    let import = json!({"name": "a", "access_token": "x", "refresh_token": "y", "reuse_for": "soon"});
    let answer = app.admin.post("/tokens/import", import).await.refused(422, "invalid-request");
    assert_eq!(answer.fields(), ["reuse_for"]);
    assert_eq!(app.simulator.calls().len(), 0, "nothing of this reached JFrog");
}

#[tokio::test]
async fn a_field_that_is_wrong_in_a_list_is_named_with_its_place() {
    let app = TestApp::start().await;
    for tokens in [json!(["deploy", 7]), json!(["deploy", "UPPER"]), json!(["deploy", "a b"]), json!(["deploy", ""])] {
        let body = json!({"name": "k", "role": "ci", "tokens": tokens});
        let answer = app.admin.post("/teams/payments/keys", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["tokens[1]"], "{}", answer.text);
    }
    // A secret in the wrong field is not repeated, neither here nor in the audit.
    let secret = "eyJhbGciOiJSUzI1NiJ9.hunter2";
    let answer =
        app.admin.post("/teams/payments/keys", json!({"name": "k", "role": secret})).await.refused(422, "invalid-request");
    assert_eq!(answer.fields(), ["role"]);
    assert!(!answer.text.contains(secret), "{}", answer.text);
    assert!(!app.database.dump().await.contains(secret));
}

#[tokio::test]
async fn an_unknown_field_a_doubled_one_and_a_missing_one_are_named() {
    let app = TestApp::start().await;
    let table = [
        ("/tokens", json!({"name": "a", "identity_token": "x", "refreshable": true}).to_string(), "refreshable"),
        ("/tokens", json!({"name": "a", "identity_token": "x", "Name": "b"}).to_string(), "Name"),
        ("/tokens", r#"{"name": "a", "name": "b", "identity_token": "x"}"#.to_owned(), "name"),
        ("/tokens", r#"{"name": "a", "scope": "x", "identity_token": "x", "scope": "y"}"#.to_owned(), "scope"),
        ("/tokens", r#"{"identity_token": "x", "name": "a", "identity_token": "y"}"#.to_owned(), "identity_token"),
        ("/tokens", json!({"identity_token": "x"}).to_string(), "name"),
        ("/tokens", json!({"name": "a"}).to_string(), "identity_token"),
        ("/tokens/import", json!({"name": "a", "access_token": "x"}).to_string(), "refresh_token"),
        (
            "/tokens/import",
            json!({"name": "a", "access_token": "x", "refresh_token": "y", "identity_token": "z"}).to_string(),
            "identity_token",
        ),
        ("/tokens/a/refresh", json!({"maxage": 1}).to_string(), "maxage"),
        ("/tokens/a/refresh", r#"{"wait": 1, "wait": 1}"#.to_owned(), "wait"),
        ("/tokens/a/recreate", json!({"identity_token": "x", "name": "b"}).to_string(), "name"),
        ("/teams/payments/keys", json!({"name": "k"}).to_string(), "role"),
    ];
    for (path, body, field) in table {
        let answer = text(&app, path, body.clone()).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{path} {body}: {}", answer.text);
    }
    insta::assert_json_snapshot!(app.admin.post("/tokens", json!({"nmae": "a"})).await.shown());
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let app = TestApp::start().await;
    let body = json!({"name": "import", "identity_token": "", "scope": "", "chains": 3, "expires_in": -1});
    let answer = app.admin.post("/tokens", body).await.refused(422, "invalid-request");
    insta::assert_json_snapshot!(answer.shown());
}

/// Accepted means here: it came as far as JFrog, which does not know the identity token.
async fn is_accepted(app: &TestApp, field: &str, value: Value) -> bool {
    let answer = app.admin.post("/tokens", with(field, &value)).await;
    if answer.json["type"] == "/problems/identity-token-rejected" {
        return true;
    }
    let answer = answer.refused(422, "invalid-request");
    assert_eq!(answer.fields(), [field], "{}", answer.text);
    false
}

#[tokio::test]
async fn each_text_has_its_lengths() {
    let app = TestApp::start().await;
    // Field, whether empty will do, the longest.
    for (field, empty, longest) in
        [("name", false, 63), ("description", true, 900), ("scope", false, 500), ("audience", false, 255)]
    {
        assert_eq!(is_accepted(&app, field, json!("")).await, empty, "{field} of 0");
        assert!(is_accepted(&app, field, json!("x")).await, "{field} of 1");
        assert!(is_accepted(&app, field, json!("x".repeat(longest))).await, "{field} of {longest}");
        assert!(!is_accepted(&app, field, json!("x".repeat(longest + 1))).await, "{field} of {}", longest + 1);
    }
    for (length, good) in [(0, false), (1, false), (2, true), (32, true), (33, false)] {
        let answer = app.admin.post("/tokens", with("project_key", &json!("p".repeat(length)))).await;
        assert_eq!(answer.json["type"] == "/problems/identity-token-rejected", good, "{length}: {}", answer.text);
    }
    assert!(is_accepted(&app, "description", json!("ü".repeat(900))).await, "characters are counted, not bytes");
}

#[tokio::test]
async fn texts_that_would_break_out_of_their_place_are_refused() {
    let app = TestApp::start().await;
    let nasty = ["a\0b", "a\r\nX-Evil: 1", "a\nb", "a\u{7f}b", "a\u{85}b"];
    for text in nasty {
        for field in ["name", "description", "scope", "audience", "identity_token", "project_key"] {
            assert!(!is_accepted(&app, field, json!(text)).await, "{field}: {text:?}");
        }
    }
    for name in
        ["A", "-a", ".a", "_a", "a b", "a/b", "ä", "аdmin", "a\u{202e}b", "a%", "a*", "import", "deploy\u{200b}", "ｄeploy"]
    {
        assert!(!is_accepted(&app, "name", json!(name)).await, "{name:?}");
    }
    for text in ["a\u{202e}b", "a  b", " a", "a ", "ü", "a\tb"] {
        assert!(!is_accepted(&app, "scope", json!(text)).await, "{text:?}");
        assert!(!is_accepted(&app, "audience", json!(text)).await, "{text:?}");
    }
    // People write what they like in a description, quotes and all.
    for text in ["'; drop table tokens; --", "100%_\\", "<b>\"ü\"</b>", "{{7*7}}"] {
        assert!(is_accepted(&app, "description", json!(text)).await, "{text:?}");
    }
    assert!(!is_accepted(&app, "instance", json!("elsewhere")).await, "an instance that is not configured");
}

#[tokio::test]
async fn a_right_to_left_override_in_a_description_is_refused() {
    let app = TestApp::start().await;
    // It would make people read another description than was written, here and in JFrog's list.
    for text in ["invoice\u{202e}cod.exe", "a\u{2066}b"] {
        assert!(!is_accepted(&app, "description", json!(text)).await, "{text:?}");
    }
}

#[tokio::test]
async fn numbers_have_their_ranges() {
    let app = TestApp::start().await;
    let ten_years = 10 * 365 * 86_400;
    for (field, good) in
        [("expires_in", 0), ("expires_in", ten_years), ("reuse_for", 0), ("reuse_for", ten_years), ("chains", 1), ("chains", 2)]
    {
        assert!(is_accepted(&app, field, json!(good)).await, "{field} {good}");
    }
    for bad in [-1, ten_years + 1, (1 << 53) + 1, i64::MAX, i64::MIN] {
        for field in ["expires_in", "reuse_for", "chains"] {
            assert!(!is_accepted(&app, field, json!(bad)).await, "{field} {bad}");
        }
    }
    for bad in [0, 3] {
        assert!(!is_accepted(&app, "chains", json!(bad)).await, "chains {bad}");
    }
    for literal in ["-0", "-0.0", "1.0", "1e3", "1e400", "-1e400", "99999999999999999999", "18446744073709551616"] {
        for field in ["expires_in", "reuse_for", "chains"] {
            let answer = text(&app, "/tokens", format!(r#"{{"name": "a", "identity_token": "x", "{field}": {literal}}}"#)).await;
            let status = answer.status;
            assert!([400, 422].contains(&status), "{field} {literal}: {}", answer.text);
            let answer = answer.refused(status, "invalid-request");
            assert!(status == 400 || answer.fields() == [field], "{literal}: {}", answer.text);
        }
    }
    for (field, bad) in
        [("max_age", -1), ("min_ttl", -1), ("wait", -1), ("wait", 121), ("max_age", i64::MAX), ("min_ttl", i64::MAX)]
    {
        let answer = app.ci.refresh("deploy", json!({field: bad})).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field]);
    }
}
