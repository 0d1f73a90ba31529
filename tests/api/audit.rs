//! One row for each thing done or refused, with who, what, how it ended, why, and no secret.

use reqwest::Method;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route};

use crate::app::{Answer, TestApp};

/// The rows of one request, oldest first.
async fn rows_of(app: &TestApp, request_id: &str) -> Vec<Value> {
    let sql = format!(
        "select coalesce(json_agg(to_json(e) order by id), '[]')::text from audit_events e where request_id = '{request_id}'"
    );
    let Value::Array(rows) = serde_json::from_str(&app.database.text(&sql).await).expect("JSON") else { panic!("no list") };
    rows
}

/// Actor, action and outcome of each row.
async fn told_of(app: &TestApp, answer: &Answer) -> Vec<String> {
    let rows = rows_of(app, answer.header("x-request-id")).await;
    let word = |row: &Value, name: &str| row[name].as_str().expect("a word").to_owned();
    rows.iter().map(|row| format!("{} {} {}", word(row, "actor"), word(row, "action"), word(row, "outcome"))).collect()
}

#[tokio::test]
async fn what_is_done_is_written_down_under_the_answers_request_id() {
    let app = TestApp::start().await;
    let made = app.register_with("deploy", json!({})).await.expect(201);
    let by = "key:payments/admin";
    let flow = ["token.reserve", "chain.create", "chain.create", "token.create"].map(|what| format!("{by} {what} done"));
    assert_eq!(told_of(&app, &made).await, flow);
    let table = [
        (app.admin.patch("/tokens/deploy", json!({"reuse_for": 600})).await.expect(200), "key:payments/admin token.update done"),
        (
            app.admin.post("/teams/payments/keys", json!({"name": "k", "role": "ci"})).await.expect(201),
            "key:payments/admin key.create done",
        ),
        (app.admin.delete("/teams/payments/keys/k").await.expect(204), "key:payments/admin key.delete done"),
        (app.admin.delete("/tokens/deploy").await.expect(204), "key:payments/admin token.delete done"),
        (app.platform.post("/teams", json!({"name": "orders"})).await.expect(201), "platform-key:root team.create done"),
        (app.platform.delete("/teams/orders").await.expect(204), "platform-key:root team.delete done"),
        (app.platform.post("/platform/keys", json!({"name": "k"})).await.expect(201), "platform-key:root key.create done"),
        (app.platform.delete("/platform/keys/k").await.expect(204), "platform-key:root key.delete done"),
    ];
    for (answer, expected) in table {
        assert_eq!(told_of(&app, &answer).await, [expected]);
    }
}

#[tokio::test]
async fn one_query_leads_from_a_tokens_hash_to_the_job_that_got_it() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    let request = app.ci.request(Method::POST, "/tokens/deploy/refresh").header("x-request-id", "job-42");
    let handed = Answer::of(request).await.expect(200);
    let rows = rows_of(&app, "job-42").await;
    let actions: Vec<&str> = rows.iter().map(|row| row["action"].as_str().expect("an action")).collect();
    assert_eq!(actions, ["chain.rotate", "token.hand_out"], "both on behalf of the caller");
    let hand_out = &rows[1];
    let fingerprint = hex::encode(&token_broker::crypto::sha256(handed.access_token().as_bytes())[..8]);
    assert_eq!(hand_out["fingerprint"], json!(fingerprint));
    assert_eq!((&hand_out["actor"], &hand_out["token_name"]), (&json!("key:payments/ci"), &json!("deploy")));
    assert_eq!((&hand_out["jfrog_token_id"], &hand_out["generation"]), (&handed.json["token_id"], &json!(2)));
    assert_eq!((&hand_out["recognised_by"]["type"], &hand_out["address"]), (&json!("api-key"), &json!("127.0.0.1")));
    assert!(hand_out["team_id"].is_string());
}

#[tokio::test]
async fn every_hand_out_is_written_down_with_its_warning() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let count = "select count(*) from audit_events where action = 'token.hand_out' and outcome = 'done'";
    for expected in 1..=5 {
        app.ci.refresh("deploy", json!({})).await.expect(200);
        assert_eq!(app.database.count(count).await, expected);
    }
    let warned = app.ci.refresh("deploy", json!({"min_ttl": 3_000_000_000_i64})).await.expect(200);
    let rows = rows_of(&app, warned.header("x-request-id")).await;
    assert_eq!((rows.len(), &rows[0]["detail"]["warnings"]), (1, &json!(["short-lived"])));
}

#[tokio::test]
async fn what_is_refused_is_written_down_with_the_precise_reason() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "ci", "tokens": ["other"]})).await;
    let table = [
        (
            narrow.refresh("deploy", json!({})).await,
            "key:payments/narrow",
            "POST /tokens/{name}/refresh",
            "does not cover token deploy",
        ),
        (
            narrow.refresh("absent", json!({})).await,
            "key:payments/narrow",
            "POST /tokens/{name}/refresh",
            "does not cover token absent",
        ),
        (app.ci.refresh("absent", json!({})).await, "key:payments/ci", "POST /tokens/{name}/refresh", "there is no token absent"),
        (
            app.viewer.delete("/tokens/deploy").await,
            "key:payments/viewer",
            "DELETE /tokens/{name}",
            "role viewer may not do this",
        ),
        (app.ci.get("/tokens?team=orders").await, "key:payments/ci", "GET /tokens", "belongs to team payments"),
        (app.admin.post("/teams", json!({"name": "x"})).await, "key:payments/admin", "POST /teams", "is no platform admin"),
        (
            app.admin.patch("/tokens/deploy", json!({"reuse_for": -1})).await,
            "key:payments/admin",
            "PATCH /tokens/{name}",
            "reuse_for",
        ),
        (app.register_with("deploy", json!({})).await, "key:payments/admin", "POST /tokens", "name deploy is in use"),
        (app.platform.get("/tokens").await, "platform-key:root", "GET /tokens", "?team="),
        (app.ci.nobody().get("/whoami").await, "nobody", "GET /whoami", "not exactly one Authorization header"),
        (app.ci.with_key("tbk_x".into()).get("/whoami").await, "nobody", "GET /whoami", "malformed or mistyped"),
    ];
    for (answer, actor, action, reason) in table {
        let rows = rows_of(&app, answer.header("x-request-id")).await;
        assert_eq!(rows.len(), 1, "{action}: {rows:?}");
        assert_eq!(
            (&rows[0]["actor"], &rows[0]["action"], &rows[0]["outcome"]),
            (&json!(actor), &json!(action), &json!("refused"))
        );
        assert!(rows[0]["reason"].as_str().is_some_and(|why| why.contains(reason)), "{:?} has no {reason}", rows[0]["reason"]);
        assert!(
            !answer.text.contains(reason) || reason == "reuse_for" || reason == "?team=" || answer.status == 409,
            "the caller is told less: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn what_jfrog_refuses_is_written_down_as_failed() {
    let app = TestApp::start().await;
    let refused = app.register_with("deploy", json!({"scope": "applied-permissions/admin"})).await.refused(422, "scope-refused");
    let told = told_of(&app, &refused).await;
    assert!(told.contains(&"key:payments/admin chain.create failed".to_owned()), "{told:?}");
    assert!(told.contains(&"key:payments/admin token.create failed".to_owned()), "{told:?}");
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.once(Fault::Forbidden, Route::Refresh);
    let bridged = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(told_of(&app, &bridged).await, ["key:payments/ci chain.rotate failed", "key:payments/ci token.hand_out done"]);
}

#[tokio::test]
async fn what_nobody_asked_for_is_the_systems() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.let_pass(21_620).await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.token_until("deploy", "healed", |token| token["chains"][0]["status"] == "active").await;
    let healed = "select count(*) from audit_events where actor = 'system' and action = 'chain.heal' and outcome = 'done'";
    assert_eq!(app.database.count(healed).await, 1);
    let found = "select count(*) from audit_events where actor = 'system' and action = 'attempt.recover'";
    assert_eq!(app.database.count(found).await, 1);
}

#[tokio::test]
async fn the_address_is_the_callers_own_whatever_it_claims() {
    let app = TestApp::start().await;
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let request = app.ci.request(Method::GET, "/tokens/absent").header(header, "203.0.113.7");
        let refused = Answer::of(request).await.refused(404, "not-found");
        assert_eq!(rows_of(&app, refused.header("x-request-id")).await[0]["address"], "127.0.0.1", "{header}");
    }
}

#[tokio::test]
async fn no_row_holds_a_secret() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"include_reference_token": true})).await.expect(201);
    app.let_pass(21_620).await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.once(Fault::Unauthorized, Route::Create);
    app.register_with("other", json!({})).await.expect(422);
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.ci.with_key(app.ci.key()[..80].to_owned()).get("/whoami").await.expect(401);
    let rows = app.database.text("select string_agg(e::text, E'\\n') from audit_events e").await;
    let keys = [&app.admin, &app.ci, &app.platform].map(|client| client.key()[21..].to_owned());
    let secrets = app.simulator.secrets();
    assert!(secrets.len() > 8);
    for secret in secrets.iter().chain(&keys) {
        assert!(!rows.contains(secret.as_str()));
    }
}

#[tokio::test]
async fn a_flood_of_bad_credentials_does_not_fill_the_table() {
    let app = TestApp::start().await;
    let stranger = app.ci.nobody();
    for _ in 0..4 {
        futures_util::future::join_all((0..50).map(|_| stranger.get("/tokens"))).await;
    }
    let written = app.database.count("select count(*) from audit_events where actor = 'nobody'").await;
    assert!((1..=70).contains(&written), "{written} rows for 200 refusals");
    // Known callers are written down all the same.
    let refused = app.ci.refresh("absent", json!({})).await.refused(404, "not-found");
    assert_eq!(told_of(&app, &refused).await.len(), 1);
}
