//! What lasts, and what time does.

use super::super::{OldAccessToken, Simulator};
use super::{ANY_PORT, World, not_found_by_refresh_token};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[tokio::test]
async fn a_state_file_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("simulator.json");
    let start = async || Simulator::start(ANY_PORT.parse().unwrap(), Some(file.clone())).await.unwrap();
    let world = World::of(start().await);
    world.simulator.knobs(|k| k.old_access_token = OldAccessToken::Valid);
    world.simulator.advance(Duration::from_secs(86_400));
    let used = world.pair(json!({})).await;
    world.refresh(&used).await;
    let pair = world.pair(json!({ "include_reference_token": true })).await;
    let (tokens, secrets, knobs, now) =
        (world.simulator.tokens(), world.simulator.secrets(), world.simulator.knobs(|_| ()), world.simulator.now());
    world.simulator.stop().await;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);

    let again = World { simulator: start().await, ..world };
    assert_eq!(again.simulator.tokens(), tokens);
    assert_eq!(again.simulator.secrets(), secrets);
    assert_eq!(again.simulator.knobs(|_| ()), knobs);
    assert!((now..now + 60).contains(&again.simulator.now()));
    assert!(again.simulator.is_alive(&again.identity));
    assert!(again.simulator.is_alive(&used.access));
    assert_eq!(again.refresh(&used).await, not_found_by_refresh_token());
    assert_eq!(again.refresh(&pair).await.0, 200);
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("other.json");
    std::fs::write(&file, "{}").unwrap();
    let started = Simulator::start(ANY_PORT.parse().unwrap(), Some(file.clone())).await;
    assert!(started.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"{}");
}

#[tokio::test]
async fn a_stopped_simulator_answers_nobody_and_commits_nothing() {
    let world = World::with(|k| k.latency_ms = 200).await;
    let asked = json!({});
    let request = world.post(&world.identity, &asked).send();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        world.simulator.stop().await;
    };
    let (answered, ()) = tokio::join!(request, stop);
    assert!(answered.is_err());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.simulator.tokens().len(), 1);
    assert!(world.get("/", "x").send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn tokens_expire_as_the_clock_advances() {
    let world = World::new().await;
    let pair = world.pair(json!({ "expires_in": 30 * 86_400 })).await;
    world.simulator.advance(Duration::from_secs(30 * 86_400 - 30));
    assert!(world.simulator.is_alive(&pair.access));
    world.simulator.advance(Duration::from_secs(31));
    assert!(!world.simulator.is_alive(&pair.access));
    assert!(world.simulator.is_alive(&world.identity));
    world.simulator.advance(Duration::from_secs(336 * 86_400));
    assert!(!world.simulator.is_alive(&world.identity));
    let new = world.simulator.identity_token("ci");
    assert!(world.simulator.is_alive(&new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_callers_are_served_at_once() {
    let world = World::with(|k| k.latency_ms = 50).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let asked = json!({ "refreshable": true });
        calls.spawn(world.post(&world.identity, &asked).send());
    }
    let answers = calls.join_all().await;
    assert!(answers.into_iter().all(|a| a.unwrap().status() == 200));
    assert_eq!(world.simulator.tokens().len(), 501);
}
