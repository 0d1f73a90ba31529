//! Every route × every role. The routes come from the OpenAPI document: one without a row here fails the test.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    app::{Answer, Client, HOOKS, TestApp},
    identities::World,
};

const ROLES: [&str; 12] = [
    "nobody",
    "viewer",
    "ci",
    "narrow-ci",
    "admin",
    "foreign-viewer",
    "foreign-ci",
    "foreign-admin",
    "platform-admin",
    "platform-identity",
    "ci-identity",
    "session",
];

/// Method, path, and the status for each of `ROLES`. `narrow-ci` is for tokens called `other-*`, the token is `deploy-…`;
/// `ci-identity` and `session` come from a rule with role ci for `deploy*`, `platform-identity` from one of the configuration.
const TABLE: &[(&str, &str, [u16; 12])] = &[
    ("get", "/tokens", [401, 200, 200, 200, 200, 404, 404, 404, 200, 200, 200, 200]),
    ("post", "/tokens", [401, 403, 403, 404, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("post", "/tokens/import", [401, 403, 403, 404, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("get", "/tokens/{name}", [401, 200, 200, 404, 200, 404, 404, 404, 200, 200, 200, 200]),
    ("patch", "/tokens/{name}", [401, 403, 403, 404, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/tokens/{name}", [401, 403, 403, 404, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("post", "/tokens/{name}/refresh", [401, 403, 200, 404, 200, 404, 404, 404, 200, 200, 200, 200]),
    ("post", "/tokens/{name}/recreate", [401, 403, 403, 404, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/tokens/{name}/issue", [401, 403, 200, 404, 200, 404, 404, 404, 200, 200, 200, 200]),
    ("get", "/tokens/{name}/children", [401, 403, 200, 404, 200, 404, 404, 404, 200, 200, 200, 200]),
    ("delete", "/tokens/{name}/children/{token_id}", [401, 403, 202, 404, 202, 404, 404, 404, 202, 202, 202, 202]),
    ("post", "/tokens/{name}/revoke-handed-out", [401, 403, 403, 404, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/tokens/{name}/lockdown", [401, 403, 403, 404, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("get", "/tokens/{name}/lockdown", [401, 403, 403, 404, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/tokens/{name}/lockdown", [401, 403, 403, 404, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("get", "/teams", [401, 403, 403, 403, 200, 403, 403, 200, 200, 200, 403, 403]),
    ("post", "/teams", [401, 403, 403, 403, 403, 403, 403, 403, 201, 201, 403, 403]),
    ("get", "/teams/{team}", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/teams/{team}", [401, 403, 403, 403, 403, 404, 404, 404, 409, 409, 403, 403]),
    ("get", "/teams/{team}/keys", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/teams/{team}/keys", [401, 403, 403, 403, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("delete", "/teams/{team}/keys/{name}", [401, 403, 403, 403, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("get", "/teams/{team}/trust-rules", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/teams/{team}/trust-rules", [401, 403, 403, 403, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("get", "/teams/{team}/trust-rules/{name}", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("put", "/teams/{team}/trust-rules/{name}", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/teams/{team}/trust-rules/{name}", [401, 403, 403, 403, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("post", "/teams/{team}/trust-rules/explain", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/teams/{team}/lockdown", [401, 403, 403, 403, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("get", "/teams/{team}/lockdown", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/teams/{team}/lockdown", [401, 403, 403, 403, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("get", "/teams/{team}/webhooks", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("post", "/teams/{team}/webhooks", [401, 403, 403, 403, 201, 404, 404, 404, 201, 201, 403, 403]),
    ("get", "/teams/{team}/webhooks/{name}", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("delete", "/teams/{team}/webhooks/{name}", [401, 403, 403, 403, 204, 404, 404, 404, 204, 204, 403, 403]),
    ("post", "/teams/{team}/webhooks/{name}/test", [401, 403, 403, 403, 202, 404, 404, 404, 202, 202, 403, 403]),
    ("get", "/audit", [401, 403, 403, 403, 200, 404, 404, 404, 200, 200, 403, 403]),
    ("get", "/encryption-keys", [401, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403, 403]),
    ("get", "/encryption-keys/data-keys", [401, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403, 403]),
    ("post", "/encryption-keys/rotate", [401, 403, 403, 403, 403, 403, 403, 403, 202, 202, 403, 403]),
    ("post", "/encryption-keys/rewrap", [401, 403, 403, 403, 403, 403, 403, 403, 202, 202, 403, 403]),
    // The one that is there wraps; the journal's replica is not away.
    ("post", "/encryption-keys/retire", [401, 403, 403, 403, 403, 403, 403, 403, 409, 409, 403, 403]),
    ("post", "/encryption-keys/forget-journal", [401, 403, 403, 403, 403, 403, 403, 403, 409, 409, 403, 403]),
    ("get", "/platform/keys", [401, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403, 403]),
    ("post", "/platform/keys", [401, 403, 403, 403, 403, 403, 403, 403, 201, 201, 403, 403]),
    ("delete", "/platform/keys/{name}", [401, 403, 403, 403, 403, 403, 403, 403, 204, 204, 403, 403]),
    ("get", "/whoami", [401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("get", "/health/live", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    ("get", "/health/ready", [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200]),
    // The last one: afterwards the session is none.
    ("post", "/sessions", [401, 403, 403, 403, 403, 404, 404, 404, 403, 403, 201, 403]),
    ("delete", "/sessions/current", [401, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 204]),
];

/// A rule that no job fits.
fn never(world: &World, name: &str) -> Value {
    world.rule(name, json!({"claims": {"repository": "acme/web", "ref": "refs/heads/never"}}))
}

/// A request that would be done, were the caller allowed to: only then does the status speak of the role.
async fn attempt(world: &World, client: &Client, role: &str, method: &str, path: &str) -> Answer {
    let app = &world.app;
    let prefix = if path.contains("recreate") { "deploy-again" } else { "deploy" };
    let name = match (method, path) {
        ("delete", "/tokens/{name}") => format!("deploy-doomed-{role}"),
        (_, "/tokens/{name}/lockdown" | "/tokens/{name}/children/{token_id}") => prefix.to_owned(),
        ("delete", _) => format!("doomed-{role}"),
        _ => prefix.to_owned(),
    };
    let identity = || app.simulator.identity_token("someone");
    let body = match (method, path) {
        ("post", "/tokens") => json!({"name": format!("deploy-new-{role}"), "identity_token": identity()}),
        ("post", "/tokens/import") => {
            let pair = app.pair_made_by_hand(&format!("person-{role}")).await;
            json!({"name": format!("deploy-pasted-{role}"), "access_token": pair["access_token"], "refresh_token": pair["refresh_token"]})
        }
        ("post", "/tokens/{name}/recreate") => json!({"identity_token": identity()}),
        ("post", "/teams/{team}/keys") => json!({"name": format!("new-{role}"), "role": "ci"}),
        ("post", "/teams/{team}/trust-rules") => never(world, &format!("new-{role}")),
        ("put", _) => never(world, "deploy"),
        ("post", "/teams/{team}/webhooks") => json!({"name": format!("new-{role}"), "url": HOOKS}),
        ("post", "/teams/{team}/trust-rules/explain") => json!({"claims": {}}),
        ("post", "/teams" | "/platform/keys") => json!({"name": format!("new-{role}")}),
        ("post", "/encryption-keys/retire") => json!({"id": "k1"}),
        ("post", "/encryption-keys/forget-journal") => json!({"journal": app.journal_id()}),
        ("post" | "patch", _) => json!({}),
        _ => Value::Null,
    };
    let mut filled = path.replace("{name}", &name).replace("{team}", "payments");
    if filled.contains("{token_id}") {
        // Its own, where it may have one.
        let own = client.post(&format!("/tokens/{name}/issue?team=payments"), json!({})).await;
        let child =
            if own.status == 200 { own } else { app.admin.post(&format!("/tokens/{name}/issue"), json!({})).await.expect(200) };
        filled = filled.replace("{token_id}", child.json["token_id"].as_str().expect("an id"));
    }
    let query = if path.starts_with("/tokens") || ["/sessions", "/audit"].contains(&path) { "?team=payments" } else { "" };
    let method: Method = method.to_uppercase().parse().expect("a method");
    let asked = Instant::now();
    // Each role finds a lockdown, and leaves none.
    if path.ends_with("/lockdown") {
        app.admin.post(&filled, json!({})).await.expect(201);
    }
    let answer = loop {
        let request = client.request(method.clone(), &format!("{filled}{query}"));
        let answer = Answer::of(if body.is_null() { request } else { request.json(&body) }).await;
        // What the role before has begun may still be under way: then it is tried again, as the answer says.
        if answer.json["type"] != "/problems/busy" || asked.elapsed() > Duration::from_secs(20) {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    if path.ends_with("/lockdown") {
        app.platform.delete(&format!("{filled}{query}")).await;
    }
    answer
}

#[tokio::test]
async fn each_role_may_do_on_each_route_what_the_table_says_and_nothing_else() {
    let world = World::start_with_platform_admin(&[("repository_id", "1"), ("repository_owner_id", "11")]).await;
    let app = &world.app;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    world.write(world.rule("main", json!({"tokens": ["deploy*"]}))).await.expect(201);
    world.write(never(&world, "deploy")).await.expect(201);
    let job = world.job(json!({}));
    let session = job.post("/sessions", json!({})).await.expect(201);
    let session = job.with_key(session.json["session"].as_str().expect("a session").to_owned());
    let clients = [
        app.ci.nobody(),
        app.viewer.clone(),
        app.ci.clone(),
        app.team_key("payments", "narrow-ci", json!({"role": "ci", "tokens": ["other-*"]})).await,
        app.admin.clone(),
        app.team_key("orders", "viewer", json!({"role": "viewer"})).await,
        app.team_key("orders", "ci", json!({"role": "ci"})).await,
        app.team_key("orders", "admin", json!({"role": "admin"})).await,
        app.platform.clone(),
        world.job(json!({"repository": "acme/infra", "repository_id": "1", "sub": "repo:acme/infra:ref:refs/heads/main"})),
        job,
        session,
    ];
    for name in ["deploy", "deploy-again"] {
        app.register(name).await;
    }
    for role in ["admin", "platform-admin", "platform-identity"] {
        app.register(&format!("deploy-doomed-{role}")).await;
    }
    for role in ROLES {
        app.admin.post("/teams/payments/keys", json!({"name": format!("doomed-{role}"), "role": "ci"})).await.expect(201);
        app.platform.post("/platform/keys", json!({"name": format!("doomed-{role}")})).await.expect(201);
        world.write(never(&world, &format!("doomed-{role}"))).await.expect(201);
        app.admin.post("/teams/payments/webhooks", json!({"name": format!("doomed-{role}"), "url": HOOKS})).await.expect(201);
    }
    app.admin.post("/teams/payments/webhooks", json!({"name": "deploy", "url": HOOKS})).await.expect(201);
    let mut wrong = Vec::new();
    for (method, path, expected) in TABLE {
        for ((role, client), expected) in ROLES.iter().zip(&clients).zip(expected) {
            let answer = attempt(&world, client, role, method, path).await;
            if answer.status != *expected {
                wrong.push(format!("{method} {path} as {role}: {} instead of {expected}: {}", answer.status, answer.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_route_of_the_document_has_a_row_and_every_row_a_route() {
    let document: Value = serde_json::from_str(&token_broker::api::openapi_json().expect("a document")).expect("JSON");
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys().filter(|key| *key != "parameters") {
            routes.insert((method.as_str(), path.as_str()));
        }
    }
    let rows: BTreeSet<(&str, &str)> = TABLE.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(rows, routes);
    assert_eq!(rows.len(), TABLE.len(), "a row is there twice");
}

#[tokio::test]
async fn a_narrow_admin_manages_what_its_grant_covers_and_sees_nothing_else() {
    let app = TestApp::start().await;
    app.register("deploy-a").await;
    app.register("secret").await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["deploy-*"]})).await;
    narrow.patch("/tokens/deploy-a", json!({"reuse_for": 60})).await.expect(200);
    for answer in [
        narrow.get("/tokens/secret").await,
        narrow.patch("/tokens/secret", json!({"reuse_for": 60})).await,
        narrow.delete("/tokens/secret").await,
        narrow.refresh("secret", json!({})).await,
        narrow.post("/tokens/secret/recreate", json!({"identity_token": "x"})).await,
        narrow.post("/tokens", json!({"name": "secret", "identity_token": "x"})).await,
    ] {
        answer.refused(404, "not-found");
    }
    app.admin.get("/tokens/secret").await.expect(200);
}
