//! `serve` starts whole or not at all, and ends cleanly.

use serde_json::json;
use token_broker::cli::serve;

use crate::app::{TestApp, journal::uncommit, process::Replica, settings, some_master_key};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_start_warns_of_what_is_so_and_of_nothing_else() {
    let app = TestApp::start().await;
    let journal = tempfile::tempdir().expect("a directory");
    let log = Replica::start(&app, journal.path(), "info").await.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(warnings.iter().all(|line| line.contains("JFrog is spoken to without TLS")), "{warnings:#?}");
}

#[tokio::test]
async fn swapped_and_truncated_keys_are_refused_by_their_ids() {
    let mut app = TestApp::start().await;
    let one = app.master_keys.clone();
    app.stop().await;
    let two = some_master_key("k2");
    app.master_keys = format!("{one},{two}");
    app.start_again().await;
    app.stop().await;
    let bytes = |entry: &str| entry.split_once(':').expect("a key").1.to_owned();
    let journal = tempfile::tempdir().expect("a directory");
    let swapped = refusal(&app, &format!("k1:{},k2:{}", bytes(&two), bytes(&one)), &journal).await;
    assert!(swapped.contains("master key k1 is not the key") || swapped.contains("master key k2 is not the key"), "{swapped}");
    for cut in [1, 4, 20] {
        let short = &one[..one.len() - cut];
        let error = token_broker::crypto::MasterKeys::parse(short).expect_err("refused").to_string();
        assert!(error.contains("master key k1") && !error.contains(&bytes(short)) || bytes(short).is_empty(), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_data_key_is_refused_by_its_id() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let id = app.database.text("select id::text from data_keys").await;
    for damage in ["substring(wrapped for 40)", "set_byte(wrapped, 90, get_byte(wrapped, 90) # 1)", "''"] {
        app.database.run(&format!("create table kept as select * from data_keys; update data_keys set wrapped = {damage}")).await;
        let refused = app.refused_to_start().await;
        assert!(refused.contains(&format!("data key {id} does not open with its master key k1")), "{damage}: {refused}");
        app.database.run("update data_keys d set wrapped = k.wrapped from kept k where k.id = d.id; drop table kept").await;
    }
    app.start_again().await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_pair_in_the_journal_whose_master_key_is_missing_is_not_passed_over() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    uncommit(app.journal.path());
    let other_key = some_master_key("k9");
    let mut other = TestApp::start_changed(move |settings| {
        settings.database.master_keys = token_broker::crypto::MasterKeys::parse(&other_key).expect("a key");
    })
    .await;
    other.stop().await;
    other.journal = app.journal;
    let refused = other.refused_to_start().await;
    assert!(refused.contains("master key k1 is needed and is not in the list: it opens 2 entries of the journal"), "{refused}");
}
