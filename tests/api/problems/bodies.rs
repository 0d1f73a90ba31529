//! Bodies that are no JSON, of another type, too long, or too deep.

use std::io::{Read, Write};

use reqwest::Method;
use serde_json::json;

use crate::app::{Answer, Client, TestApp};

const LIMIT: usize = 64 * 1024;

async fn sent(client: &Client, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(client.request(Method::POST, path).header("content-type", content_type).body(body)).await
}

#[tokio::test]
async fn what_is_not_json_is_malformed_and_never_repeated() {
    let app = TestApp::start().await;
    for body in
        ["", "{", "{\"name\": \"hunter2", "{'name': 'hunter2'}", "hunter2", "{\"name\": hunter2}", "{} {}", "\u{feff}{}", "NaN"]
    {
        let answer = sent(&app.admin, "/tokens", "application/json", body).await.refused(400, "invalid-request");
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    let answer = sent(&app.admin, "/tokens", "application/json", b"{\"name\": \"\xff\"}".to_vec()).await;
    answer.refused(400, "invalid-request");
}

#[tokio::test]
async fn json_that_is_no_object_is_told_so() {
    let app = TestApp::start().await;
    for body in ["null", "[]", "7", "\"text\"", "true", "[[[]]]"] {
        let answer = sent(&app.admin, "/tokens", "application/json", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["body"], "{}", answer.text);
        assert!(!answer.text.contains("struct"), "Rust's words are not the caller's: {}", answer.text);
    }
    for (client, path, body) in [
        (&app.ci, "/tokens/deploy/refresh", "[0, 0, 0]"),
        (&app.platform, "/teams", r#"["orders", null]"#),
        (&app.admin, "/teams/payments/keys", r#"["k", "ci", null, null]"#),
    ] {
        let answer = sent(client, path, "application/json", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["body"], "an array is no object, whatever serde thinks: {}", answer.text);
    }
}

#[tokio::test]
async fn ten_thousand_levels_are_refused_and_the_process_lives() {
    let app = TestApp::start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let bodies = [
        deep("[", "]"),
        format!("{{\"name\": {}}}", deep("[", "]")),
        format!("{{\"scope\": {}1{}}}", "{\"a\":".repeat(9_000), "}".repeat(9_000)),
    ];
    for body in bodies {
        for path in ["/tokens", "/teams/payments/keys"] {
            let answer = sent(&app.admin, path, "application/json", body.clone()).await;
            assert!([400, 422].contains(&answer.status), "{}", answer.text);
            let status = answer.status;
            answer.refused(status, "invalid-request");
        }
    }
    app.ci.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_body_has_at_most_64_kib() {
    let app = TestApp::start().await;
    let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    sent(&app.admin, "/tokens", "application/json", padded(LIMIT)).await.refused(422, "invalid-request");
    sent(&app.admin, "/tokens", "application/json", padded(LIMIT + 1)).await.refused(413, "too-large");
    sent(&app.ci, "/tokens/deploy/refresh", "application/json", padded(LIMIT + 1)).await.refused(413, "too-large");
    let long = json!({"name": "a", "identity_token": "x".repeat(1024 * 1024)});
    app.admin.post("/tokens", long).await.refused(413, "too-large");
    // Nobody's bodies are not read at all.
    sent(&app.ci.nobody(), "/tokens", "application/json", padded(LIMIT + 1)).await.refused(401, "unauthenticated");
}

/// Writes bytes to the service as they are, and reads until it closes the connection.
async fn raw(client: &Client, request: String) -> String {
    let address = client.base().trim_start_matches("http://").to_owned();
    let exchange = move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        // It may answer and close before everything is written.
        drop(stream.write_all(request.as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::task::spawn_blocking(exchange).await.expect("no panic").expect("connects")
}

fn head(client: &Client, more: &str) -> String {
    let key = client.key();
    format!(
        "POST /tokens HTTP/1.1\r\nhost: broker\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_streamed_body_is_bounded_too_and_a_lying_length_changes_nothing() {
    let app = TestApp::start().await;
    let chunk = format!("{:x}\r\n{}\r\n", 8192, " ".repeat(8192));
    let request = head(&app.admin, "transfer-encoding: chunked\r\n") + &chunk.repeat(9) + "0\r\n\r\n";
    let answer = raw(&app.admin, request).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("/problems/too-large"), "{answer}");

    let request = head(&app.admin, "content-length: 99999999999\r\n") + "{}";
    let answer = raw(&app.admin, request).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("application/problem+json"), "{answer}");

    let both = head(&app.admin, "transfer-encoding: chunked\r\ncontent-length: 2\r\n") + "0\r\n\r\n";
    let answer = raw(&app.admin, both).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    app.ci.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_body_of_another_type_is_not_taken() {
    let app = TestApp::start().await;
    for content_type in [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "multipart/form-data",
        "json",
        "",
    ] {
        let answer = sent(&app.admin, "/tokens", content_type, "{}").await.refused(415, "unsupported-media-type");
        assert!(answer.detail().contains("application/json"), "it says which: {}", answer.text);
    }
    Answer::of(app.admin.request(Method::POST, "/tokens").body("{}")).await.refused(415, "unsupported-media-type");
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        sent(&app.admin, "/tokens", content_type, "{}").await.refused(422, "invalid-request");
    }
}

#[tokio::test]
async fn curls_default_type_is_taken_by_refresh_alone_and_only_for_json() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let form = "application/x-www-form-urlencoded";
    for body in ["{}", " {\"max_age\": 7200}", ""] {
        sent(&app.ci, "/tokens/deploy/refresh", form, body).await.expect(200);
    }
    Answer::of(app.ci.request(Method::POST, "/tokens/deploy/refresh")).await.expect(200);
    sent(&app.ci, "/tokens/deploy/refresh", form, "max_age=0").await.refused(415, "unsupported-media-type");
    sent(&app.ci, "/tokens/deploy/refresh", "text/plain", "{}").await.refused(415, "unsupported-media-type");
    sent(&app.admin, "/tokens/deploy/recreate", form, "{}").await.refused(415, "unsupported-media-type");
    sent(&app.admin, "/teams/payments/keys", form, "{}").await.refused(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_compressed_body_is_not_taken() {
    let app = TestApp::start().await;
    for encoding in ["gzip", "br", "deflate", "identity, gzip"] {
        for path in ["/tokens", "/tokens/deploy/refresh"] {
            let request = app.admin.request(Method::POST, path).header("content-encoding", encoding);
            let request = request.header("content-type", "application/json").body(vec![0x1f, 0x8b, 8, 0]);
            Answer::of(request).await.refused(415, "unsupported-media-type");
        }
    }
}
