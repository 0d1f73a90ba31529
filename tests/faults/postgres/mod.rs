//! Postgres fails: at any moment, for any reason. No token is lost by it.

mod away;
mod commit;
mod crash;
mod disk;
mod disk_full;
mod failover;
mod gate;
mod own;
mod read_only;
mod silent;

use std::{path::Path, time::Duration};

use serde_json::json;
use token_broker::dev::simulator::Route;

use crate::app::{
    Answer, Client, TestApp, TestDatabase,
    journal::{PENDING, entries},
};
use gate::{Gate, socket_of};

/// A broker whose connections to the Postgres of all tests go through a gate.
async fn behind_a_gate() -> (Gate, TestApp) {
    let (database, mut gate) = (TestDatabase::new().await, Gate::new());
    gate.lead_to(socket_of(database.url()));
    let app = TestApp::start_on(TestDatabase::at(gate.url(database.url()))).await;
    (gate, app)
}

/// Asks until a rotation of its own has succeeded: what was left in the dark is waited for, its chain healed.
async fn rotate_for_real(admin: &Client, name: &str) -> Answer {
    for _ in 0..80 {
        let answer = admin.refresh(name, json!({"max_age": 0, "wait": 5})).await;
        if answer.status == 200 && answer.json["refreshed"] == true {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{name} is lost: {:#}", admin.get(&format!("/tokens/{name}")).await.json);
}

/// Fails the test unless each of these tokens lives on, both chains of it: rotated for real, twice.
async fn all_live(app: &TestApp, names: &[&str]) {
    for name in names {
        for _ in 0..2 {
            let rotated = rotate_for_real(&app.admin, name).await;
            assert!(app.simulator.is_alive(rotated.access_token()), "{name}");
        }
        app.token_until(name, "whole", |token| {
            token["status"] == "active"
                && token["chains"].as_array().is_some_and(|chains| chains.iter().all(|chain| chain["status"] == "active"))
        })
        .await;
    }
    assert!(app.simulator.max_refreshes_in_flight() <= 1, "a refresh token was sent twice at a time");
    assert_eq!(app.database.count("select count(*) from attempts").await, 0, "no attempt is left");
}

/// Asks every 20 ms until it holds, for 20 seconds at most.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came: {what}");
}

/// How often JFrog was asked to refresh.
fn refreshes_asked(app: &TestApp) -> usize {
    app.simulator.counters().get(&Route::Refresh).map_or(0, |counter| counter.calls)
}

/// Journal entries that wait for Postgres.
fn pairs_waiting(journal: &Path) -> usize {
    entries(journal, PENDING)
}
