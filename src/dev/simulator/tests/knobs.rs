//! Each knob turned.

use super::super::{ExpiresInOnRefresh, OldAccessToken};
use super::{Pair, World, not_found_by_refresh_token, told, unauthorized};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_old_access_token_lives_as_long_as_the_knob_says() {
    let world = World::new().await;
    for (knob, at_once, later) in [
        (OldAccessToken::Revoked, false, false),
        (OldAccessToken::CachedSeconds(60), true, false),
        (OldAccessToken::Valid, true, true),
    ] {
        world.simulator.knobs(|k| k.old_access_token = knob);
        let pair = world.pair(json!({})).await;
        assert_eq!(world.refresh(&pair).await.0, 200);
        assert_eq!(world.simulator.is_alive(&pair.access), at_once);
        let row = world.me(&pair.access).await.0;
        assert_eq!(row, if at_once { 404 } else { 401 });
        world.simulator.advance(Duration::from_secs(61));
        assert_eq!(world.simulator.is_alive(&pair.access), later);
    }
}

#[tokio::test]
async fn tokens_that_bear_no_signature_are_believed_only_while_the_knob_says_so() {
    let world = World::new().await;
    world.simulator.knobs(|k| k.sign_tokens = false);
    let pair = world.pair(json!({})).await;
    let (status, answer) = world.refresh(&pair).await;
    assert_eq!(status, 200);
    let new = Pair::of(&answer);
    assert_eq!(world.me(&pair.access).await.0, 401, "it was refreshed: only its signature is not asked for");
    assert_eq!(world.me(&new.access).await.0, 200);
    world.simulator.knobs(|k| k.sign_tokens = true);
    assert_eq!(world.me(&new.access).await.0, 401);
}

#[tokio::test]
async fn an_expired_bearer_refreshes_inside_the_window_only() {
    let world = World::new().await;
    let expired = unauthorized("Invalid token, expired");
    let pair = world.pair(json!({ "expires_in": 100 })).await;
    world.simulator.advance(Duration::from_secs(100 + 86_300));
    assert_eq!(world.me(&pair.access).await, expired);
    let (status, answer) = world.refresh(&pair).await;
    assert_eq!(status, 200);
    let new = Pair::of(&answer);
    world.simulator.advance(Duration::from_secs(100 + 86_401));
    assert_eq!(world.refresh(&new).await, expired);
    world.simulator.knobs(|k| k.refresh_window_seconds = 0);
    let pair = world.pair(json!({ "expires_in": 100 })).await;
    world.simulator.advance(Duration::from_secs(101));
    assert_eq!(world.refresh(&pair).await, expired);
}

#[tokio::test]
async fn expires_in_on_refresh_is_ignored_honoured_or_capped() {
    let world = World::new().await;
    let asked = json!({ "expires_in": 500 });
    let none = json!({});
    for (knob, asked, lifetime) in [
        (ExpiresInOnRefresh::Ignored, &asked, json!(10_000)),
        (ExpiresInOnRefresh::Honoured, &asked, json!(500)),
        (ExpiresInOnRefresh::Honoured, &none, json!(10_000)),
        (ExpiresInOnRefresh::Capped(400), &asked, json!(400)),
        (ExpiresInOnRefresh::Capped(400), &none, json!(400)),
    ] {
        world.simulator.knobs(|k| k.expires_in_on_refresh = knob);
        let pair = world.pair(json!({ "expires_in": 10_000 })).await;
        let (status, answer) = world.refresh_with(&pair.access, &pair.refresh, asked.clone()).await;
        assert_eq!((status, &answer["expires_in"]), (200, &lifetime), "{knob:?}");
    }
}

#[tokio::test]
async fn success_may_be_a_201() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    world.simulator.knobs(|k| k.success_status = 201);
    assert_eq!(world.refresh(&pair).await.0, 201);
    assert_eq!(told(world.post(&world.identity, &json!({}))).await.0, 201);
}

#[tokio::test]
async fn refreshable_may_be_off_without_an_error() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    world.simulator.knobs(|k| k.allow_refreshable = false);
    let asked = json!({ "refreshable": true });
    let (status, answer) = told(world.post(&world.identity, &asked)).await;
    assert_eq!((status, answer.get("refresh_token")), (200, None));
    let (status, answer) = world.refresh(&pair).await;
    assert_eq!((status, answer.get("refresh_token")), (200, None));
}

#[tokio::test]
async fn the_default_lifetime_is_a_knob_and_stays_under_the_maximum() {
    let world = World::with(|k| k.default_expires_in_seconds = 1000).await;
    let lifetime = async || {
        let (_, answer) = told(world.post(&world.identity, &json!({}))).await;
        answer.get("expires_in").and_then(Value::as_u64)
    };
    assert_eq!(lifetime().await, Some(1000));
    world.simulator.knobs(|k| k.max_expiry_seconds = Some(900));
    assert_eq!(lifetime().await, Some(900));
    world.simulator.knobs(|k| {
        k.max_expiry_seconds = None;
        k.default_expires_in_seconds = 0;
    });
    assert_eq!(lifetime().await, None);
}

#[tokio::test]
async fn every_call_takes_its_latency() {
    let world = World::with(|k| k.latency_ms = 150).await;
    let began = Instant::now();
    world.me(&world.identity).await;
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_user_is_locked_after_so_many_bad_bearers_in_a_row() {
    let world = World::with(|k| k.lock_user_after_bad_bearers = Some(2)).await;
    let pair = world.pair(json!({})).await;
    let gone = world.pair(json!({})).await;
    told(world.delete("me", &gone.access)).await;
    assert_eq!(world.me(&gone.access).await.0, 401);
    assert_eq!(world.me(&world.identity).await.0, 200, "a good one starts the count anew");
    assert_eq!(world.me(&gone.access).await.0, 401);
    assert_eq!(world.me(&gone.access).await.0, 401);
    let (status, answer) = world.refresh(&pair).await;
    assert_eq!((status, &answer["errors"][0]["status"]), (403, &json!(403)));
    assert_eq!(world.me(&world.identity).await.0, 403);
    world.simulator.enable("ci");
    assert_eq!(world.refresh(&pair).await.0, 200);
    assert_eq!(world.refresh(&pair).await, not_found_by_refresh_token());
}
