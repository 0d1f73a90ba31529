//! What works.

use super::{Pair, TOKENS, World, not_found_by_refresh_token, told};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

#[tokio::test]
async fn a_form_creates_a_pair_and_the_answer_is_pretty_printed() {
    let world = World::new().await;
    let form = [("refreshable", "true"), ("include_reference_token", "true"), ("description", "für ü&ö")];
    let url = world.simulator.url() + TOKENS;
    let request = world.http.post(url).bearer_auth(&world.identity).form(&form);
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\n  \"token_type\" : \"Bearer\""), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["description"], "für ü&ö");
    assert_eq!(answer["scope"], "applied-permissions/user");
    assert_eq!(answer["expires_in"], 365 * 86_400);
    assert_eq!(answer["refresh_token"].as_str().unwrap().len(), 36);
    let reference = answer["reference_token"].as_str().unwrap();
    assert_eq!(reference.len(), 64);
    let decoded = String::from_utf8(STANDARD.decode(reference).unwrap()).unwrap();
    assert!(decoded.starts_with("reftkn:01:"), "{decoded}");
    assert_eq!(world.me(reference).await.0, 200);
}

#[tokio::test]
async fn the_access_token_is_a_jwt_that_verifies_with_the_public_key() {
    let world = World::new().await;
    let pair = world.pair(json!({ "audience": "jfac@* jfrt@*" })).await;
    assert!((750..=900).contains(&pair.access.len()), "{}", pair.access.len());
    let key = DecodingKey::from_rsa_pem(world.simulator.public_key_pem().as_bytes()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["jfrt@*"]);
    let claims = jsonwebtoken::decode::<Value>(&pair.access, &key, &validation).unwrap().claims;
    assert_eq!(claims["jti"], pair.id);
    assert_eq!(claims["scp"], "applied-permissions/user");
    assert_eq!(claims["aud"], json!(["jfac@*", "jfrt@*"]));
    assert_eq!(claims["ext"], r#"{"revocable":"true"}"#);
    let sub = format!("{}/users/ci", claims["iss"].as_str().unwrap());
    assert_eq!(claims["sub"], sub);
}

#[tokio::test]
async fn a_token_that_never_expires_says_nothing_of_it() {
    let world = World::new().await;
    let asked = json!({ "expires_in": 0, "include_reference_token": true });
    let (status, answer) = told(world.post(&world.identity, &asked)).await;
    assert_eq!(status, 200);
    assert_eq!(answer.get("expires_in"), None);
    assert_eq!(answer.get("refresh_token"), None);
    let reference = STANDARD.decode(answer["reference_token"].as_str().unwrap());
    assert!(reference.unwrap().starts_with(b"reftkn:01:0000000000:"));
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair_once_and_keeps_scope_and_description() {
    let world = World::new().await;
    let pair = world.pair(json!({ "description": "d", "scope": "artifact:a/b:r", "include_reference_token": true })).await;
    let (status, answer) = world.refresh(&pair).await;
    assert_eq!(status, 200, "{answer}");
    let new = Pair::of(&answer);
    assert_eq!(answer["description"], "d");
    assert_eq!(answer["scope"], "artifact:a/b:r");
    assert_eq!(answer.get("reference_token"), None);
    assert_ne!(new.id, pair.id);
    assert_ne!(new.refresh, pair.refresh);
    assert!(!world.simulator.is_alive(&pair.access));
    assert!(world.simulator.is_alive(&new.access));
    assert_eq!(world.refresh(&pair).await, not_found_by_refresh_token());
    let again = world.refresh_with(&new.access, &new.refresh, json!({ "include_reference_token": true })).await;
    assert_eq!(again.0, 200);
    assert_eq!(again.1["reference_token"].as_str().unwrap().len(), 64);
    assert_eq!(world.simulator.refreshes(), 2);
}

#[tokio::test]
async fn a_user_with_another_valid_token_refreshes_and_with_a_reference_token_too() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let asked = json!({ "include_reference_token": true });
    let (_, other) = told(world.post(&world.identity, &asked)).await;
    let bearer = other["reference_token"].as_str().unwrap();
    assert_eq!(world.refresh_with(bearer, &pair.refresh, json!({})).await.0, 200);
}

#[tokio::test]
async fn of_two_overlapping_refreshes_one_finds_no_row() {
    let world = World::with(|knobs| knobs.latency_ms = 100).await;
    let pair = world.pair(json!({})).await;
    let (one, other) = tokio::join!(world.refresh(&pair), world.refresh(&pair));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
    assert_eq!(world.simulator.refreshes(), 1);
    assert_eq!(world.simulator.max_refreshes_in_flight(), 2);
}

#[tokio::test]
async fn the_list_shows_own_tokens_by_filter_and_never_a_value() {
    let world = World::new().await;
    let pair = world.pair(json!({ "description": "broker/a", "expires_in": 0 })).await;
    world.pair(json!({ "description": "other" })).await;
    let root = world.simulator.add_user("root", true);
    let filter = format!("{TOKENS}?description=broker%2F*&refreshable=true&username=ci");
    let (status, answer) = told(world.get(&filter, &world.identity)).await;
    assert_eq!(status, 200);
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0]["token_id"], pair.id);
    assert_eq!(tokens[0]["refreshable"], true);
    assert_eq!(tokens[0].get("expiry"), None);
    let (_, all) = told(world.get(TOKENS, &world.identity)).await;
    assert_eq!(all["tokens"].as_array().unwrap().len(), 3);
    let (_, all) = told(world.get(TOKENS, &root)).await;
    assert_eq!(all["tokens"].as_array().unwrap().len(), 4);
    let (_, by_id) = told(world.get(&format!("{TOKENS}?token_id={}", pair.id), &root)).await;
    assert_eq!(by_id["tokens"].as_array().unwrap().len(), 1);
    for secret in world.simulator.secrets() {
        assert!(!all.to_string().contains(&secret));
    }
}

#[tokio::test]
async fn a_token_is_read_by_id_and_as_me_then_revoked() {
    let world = World::new().await;
    let pair = world.pair(json!({ "description": "d" })).await;
    let path = format!("{TOKENS}/{}", pair.id);
    let (status, by_id) = told(world.get(&path, &world.identity)).await;
    assert_eq!((status, &by_id["token_id"]), (200, &json!(pair.id)));
    let (status, me) = world.me(&pair.access).await;
    assert_eq!((status, &me["description"]), (200, &json!("d")));
    assert_eq!(told(world.delete(&pair.id, &world.identity)).await.0, 200);
    assert_eq!(told(world.delete(&pair.id, &world.identity)).await.0, 204);
    assert_eq!(told(world.get(&path, &world.identity)).await.0, 404);
    assert_eq!(world.me(&pair.access).await.0, 401);
    assert_eq!(world.refresh(&pair).await, not_found_by_refresh_token());
    let other = world.pair(json!({})).await;
    assert_eq!(told(world.delete("me", &other.access)).await.0, 200);
    assert!(!world.simulator.is_alive(&other.access));
}

#[tokio::test]
async fn an_administrator_makes_tokens_for_others() {
    let world = World::new().await;
    let root = world.simulator.add_user("root", true);
    let asked = json!({ "username": "a/b@c", "scope": "applied-permissions/admin" });
    let (status, answer) = told(world.post(&root, &asked)).await;
    assert_eq!(status, 200);
    let (_, me) = world.me(answer["access_token"].as_str().unwrap()).await;
    assert!(me["subject"].as_str().unwrap().ends_with("/users/a/b@c"));
}

#[tokio::test]
async fn ping_needs_no_bearer() {
    let world = World::new().await;
    for path in ["/access/api/v1/system/ping", "/artifactory/api/system/ping"] {
        let answer = told(world.http.get(world.simulator.url() + path)).await;
        assert_eq!(answer, (200, json!("OK")));
    }
}
