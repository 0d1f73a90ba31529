//! Keys that change while the service serves.

mod aws_kms;
mod command_line;
mod data_keys;
mod everywhere;
mod key_services;
mod master_keys;
mod peers;
mod readiness;
mod shredding;
mod transit;
mod two_replicas;

use std::fs;

use serde_json::{Value, json};

use crate::app::{TestApp, journal::logs};

/// A team's data keys, old ones first.
async fn data_keys(app: &TestApp) -> Vec<Value> {
    let listed = app.platform.get("/encryption-keys/data-keys?team=payments").await.expect(200).json;
    listed["items"].as_array().expect("items").clone()
}

/// The master key of this id, as it is shown.
async fn master_key(app: &TestApp, id: &str) -> Value {
    let shown = app.platform.get("/encryption-keys").await.expect(200).json;
    let keys = shown["master_keys"].as_array().expect("keys");
    keys.iter().find(|key| key["id"] == id).unwrap_or_else(|| panic!("no {id} in {keys:?}")).clone()
}

/// Asks until this is so.
async fn until(app: &TestApp, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    for _ in 0..600 {
        seen = app.platform.get("/encryption-keys").await.expect(200).json;
        if wanted(&seen) {
            return seen;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never was {what}: {seen:#}");
}

/// Everything of the team is sealed with its new key.
async fn rotated(app: &TestApp) -> Value {
    app.platform.post("/encryption-keys/rotate", json!({"team": "payments"})).await.expect(202);
    until(app, "rotated", |keys| keys["rotation"]["done"] == true).await
}

/// Lets time pass for old data keys, and has the worker look again.
async fn let_pass_for_keys(app: &TestApp, seconds: i64) {
    app.database
        .run(&format!(
            "update data_keys set rotated_at = rotated_at - interval '{seconds} s', closed_at = closed_at - interval '{seconds} s';
             update jobs set due_at = now() where kind = 'reseal'"
        ))
        .await;
}

/// Restarts with this list.
async fn with_keys(app: &mut TestApp, list: &[&str]) {
    app.stop().await;
    app.master_keys = list.join(",");
    app.start_again().await;
}

/// A day passes for the journal: what Postgres has had for so long is not kept.
fn a_day_passes_for_the_journal(app: &TestApp) {
    logs(app.journal.path()).into_iter().for_each(|log| fs::remove_file(log).expect("removes"));
}
