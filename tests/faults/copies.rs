//! A copy of the database is not the original: it must not spend the original's tokens.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::app::{TestApp, TestDatabase, jfrog::chain_ids};

/// A token whose rotation is due, in a database that was copied; the app goes on with the copy.
async fn on_a_copy(journal: Option<TempDir>) -> (TestApp, TestDatabase, TempDir, String) {
    let mut app = TestApp::start().await;
    let token = app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.stop().await;
    let copy = app.database.copy().await;
    let original = std::mem::replace(&mut app.database, copy);
    let journal = std::mem::replace(&mut app.journal, journal.unwrap_or_else(|| tempfile::tempdir().expect("a directory")));
    (app, original, journal, chain_ids(&token.json).join(" "))
}

async fn is_frozen(app: &TestApp, chains: &str) {
    app.ci.get("/health/ready").await.refused(503, "frozen");
    // Everything is due, and nothing is done.
    app.database.run("update jobs set due_at = now() - interval '1 day'").await;
    app.database.run("insert into jobs (kind, subject, due_at) select 'sweep', id, 'epoch' from tokens").await;
    let asked = app.asked_for_pairs();
    let handed = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!((&handed.json["refreshed"], &handed.json["warnings"]), (&json!(false), &json!(["refresh-pending"])));
    let rejected = app.ci.get("/tokens/deploy").await.json["chains"][1]["token_id"].clone();
    app.ci.refresh("deploy", json!({"rejected_token_id": rejected})).await.expect(200);
    let identity_token = app.simulator.identity_token("user-of-deploy");
    app.admin.delete("/tokens/deploy").await.refused(503, "frozen");
    app.admin.delete("/tokens/deploy?force=true").await.refused(503, "frozen");
    app.admin.post("/tokens/deploy/recreate", json!({"identity_token": identity_token})).await.refused(503, "frozen");
    app.admin.post("/tokens", json!({"name": "more", "identity_token": identity_token})).await.refused(503, "frozen");
    let pasted = json!({"name": "more", "access_token": identity_token, "refresh_token": "a4fc0a9b-0000-4000-8000-000000000000"});
    app.admin.post("/tokens/import", pasted).await.refused(503, "frozen");
    assert_eq!((app.asked_for_pairs(), app.alive().join(" ").as_str()), (asked, chains));
    assert_eq!(
        app.database.count("select count(*) from jobs where due_at > now() - interval '1 hour'").await,
        0,
        "no job was taken"
    );
    assert_eq!(app.database.count("select count(*) from tokens").await, 1);
}

async fn rotates(app: &TestApp) -> Value {
    app.ci.get("/health/ready").await.expect(200);
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!(rotated.json["refreshed"], true, "{}", rotated.text);
    assert!(app.simulator.is_alive(rotated.access_token()));
    app.admin.get("/tokens/deploy").await.expect(200).json
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_database_starts_frozen_and_the_original_goes_on() {
    let (mut app, original, journal, chains) = on_a_copy(None).await;
    app.start_again().await;
    is_frozen(&app, &chains).await;
    app.stop().await;
    app.start_again().await;
    is_frozen_still(&app).await;
    app.stop().await;
    (app.database, app.journal) = (original, journal);
    app.start_again().await;
    rotates(&app).await;
}

async fn is_frozen_still(app: &TestApp) {
    app.ci.get("/health/ready").await.refused(503, "frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_copy_rotates_and_leaves_what_bears_the_originals_marker_alone() {
    let (mut app, original, journal, _) = on_a_copy(None).await;
    let id = "select id::text from installation";
    let (before, others) = (app.database.text(id).await, app.simulator.tokens().len());
    app.start_again_with(true).await;
    let adopted = app.database.text(id).await;
    assert_ne!(before, adopted);
    rotates(&app).await;
    app.stop().await;
    app.start_again_with(true).await;
    assert_eq!(app.database.text(id).await, adopted, "adopted once");
    app.stop().await;
    app.start_again().await;
    rotates(&app).await;
    // The original now lives on what is left to it: its own markers, untouched, mend it.
    app.stop().await;
    (app.database, app.journal) = (original, journal);
    app.start_again().await;
    assert_eq!(app.database.text(id).await, before);
    assert!(app.simulator.tokens().len() > others);
    app.ci.get("/health/ready").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_installation_freezes_too_until_all_replicas_are_adopted() {
    let mut other = TestApp::start().await;
    other.stop().await;
    let mut app = TestApp::start().await;
    let chains = chain_ids(&app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201).json).join(" ");
    app.stop().await;
    let own = std::mem::replace(&mut app.journal, other.journal);
    app.start_again().await;
    is_frozen(&app, &chains).await;
    app.stop().await;
    app.start_again_with(true).await;
    let token = rotates(&app).await;
    assert_eq!(token["status"], "active");
    let id = app.database.text("select id::text from installation").await;
    // The second replica still has the old journal: it is of this installation's past, and asks for the word as well.
    app.stop().await;
    app.journal = own;
    app.start_again().await;
    is_frozen_still(&app).await;
    app.stop().await;
    app.start_again_with(true).await;
    assert_eq!(app.database.text("select id::text from installation").await, id, "no third id");
    rotates(&app).await;
}
