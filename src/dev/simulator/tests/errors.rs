//! The table of errors, row by row.

use super::{TOKENS, World, access_error, forbidden, not_found_by_refresh_token, told, unauthorized};
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

async fn refused(world: &World, asked: Value) -> (u16, Value) {
    told(world.post(&world.identity, &asked)).await
}

#[tokio::test]
async fn an_unknown_refresh_token_is_not_found() {
    let world = World::new().await;
    let answer = world.refresh_with(&world.identity, "no-such", json!({})).await;
    assert_eq!(answer, not_found_by_refresh_token());
}

#[tokio::test]
async fn each_bad_bearer_has_its_message() {
    let world = World::new().await;
    assert_eq!(world.me("junk").await, unauthorized("Invalid token, parse"));
    assert_eq!(world.me("a.b.c").await, unauthorized("Invalid token, parse"));
    let narrow = world.pair(json!({ "audience": "jfrt@*" })).await;
    let audience = unauthorized("Invalid token, audience");
    assert_eq!(world.me(&narrow.access).await, audience);
    let pair = world.pair(json!({})).await;
    world.refresh(&pair).await;
    let revoked = unauthorized("Invalid token, revoked");
    assert_eq!(world.me(&pair.access).await, revoked);
    let short = world.pair(json!({ "expires_in": 3600 })).await;
    world.simulator.advance(Duration::from_secs(3601));
    let expired = unauthorized("Invalid token, expired");
    assert_eq!(world.me(&short.access).await, expired);
    world.simulator.rotate_signing_key();
    let signature = unauthorized("Invalid token, signature");
    assert_eq!(world.me(&world.identity).await, signature);
    let answer = told(world.http.get(world.simulator.url() + TOKENS)).await;
    assert_eq!(answer, unauthorized("Unauthorized"));
}

#[tokio::test]
async fn a_token_with_a_changed_claim_has_a_bad_signature() {
    let world = World::new().await;
    let root = world.simulator.add_user("root", true);
    let (ours, theirs): (Vec<_>, Vec<_>) = (world.identity.split('.').collect(), root.split('.').collect());
    let forged = format!("{}.{}.{}", ours[0], theirs[1], ours[2]);
    assert_eq!(world.me(&forged).await, unauthorized("Invalid token, signature"));
}

#[tokio::test]
async fn what_is_not_allowed_is_forbidden() {
    let world = World::with(|knobs| knobs.max_expiry_seconds = Some(1000)).await;
    let group = ["dev".to_owned()];
    let member = world.simulator.add_user_in_groups("dev1", false, &group);
    for asked in [
        json!({ "scope": "applied-permissions/admin" }),
        json!({ "scope": "applied-permissions/groups:dev" }),
        json!({ "scope": "applied-permissions/user system:metrics:r" }),
        json!({ "username": "someone-else" }),
        json!({ "expires_in": 1001 }),
        json!({ "expires_in": 0 }),
    ] {
        assert_eq!(refused(&world, asked).await, forbidden());
    }
    let asked = json!({ "scope": "applied-permissions/groups:dev" });
    assert_eq!(told(world.post(&member, &asked)).await.0, 200);
    let asked = json!({ "scope": "applied-permissions/groups:dev,ops" });
    assert_eq!(told(world.post(&member, &asked)).await, forbidden());
}

#[tokio::test]
async fn another_users_tokens_are_forbidden() {
    let world = World::new().await;
    let other = world.simulator.add_user("other", false);
    let pair = world.pair(json!({})).await;
    assert_eq!(world.refresh_with(&other, &pair.refresh, json!({})).await, forbidden());
    assert_eq!(told(world.delete(&pair.id, &other)).await, forbidden());
    let path = format!("{TOKENS}/{}", pair.id);
    assert_eq!(told(world.get(&path, &other)).await, forbidden());
    assert_eq!(world.refresh(&pair).await.0, 200);
}

#[tokio::test]
async fn bad_parameters_are_bad_requests() {
    let world = World::new().await;
    for asked in [
        json!({ "expires_in": "soon" }),
        json!({ "expires_in": -1 }),
        json!({ "description": "d".repeat(1025) }),
        json!({ "scope": "s".repeat(501) }),
        json!({ "audience": "a".repeat(256) }),
        json!({ "project_key": "p" }),
        json!({ "scope": "no-such-scope" }),
    ] {
        let (status, answer) = refused(&world, asked).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["code"], "BAD_REQUEST");
        assert!(answer["message"].is_string() && answer["detail"].is_string());
    }
    let asked = json!({ "description": "d".repeat(1024), "expires_in": "60", "unknown": 1 });
    assert_eq!(refused(&world, asked).await.0, 200);
}

#[tokio::test]
async fn the_grant_itself_is_judged_in_the_legacy_shape() {
    let world = World::new().await;
    let (status, answer) = refused(&world, json!({ "grant_type": "password" })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("unsupported_grant_type")));
    assert!(answer["error_description"].is_string());
    let (status, answer) = refused(&world, json!({ "grant_type": "refresh_token" })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_token_of_another_instance_cannot_refresh() {
    let (world, other) = (World::new().await, World::new().await);
    let pair = other.pair(json!({})).await;
    assert_eq!(world.refresh(&pair).await.0, 400);
    let signature = unauthorized("Invalid token, signature");
    assert_eq!(world.me(&pair.access).await, signature);
}

#[tokio::test]
async fn a_short_lived_token_is_not_revocable_unless_forced_in_json() {
    let world = World::new().await;
    let short = world.pair(json!({ "expires_in": 6 * 3600 - 1 })).await;
    let (status, answer) = told(world.delete(&short.id, &world.identity)).await;
    assert_eq!((status, &answer["message"]), (400, &json!("Token not revocable")));
    assert!(world.simulator.is_alive(&short.access));
    let six = world.pair(json!({ "expires_in": 6 * 3600 })).await;
    assert_eq!(told(world.delete(&six.id, &world.identity)).await.0, 200);
    let forced = world.pair(json!({ "expires_in": 60, "force_revocable": true })).await;
    assert_eq!(told(world.delete(&forced.id, &world.identity)).await.0, 200);
    let form = [("expires_in", "60"), ("force_revocable", "true"), ("refreshable", "true")];
    let url = world.simulator.url() + TOKENS;
    let request = world.http.post(url).bearer_auth(&world.identity).form(&form);
    let (_, answer) = told(request).await;
    let id = answer["token_id"].as_str().unwrap();
    assert_eq!(told(world.delete(id, &world.identity)).await.0, 400);
}

#[tokio::test]
async fn a_token_too_short_to_be_stored_is_not_found() {
    let world = World::new().await;
    let asked = json!({ "expires_in": 3 * 3600 - 1 });
    let (_, answer) = told(world.post(&world.identity, &asked)).await;
    let (id, access) = (&answer["token_id"], answer["access_token"].as_str().unwrap());
    assert!(world.simulator.is_alive(access));
    assert_eq!(world.me(access).await.0, 404);
    let path = format!("{TOKENS}/{}", id.as_str().unwrap());
    assert_eq!(told(world.get(&path, &world.identity)).await.0, 404);
    let (_, list) = told(world.get(TOKENS, &world.identity)).await;
    assert_eq!(list["tokens"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_delete_in_the_name_of_a_form_is_not_allowed() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let request = world.delete(&pair.id, &world.identity);
    let form = "application/x-www-form-urlencoded";
    assert_eq!(told(request.header("content-type", form)).await.0, 405);
    assert!(world.simulator.is_alive(&pair.access));
}

#[tokio::test]
async fn other_addresses_do_not_exist() {
    let world = World::new().await;
    for path in ["/access/api/v1/tokens/refresh/x", "/access/api/v2/tokens", "/", "/_sim"] {
        let answer = told(world.get(path, &world.identity)).await;
        assert_eq!(answer, (404, access_error("NOT_FOUND", "Not Found")));
    }
    let url = format!("{}{TOKENS}/refresh", world.simulator.url());
    assert_eq!(told(world.http.post(url)).await.0, 404);
}

#[tokio::test]
async fn a_disabled_user_can_do_nothing() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    world.simulator.advance(DAY);
    assert!(world.simulator.disable("ci"));
    assert_eq!(world.me(&world.identity).await.0, 401);
    assert_eq!(world.refresh(&pair).await.0, 401);
    assert!(world.simulator.enable("ci"));
    assert_eq!(world.refresh(&pair).await.0, 200);
}
