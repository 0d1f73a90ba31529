//! Who is let in, and that nobody else learns why not.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use token_broker::{cli::serve, crypto};

use crate::app::{Answer, TestApp, settings};

/// A key of the right form and checksum, which nobody made.
fn well_formed(id: &str, secret: &str) -> String {
    let body = format!("tbk_{id}_{secret}");
    let checksum = hex::encode(&crypto::sha256(body.as_bytes())[..4]);
    format!("{body}{checksum}")
}

/// A key that names the same row, with a secret that nobody made.
pub(crate) fn with_another_secret(key: &str) -> String {
    well_formed(id_of(key), &"cd".repeat(32))
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(1).expect("an id")
}

#[tokio::test]
async fn every_credential_that_is_none_gets_the_same_answer() {
    let app = TestApp::start().await;
    let key = app.ci.key().to_owned();
    let mistyped = key.replace(&key[key.len() - 1..], if key.ends_with('0') { "1" } else { "0" });
    let expired = app.team_key("payments", "old", json!({"role": "ci", "expires_in": 3600})).await;
    app.database.run("update api_keys set expires_at = now() - interval '1 s' where name = 'old'").await;
    let headers = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer  ".to_owned(),
        "Basic dXNlcjpwYXNz".to_owned(),
        format!("Basic {key}"),
        key.clone(),
        format!("Bearer {key} {key}"),
        format!("Bearer {mistyped}"),
        format!("Bearer {}", &key[..key.len() - 1]),
        format!("Bearer {}", key.to_uppercase()),
        format!("Bearer {}", well_formed("0123456789abcdef", &"ab".repeat(32))),
        format!("Bearer {}", well_formed(id_of(&key), &"cd".repeat(32))),
        format!("Bearer {}", expired.key()),
        "Bearer eyJhbGciOiJub25lIn0.e30.".to_owned(),
        format!("Bearer tbk_{}", "x".repeat(12_000)),
    ];
    let bare = Answer::of(app.ci.nobody().request(Method::GET, "/whoami")).await.refused(401, "unauthenticated");
    for header in headers {
        let request = app.ci.nobody().request(Method::GET, "/whoami").header("authorization", &header);
        let answer = Answer::of(request).await.refused(401, "unauthenticated");
        assert_eq!(answer.but_for_the_request_id(), bare.but_for_the_request_id(), "{header}");
    }
    insta::assert_json_snapshot!(bare.shown());
}

#[tokio::test]
async fn two_authorization_headers_are_one_too_many_even_when_both_are_good() {
    let app = TestApp::start().await;
    let twice = app.ci.request(Method::GET, "/whoami").header("authorization", format!("Bearer {}", app.ci.key()));
    Answer::of(twice).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let app = TestApp::start().await;
    let request = app.ci.nobody().request(Method::GET, "/whoami").header("authorization", format!("bEaReR {}", app.ci.key()));
    Answer::of(request).await.expect(200);
}

#[tokio::test]
async fn a_deleted_key_is_refused_at_once_by_the_replica_that_deleted_it() {
    let app = TestApp::start().await;
    app.ci.get("/whoami").await.expect(200);
    app.admin.delete("/teams/payments/keys/ci").await.expect(204);
    app.ci.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_deleted_key_is_refused_within_a_second_on_every_replica() {
    let app = TestApp::start().await;
    let journal = tempfile::tempdir().expect("a directory");
    let settings = settings(&app.database, &app.simulator, &journal, &app.master_keys);
    let other = serve::start(settings, None).await.expect("it starts");
    let there = app.ci.of(&other);
    there.get("/whoami").await.expect(200);
    app.admin.delete("/teams/payments/keys/ci").await.expect(204);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    there.get("/whoami").await.refused(401, "unauthenticated");
    other.stop().await;
}

#[tokio::test]
async fn a_deleted_key_is_refused_within_a_second_however_slowly_postgres_answers() {
    let app = TestApp::start().await;
    // What records a use takes two seconds, after the key was read.
    app.database
        .run(
            "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(2); return null; end $$;
             create trigger slow before update on api_keys for each statement when (current_setting('application_name') = 'token-broker')
             execute function slow()",
        )
        .await;
    let slow = app.ci.clone();
    let under_way = tokio::spawn(async move { slow.get("/whoami").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.database.run("delete from api_keys where name = 'ci'").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    under_way.await.expect("an answer");
    app.ci.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_key_of_a_deleted_team_is_refused_within_a_second() {
    let app = TestApp::start().await;
    app.admin.get("/whoami").await.expect(200);
    app.platform.delete("/teams/payments").await.expect(204);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    app.admin.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_key_that_expires_stops_working_by_itself() {
    let app = TestApp::start().await;
    let brief = app.team_key("payments", "brief", json!({"role": "ci", "expires_in": 1})).await;
    let who = brief.get("/whoami").await.expect(200);
    assert!(who.json["expires_at"].is_string(), "{}", who.text);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    brief.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn the_last_use_of_a_key_is_recorded_and_a_refused_one_is_no_use() {
    let app = TestApp::start().await;
    let wrong = app.ci.with_key(well_formed(id_of(app.ci.key()), &"ef".repeat(32)));
    wrong.get("/whoami").await.refused(401, "unauthenticated");
    let unused = app.admin.get("/teams/payments/keys").await.expect(200);
    assert_eq!((&unused.json["items"][1]["name"], &unused.json["items"][1]["last_used_at"]), (&json!("ci"), &json!(null)));
    app.ci.get("/whoami").await.expect(200);
    let used = app.admin.get("/teams/payments/keys").await.expect(200);
    assert!(used.json["items"][1]["last_used_at"].is_string(), "{}", used.text);
}

#[tokio::test]
async fn wrong_secrets_do_not_lock_the_rightful_owner_out() {
    let app = TestApp::start().await;
    let wrong = app.ci.with_key(well_formed(id_of(app.ci.key()), &"ef".repeat(32)));
    for _ in 0..100 {
        let answer = wrong.get("/whoami").await;
        assert!([401, 429].contains(&answer.status), "{}", answer.text);
    }
    app.ci.get("/whoami").await.expect(200);
}
