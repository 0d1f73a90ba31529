//! The controls over HTTP.

use super::{World, told};
use reqwest::Method;
use serde_json::{Value, json};

async fn sim(world: &World, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/_sim/{path}", world.simulator.url());
    let request = world.http.request(method, url);
    told(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn knobs_are_patched_field_by_field() {
    let world = World::new().await;
    let patch = json!({
        "old_access_token": { "cached_seconds": 7 },
        "expires_in_on_refresh": { "capped": 60 },
        "max_expiry_seconds": 99,
    });
    let (status, knobs) = sim(&world, Method::PATCH, "knobs", Some(patch)).await;
    assert_eq!(status, 200);
    assert_eq!(knobs["old_access_token"], json!({ "cached_seconds": 7 }));
    assert_eq!(knobs["refresh_window_seconds"], 86_400);
    let patch = json!({ "old_access_token": "valid", "max_expiry_seconds": null });
    let (_, knobs) = sim(&world, Method::PATCH, "knobs", Some(patch)).await;
    assert_eq!(knobs["max_expiry_seconds"], Value::Null);
    let wrong = json!({ "old_acces_token": "valid" });
    assert_eq!(sim(&world, Method::PATCH, "knobs", Some(wrong)).await.0, 400);
    assert_eq!(sim(&world, Method::GET, "knobs", None).await, (200, knobs));
}

#[tokio::test]
async fn faults_are_added_listed_met_and_cleared() {
    let world = World::new().await;
    let rule = json!({ "fault": { "rate_limited": { "retry_after": "7" } }, "route": "me" });
    assert_eq!(sim(&world, Method::POST, "faults", Some(rule)).await.0, 201);
    let rule = json!({ "fault": "unavailable", "route": "any", "times": null, "probability": 0.5 });
    sim(&world, Method::POST, "faults", Some(rule.clone())).await;
    let (_, rules) = sim(&world, Method::GET, "faults", None).await;
    assert_eq!(rules[0]["times"], 1);
    assert_eq!(rules[0]["route"], "me");
    assert_eq!(rules[1], rule);
    assert_eq!(world.me(&world.identity).await.0, 429);
    assert_eq!(sim(&world, Method::DELETE, "faults", None).await.0, 204);
    assert_eq!(sim(&world, Method::GET, "faults", None).await.1, json!([]));
    let wrong = json!({ "fault": "no_such" });
    assert_eq!(sim(&world, Method::POST, "faults", Some(wrong)).await.0, 422);
}

#[tokio::test]
async fn users_are_made_disabled_enabled_and_given_identity_tokens() {
    let world = World::new().await;
    let user = json!({ "name": "a/b", "groups": ["dev"] });
    let (status, made) = sim(&world, Method::POST, "users", Some(user)).await;
    assert_eq!(status, 201);
    let token = made["identity_token"].as_str().unwrap();
    let asked = json!({ "scope": "applied-permissions/groups:dev" });
    assert_eq!(told(world.post(token, &asked)).await.0, 200);
    let disabled = sim(&world, Method::POST, "users/a%2Fb/disable", None).await;
    assert_eq!(disabled.0, 200);
    assert_eq!(world.me(token).await.0, 401);
    sim(&world, Method::POST, "users/a%2Fb/enable", None).await;
    assert_eq!(world.me(token).await.0, 200);
    let (_, new) = sim(&world, Method::POST, "users/a%2Fb/identity-token", None).await;
    assert_eq!(world.me(new["identity_token"].as_str().unwrap()).await.0, 200);
    let unknown = sim(&world, Method::POST, "users/nobody/identity-token", None).await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn tokens_secrets_and_calls_are_told() {
    let world = World::new().await;
    let pair = world.pair(json!({ "description": "d" })).await;
    world.refresh(&pair).await;
    let (_, tokens) = sim(&world, Method::GET, "tokens", None).await;
    let old = &tokens["tokens"][1];
    assert_eq!(old["token_id"], pair.id);
    assert_eq!((&old["alive"], &old["refresh_token_unused"]), (&json!(false), &json!(false)));
    assert_eq!(old["replaced_by"], tokens["tokens"][2]["token_id"]);
    let (_, secrets) = sim(&world, Method::GET, "secrets", None).await;
    let secrets = secrets["secrets"].as_array().unwrap();
    for value in [&pair.access, &pair.refresh, &world.identity] {
        assert!(secrets.contains(&json!(value)));
    }
    let (_, log) = sim(&world, Method::GET, "calls?last=1", None).await;
    let call = &log["calls"][0];
    assert_eq!(log["calls"].as_array().unwrap().len(), 1);
    assert_eq!((&call["route"], &call["status"]), (&json!("refresh"), &json!(200)));
    assert_eq!((&call["user"], &call["target_token_id"]), (&json!("ci"), &json!(pair.id)));
    assert_eq!(log["refreshes"], 1);
    assert_eq!(log["max_refreshes_of_one_refresh_token_in_flight"], 1);
    let counter = json!({ "calls": 1, "committed": 1, "succeeded": 1, "dropped": 0 });
    assert_eq!(log["counters"]["refresh"], counter);
}

#[tokio::test]
async fn clock_key_and_rows_are_moved() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let before = world.simulator.now();
    let by = json!({ "advance_seconds": 1000 });
    let (_, clock) = sim(&world, Method::POST, "clock", Some(by)).await;
    assert!(clock["now"].as_i64().unwrap() >= before + 1000);
    let revoke = format!("tokens/{}/revoke", pair.id);
    assert_eq!(sim(&world, Method::POST, &revoke, None).await.0, 200);
    assert!(!world.simulator.is_alive(&pair.access));
    assert!(world.simulator.is_alive(&world.identity));
    let (_, old) = sim(&world, Method::GET, "signing-key", None).await;
    let (status, new) = sim(&world, Method::POST, "signing-key/rotate", None).await;
    assert_eq!(status, 200);
    assert_ne!(old, new);
    assert!(!world.simulator.is_alive(&world.identity));
}
