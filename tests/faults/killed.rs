//! kill -9 at random moments of a refresh loop.

use std::time::Duration;

use rand::RngExt;
use serde_json::json;

use crate::app::{TestApp, process::Replica};

/// A slow JFrog makes the moment between spending and saving long enough to be hit.
const LATENCY_MS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_at_any_moment_the_token_can_be_rotated_for_real() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.latency_ms = LATENCY_MS);
    let journal = tempfile::tempdir().expect("a directory");
    let mut generation = 1;
    for round in 1..=10 {
        let mut replica = Replica::start(&app, journal.path(), "info").await;
        let admin = replica.client(&app.admin);
        // max_age 0: every call is a rotation for real. The loop ends when the replica does.
        let refreshing = tokio::spawn(async move {
            loop {
                let request = admin.request(reqwest::Method::POST, "/tokens/deploy/refresh").json(&json!({"max_age": 0}));
                if request.send().await.is_err() {
                    return;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(30..250))).await;
        replica.kill();
        refreshing.await.expect("the loop ends");

        let mut replica = Replica::start(&app, journal.path(), "info").await;
        let admin = replica.client(&app.admin);
        let rotated = rotate_for_real(&admin).await;
        let now = rotated.json["generation"].as_i64().expect("a number");
        assert!(now > generation, "round {round}: generations never go back: {now} after {generation}");
        generation = now;
        assert!(app.simulator.is_alive(rotated.access_token()), "round {round}");
        assert!(app.simulator.max_refreshes_in_flight() <= 1, "round {round}");
        replica.kill();
    }
    assert!(app.simulator.refreshes() >= 10, "it was a refresh loop");
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!((&token["chains"][0]["status"], &token["chains"][1]["status"]), (&json!("active"), &json!("active")), "{token:#}");
}

/// Asks until a rotation of its own has succeeded: an attempt in the dark is waited for, its chain healed.
async fn rotate_for_real(admin: &crate::app::Client) -> crate::app::Answer {
    for _ in 0..40 {
        let answer = admin.refresh("deploy", json!({"max_age": 0, "wait": 5})).await;
        if answer.status == 200 && answer.json["refreshed"] == true {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the token is lost: {:#}", admin.get("/tokens/deploy").await.json);
}
