//! Each way to go wrong.

use super::super::{Fault, Filter, Route, Rule};
use super::{Pair, World, forbidden, not_found_by_refresh_token, told};
use reqwest::Response;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the refresh of a pair to a simulator with one fault.
async fn refresh_under(world: &World, fault: Fault, pair: &Pair) -> reqwest::Result<Response> {
    world.simulator.fault(Rule::once(fault, Route::Refresh));
    let asked = json!({ "grant_type": "refresh_token", "refresh_token": pair.refresh });
    world.post(&pair.access, &asked).send().await
}

#[tokio::test]
async fn a_response_dropped_after_commit_is_an_error_and_the_retry_finds_nothing() {
    let world = World::new().await;
    let pair = world.pair(json!({ "description": "d" })).await;
    let error = refresh_under(&world, Fault::DropResponseAfterCommit, &pair).await.unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert_eq!(world.simulator.refreshes(), 1);
    assert_eq!(world.simulator.calls().last().unwrap().status, None);
    assert_eq!(world.refresh(&pair).await, not_found_by_refresh_token());
    let list = world.get("/access/api/v1/tokens?description=d", &world.identity);
    let (_, orphans) = told(list).await;
    let orphan = orphans["tokens"][0]["token_id"].as_str().unwrap();
    assert_eq!(told(world.delete(orphan, &world.identity)).await.0, 200);
}

#[tokio::test]
async fn a_connection_dropped_before_commit_leaves_the_refresh_token_good() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let error = refresh_under(&world, Fault::DropBeforeCommit, &pair).await.unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert_eq!(world.simulator.refreshes(), 0);
    assert_eq!(world.refresh(&pair).await.0, 200);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_stop_the_commit() {
    let world = World::new().await;
    for fault in [Fault::DelayBeforeCommit { ms: 400 }, Fault::DelayAfterCommit { ms: 400 }] {
        let pair = world.pair(json!({})).await;
        let before = world.simulator.refreshes();
        world.simulator.fault(Rule::once(fault.clone(), Route::Refresh));
        let asked = json!({ "grant_type": "refresh_token", "refresh_token": pair.refresh });
        let request = world.post(&pair.access, &asked);
        let request = request.timeout(Duration::from_millis(150));
        assert!(request.send().await.unwrap_err().is_timeout());
        let committed = !world.simulator.is_alive(&pair.access);
        assert_eq!(committed, fault == Fault::DelayAfterCommit { ms: 400 });
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(world.simulator.refreshes(), before + 1);
    }
}

#[tokio::test]
async fn a_delayed_answer_comes() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let began = Instant::now();
    let response = refresh_under(&world, Fault::DelayAfterCommit { ms: 200 }, &pair).await;
    assert_eq!(response.unwrap().status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn faults_in_front_of_the_server_commit_nothing() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    let location = "http://127.0.0.1:1/login".to_owned();
    for (fault, status, content_type) in [
        (Fault::BadGatewayHtml, 502, "text/html"),
        (Fault::Unavailable, 503, "text/html"),
        (Fault::Html404, 404, "text/html"),
        (Fault::Redirect { location }, 302, "text/html"),
        (Fault::RateLimited { retry_after: None }, 429, "application/json"),
        (Fault::Forbidden, 403, "application/json"),
        (Fault::Unauthorized, 401, "application/json"),
    ] {
        let response = refresh_under(&world, fault.clone(), &pair).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], content_type);
        let location = response.headers().contains_key("location");
        assert_eq!(location, status == 302);
        assert!(!response.headers().contains_key("retry-after"));
    }
    assert_eq!(world.refresh(&pair).await.0, 200);
}

#[tokio::test]
async fn a_rate_limit_may_say_when_to_come_back() {
    let world = World::new().await;
    let pair = world.pair(json!({})).await;
    for when in ["7", "Mon, 23 Nov 2026 20:00:00 GMT"] {
        let retry_after = Some(when.to_owned());
        let response = refresh_under(&world, Fault::RateLimited { retry_after }, &pair).await;
        assert_eq!(response.unwrap().headers()["retry-after"], when);
    }
}

#[tokio::test]
async fn a_spoiled_answer_comes_after_the_commit() {
    let world = World::new().await;
    let mut pair = world.pair(json!({})).await;
    for (count, fault) in [
        Fault::TruncatedJson,
        Fault::ExpiresInString,
        Fault::ExpiresInAbsent,
        Fault::NoRefreshToken,
        Fault::HugeBody { bytes: 3_000_000 },
    ]
    .into_iter()
    .enumerate()
    {
        let response = refresh_under(&world, fault.clone(), &pair).await.unwrap();
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let answer = serde_json::from_str::<Value>(&text).unwrap_or_default();
        match fault {
            Fault::TruncatedJson => assert!(answer.is_null() && text.len() > 100),
            Fault::ExpiresInString => assert_eq!(answer["expires_in"], "31536000"),
            Fault::ExpiresInAbsent => assert_eq!(answer.get("expires_in"), None),
            Fault::NoRefreshToken => assert_eq!(answer.get("refresh_token"), None),
            _ => assert!(text.len() > 3_000_000),
        }
        assert_eq!(world.simulator.refreshes(), count + 1);
        pair = world.pair(json!({})).await;
    }
}

#[tokio::test]
async fn an_incident_is_a_403_on_everything_until_it_is_over() {
    let world = World::new().await;
    world.simulator.fault(Rule::always(Fault::Forbidden));
    for _ in 0..3 {
        assert_eq!(world.me(&world.identity).await, forbidden());
        assert_eq!(told(world.post(&world.identity, &json!({}))).await, forbidden());
    }
    world.simulator.clear_faults();
    assert_eq!(world.me(&world.identity).await.0, 200);
}

#[tokio::test]
async fn rules_are_met_one_by_one_by_their_route_and_count() {
    let world = World::new().await;
    let rule = |fault, times, probability| Rule { fault, route: Filter::Only(Route::Me), times, probability };
    world.simulator.fault(rule(Fault::Html404, None, 0.0));
    world.simulator.fault(rule(Fault::Unavailable, Some(2), 1.0));
    world.simulator.fault(rule(Fault::Unauthorized, Some(1), 1.0));
    assert_eq!(told(world.post(&world.identity, &json!({}))).await.0, 200);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(world.me(&world.identity).await.0);
    }
    assert_eq!(statuses, [503, 503, 401, 200]);
    assert_eq!(world.simulator.faults().len(), 1);
}

#[tokio::test]
async fn a_dropped_connection_ends_without_a_single_byte() {
    let world = World::new().await;
    let drop = Rule::once(Fault::DropResponseAfterCommit, Route::Ping);
    world.simulator.fault(drop);
    let address = world.simulator.url().replace("http://", "");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = b"GET /access/api/v1/system/ping HTTP/1.1\r\nhost: sim\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.is_empty());
}
