//! `serve` starts whole or not at all, and ends cleanly.

use serde_json::json;
use token_broker::cli::serve;

use crate::app::{TestApp, process::Replica, settings, some_master_key};

async fn refusal(app: &TestApp, master_keys: &str, journal: &tempfile::TempDir) -> String {
    let started = serve::start(settings(&app.database, &app.simulator, journal, master_keys), None).await;
    format!("{:#}", started.expect_err("it must not start"))
}

#[tokio::test]
async fn a_wrong_or_missing_master_key_is_refused_by_its_id() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let journal = tempfile::tempdir().expect("a directory");
    let wrong = refusal(&app, &some_master_key("k1"), &journal).await;
    assert!(wrong.contains("master key k1 is not the key that was used under this id"), "{wrong}");
    let missing = refusal(&app, &some_master_key("k2"), &journal).await;
    assert!(missing.contains("master key k1 is needed and is not in the list"), "{missing}");

    // The right key, now second: it opens, the new one wraps.
    app.master_keys = format!("{},{}", some_master_key("k3"), app.master_keys);
    app.start_again().await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_journal_directory_in_use_is_refused() {
    let app = TestApp::start().await;
    let in_use = refusal(&app, &app.master_keys, &app.journal).await;
    assert!(in_use.contains("used by another process"), "{in_use}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_was_begun_and_exits_with_0() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.latency_ms = 700);
    let journal = tempfile::tempdir().expect("a directory");
    let mut replica = Replica::start(&app, journal.path(), "info").await;
    let admin = replica.client(&app.admin);
    let asked = tokio::spawn(async move { admin.refresh("deploy", json!({"max_age": 0})).await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let ended = tokio::task::spawn_blocking(move || replica.terminate());
    let answer = asked.await.expect("an answer").expect(200);
    assert_eq!(answer.json["refreshed"], true);
    assert!(ended.await.expect("it ends"), "exit code 0");
    assert_eq!(app.database.count("select count(*) from attempts").await, 0, "no attempt is left behind");
}
