//! What is another team's, or not covered by the grant, does not exist.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, Client, HOOKS, TestApp};

/// All that can be asked of one token.
async fn everything_asked_of(client: &Client, name: &str, query: &str) -> Vec<(String, Answer)> {
    let asked = [
        (Method::GET, "", Value::Null),
        (Method::HEAD, "", Value::Null),
        (Method::PATCH, "", json!({"description": "mine"})),
        (Method::PATCH, "", json!({"description": 7})),
        (Method::DELETE, "", Value::Null),
        (Method::POST, "/refresh", json!({})),
        (Method::POST, "/refresh", json!({"max_age": 0})),
        (Method::POST, "/refresh", json!({"max_age": -1})),
        (Method::POST, "/recreate", json!({"identity_token": "x"})),
        (Method::POST, "/recreate", json!({})),
        (Method::PUT, "", Value::Null),
    ];
    let mut answers = Vec::new();
    for (method, path, body) in asked {
        let what = format!("{method} {path} {body}");
        let request = client.request(method, &format!("/tokens/{name}{path}{query}"));
        answers.push((what, Answer::of(if body.is_null() { request } else { request.json(&body) }).await));
    }
    answers
}

#[track_caller]
fn are_alike(one: &[(String, Answer)], other: &[(String, Answer)]) {
    for ((what, one), (_, other)) in one.iter().zip(other) {
        assert_eq!(one.but_for_the_request_id(), other.but_for_the_request_id(), "{what}");
        assert!(one.status >= 400, "{what}: {}", one.text);
    }
}

async fn with_orders(app: &TestApp) -> Client {
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.team_key("orders", "admin", json!({"role": "admin"})).await
}

#[tokio::test]
async fn another_teams_token_and_one_that_does_not_exist_are_answered_alike() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let foreigner = with_orders(&app).await;
    let absent = everything_asked_of(&foreigner, "absent", "").await;
    are_alike(&everything_asked_of(&foreigner, "deploy", "").await, &absent);
    let named = everything_asked_of(&foreigner, "deploy", "?team=payments").await;
    are_alike(&named, &everything_asked_of(&foreigner, "absent", "?team=payments").await);
    are_alike(&named, &everything_asked_of(&foreigner, "deploy", "?team=no-such-team").await);
    let statuses: Vec<u16> = named.iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(statuses, [404, 404, 404, 422, 404, 404, 404, 404, 404, 422, 405]);
    assert_eq!(app.simulator.refreshes(), 0);
    app.admin.get("/tokens/deploy").await.expect(200);
}

#[tokio::test]
async fn a_token_that_the_grant_does_not_cover_is_answered_like_one_that_does_not_exist() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for role in ["ci", "viewer", "admin"] {
        let narrow = app.team_key("payments", &format!("narrow-{role}"), json!({"role": role, "tokens": ["other-*"]})).await;
        let uncovered = everything_asked_of(&narrow, "deploy", "").await;
        are_alike(&uncovered, &everything_asked_of(&narrow, "absent", "").await);
    }
    // A name that would be covered, but that nobody registered.
    let exact = app.team_key("payments", "exact", json!({"role": "admin", "tokens": ["absent"]})).await;
    are_alike(&everything_asked_of(&exact, "deploy", "").await, &everything_asked_of(&exact, "absent", "").await);
}

#[tokio::test]
async fn another_team_is_answered_like_one_that_does_not_exist() {
    let app = TestApp::start().await;
    let foreigner = with_orders(&app).await;
    let ci = app.team_key("orders", "ci", json!({"role": "ci"})).await;
    let foreigners = [foreigner.clone(), ci, app.team_key("orders", "viewer", json!({"role": "viewer"})).await];
    let rule = json!({"name": "r", "issuer": "https://unknown.example", "claims": {}, "role": "ci"});
    for (method, path, body) in [
        (Method::GET, "/teams/TEAM", Value::Null),
        (Method::DELETE, "/teams/TEAM", Value::Null),
        (Method::GET, "/teams/TEAM/keys", Value::Null),
        (Method::POST, "/teams/TEAM/keys", json!({"name": "k", "role": "ci"})),
        (Method::DELETE, "/teams/TEAM/keys/ci", Value::Null),
        (Method::GET, "/teams/TEAM/trust-rules", Value::Null),
        (Method::POST, "/teams/TEAM/trust-rules", rule.clone()),
        (Method::GET, "/teams/TEAM/trust-rules/r", Value::Null),
        (Method::PUT, "/teams/TEAM/trust-rules/r", rule),
        (Method::DELETE, "/teams/TEAM/trust-rules/r", Value::Null),
        (Method::POST, "/teams/TEAM/trust-rules/explain", json!({"claims": {}})),
        (Method::GET, "/teams/TEAM/webhooks", Value::Null),
        (Method::POST, "/teams/TEAM/webhooks", json!({"name": "w", "url": HOOKS})),
        (Method::DELETE, "/teams/TEAM/webhooks/w", Value::Null),
        (Method::GET, "/whoami?team=TEAM", Value::Null),
        (Method::GET, "/tokens?team=TEAM", Value::Null),
        (Method::GET, "/audit?team=TEAM", Value::Null),
        (Method::POST, "/sessions?team=TEAM", json!({})),
    ] {
        for foreigner in &foreigners {
            let ask = |team: &str| {
                let request = foreigner.request(method.clone(), &path.replace("TEAM", team));
                Answer::of(if body.is_null() { request } else { request.json(&body) })
            };
            let (foreign, absent) = (ask("payments").await.refused(404, "not-found"), ask("no-such-team").await);
            assert_eq!(foreign.but_for_the_request_id(), absent.but_for_the_request_id(), "{method} {path}");
        }
    }
    let listed = foreigner.get("/teams").await.expect(200);
    assert_eq!(listed.json["items"].as_array().expect("items").len(), 1, "{}", listed.text);
}

#[tokio::test]
async fn two_teams_have_tokens_of_one_name_and_each_gets_its_own() {
    let app = TestApp::start().await;
    let orders = with_orders(&app).await;
    app.register("deploy").await;
    let identity = app.simulator.add_user("of-orders", false);
    orders.post("/tokens", json!({"name": "deploy", "identity_token": identity})).await.expect(201);
    let ours = app.ci.refresh("deploy", json!({})).await.expect(200);
    let theirs = orders.refresh("deploy", json!({})).await.expect(200);
    assert_ne!(ours.access_token(), theirs.access_token());
    assert_eq!((&ours.json["username"], &theirs.json["username"]), (&json!("user-of-deploy"), &json!("of-orders")));
    orders.delete("/tokens/deploy").await.expect(204);
    assert!(app.simulator.is_alive(ours.access_token()) && !app.simulator.is_alive(theirs.access_token()));
}

#[tokio::test]
async fn an_idempotency_key_is_the_teams_own() {
    let app = TestApp::start().await;
    let orders = with_orders(&app).await;
    for (client, user) in [(&app.admin, "one"), (&orders, "two")] {
        let body = json!({"name": "deploy", "identity_token": app.simulator.add_user(user, false)});
        let request = client.request(Method::POST, "/tokens").header("idempotency-key", "k1").json(&body);
        let made = Answer::of(request).await.expect(201);
        assert!(made.json["subject"].as_str().is_some_and(|subject| subject.ends_with(user)), "{}", made.text);
    }
}
