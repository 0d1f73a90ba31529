//! Immediate shutdowns of Postgres at random moments of a loop of rotations.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use serde_json::json;
use token_broker::{crypto, dev::postgres::Durability};
use tokio_util::sync::CancellationToken;

use super::{all_live, own::Own, until};
use crate::app::{Client, TestApp};

const NAMES: [&str; 3] = ["deploy", "release", "nightly"];
const ROUNDS: usize = 15;
/// A slow JFrog makes the moment between spending and saving long enough to be hit.
const LATENCY_MS: u64 = 30;

/// What a caller was told with a 200.
struct Handed {
    /// Request and fingerprint, as the audit writes them.
    audited: (String, String),
    generation: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn after_immediate_shutdowns_at_any_moment_every_token_lives_and_every_answer_was_durable() {
    let mut own = Own::start(Durability::Durable).await;
    let app = TestApp::start_on(own.database()).await;
    for name in NAMES {
        app.register_with(name, json!({"reuse_for": 1})).await.expect(201);
    }
    app.simulator.knobs(|knobs| knobs.latency_ms = LATENCY_MS);
    let (stop, rotated) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let loops = NAMES.map(|name| tokio::spawn(rotate_until(stop.clone(), app.admin.clone(), name, Arc::clone(&rotated))));
    for _ in 0..ROUNDS {
        let before = rotated.load(Ordering::Relaxed);
        until("rotations", async || rotated.load(Ordering::Relaxed) > before).await;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..150))).await;
        own.crash().await;
        own.start_again().await;
    }
    stop.cancel();
    let rows = "select coalesce(string_agg(request_id || ' ' || fingerprint, ','), '') from audit_events where action = 'token.hand_out'";
    let mut handed = Vec::new();
    for answers in loops {
        handed.push(answers.await.expect("the loop ends"));
    }
    let audited = app.database.text(rows).await;
    let audited: HashSet<(&str, &str)> = audited.split(',').filter_map(|row| row.split_once(' ')).collect();
    for (answers, name) in handed.iter().zip(NAMES) {
        let highest = answers.last().expect("there were answers").generation;
        assert!(answers.is_sorted_by_key(|answer| answer.generation), "{name}: generations never go back");
        for Handed { audited: (request, fingerprint), .. } in answers {
            assert!(audited.contains(&(request.as_str(), fingerprint.as_str())), "{name}: an answer that was not durable");
        }
        let stored = app.database.count(&format!("select generation from tokens where name = '{name}'")).await;
        assert!(stored >= highest, "{name}: {stored} after {highest}");
    }
    all_live(&app, &NAMES).await;
    eprintln!("{} answers, {} rotations", handed.iter().map(Vec::len).sum::<usize>(), app.simulator.refreshes());
}

/// max_age 0: every call is a rotation for real.
async fn rotate_until(stop: CancellationToken, admin: Client, name: &str, rotated: Arc<AtomicUsize>) -> Vec<Handed> {
    let mut handed = Vec::new();
    while !stop.is_cancelled() {
        let answer = admin.refresh(name, json!({"max_age": 0, "wait": 1})).await;
        if answer.status == 503 {
            assert!(answer.retry_after() >= 1, "{}", answer.text);
            continue;
        }
        let answer = answer.expect(200);
        let fingerprint = crypto::fingerprint(answer.access_token());
        let generation = answer.json["generation"].as_i64().expect("a number");
        handed.push(Handed { audited: (answer.header("x-request-id").to_owned(), fingerprint), generation });
        if answer.json["refreshed"] == true {
            rotated.fetch_add(1, Ordering::Relaxed);
        }
    }
    handed
}
