//! Master keys are added, put first, and retired when nothing needs them.

use serde_json::json;

use super::{a_day_passes_for_the_journal, master_key, until, with_keys};
use crate::app::{TestApp, some_master_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_replaced_online_and_retires_when_nothing_anywhere_needs_it() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    let (old, new) = (app.master_keys.clone(), some_master_key("k2"));
    let needed = app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await;
    assert!(needed.refused(409, "key-in-use").text.contains("this service, which wraps with it"));
    app.platform.post("/encryption-keys/retire", json!({"id": "k9"})).await.refused(404, "not-found");

    with_keys(&mut app, &[&old, &new]).await;
    with_keys(&mut app, &[&new, &old]).await;
    // The audit's chain has a key of its own once its first batch is closed.
    app.database.run("update jobs set due_at = now() where kind = 'close-audit'").await;
    app.database.until("exists (select 1 from audit_keys)").await;
    let before = master_key(&app, "k1").await;
    assert_eq!((&before["state"], &before["used"]), (&json!("opens"), &json!(true)));
    let by_k1 = "select (select count(*) from data_keys where master_key_id = 'k1') + (select count(*) from audit_keys where master_key_id = 'k1')";
    assert_eq!(before["wrapped_keys"], app.database.count(by_k1).await);
    let needed = app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.refused(409, "key-in-use");
    assert!(needed.text.contains("rows of data_keys") && needed.text.contains(&app.journal_id()), "{}", needed.text);

    app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    until(&app, "re-wrapped", |keys| {
        keys["rewrap"].is_null()
            && keys["master_keys"]
                .as_array()
                .is_some_and(|keys| keys.iter().all(|key| key["id"] != "k1" || key["wrapped_keys"] == 0))
    })
    .await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
    // The journal's entries of today are wrapped by it still.
    let needed = app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.refused(409, "key-in-use");
    assert!(!needed.text.contains("_keys") && needed.text.contains(&app.journal_id()), "{}", needed.text);
    a_day_passes_for_the_journal(&app);
    with_keys(&mut app, &[&new, &old]).await;
    assert_eq!(master_key(&app, "k1").await["used"], false, "it is no longer used");
    app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.expect(200);
    app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.expect(200);
    let retired = master_key(&app, "k1").await;
    assert_eq!(retired["state"], "retired");

    with_keys(&mut app, &[&new]).await;
    assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    // It does not come back by an old configuration.
    app.stop().await;
    app.master_keys = format!("{old},{new}");
    let refused = app.refused_to_start().await;
    assert!(refused.contains("master key k1 was retired"), "{refused}");
    let audited =
        "select count(*) from audit_events where action in ('master-key.rewrap', 'master-key.retire') and team_id is null";
    assert_eq!(app.database.count(audited).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_away_counts_until_it_is_forgotten() {
    let mut app = TestApp::start().await;
    let (old, new) = (app.master_keys.clone(), some_master_key("k2"));
    with_keys(&mut app, &[&new, &old]).await;
    app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    until(&app, "re-wrapped", |keys| keys["rewrap"].is_null() && keys["master_keys"][0]["used"] == false).await;
    let other = "7b0c2f0e-5a0e-4d33-8c39-3f6c8f9d3a10";
    app.database.run(&format!("insert into journals (id, needs, holds) values ('{other}', '{{k1}}', '{{k1}}')")).await;
    // Its replica could not open what the new key wraps.
    app.platform.post("/encryption-keys/rewrap", json!({})).await.refused(409, "key-not-everywhere");
    app.platform.post("/encryption-keys/forget-journal", json!({"journal": other})).await.refused(409, "journal-in-use");
    app.platform.post("/encryption-keys/forget-journal", json!({"journal": "no id"})).await.refused(422, "invalid-request");
    let unknown = json!({"journal": "7b0c2f0e-5a0e-4d33-8c39-3f6c8f9d3a11"});
    app.platform.post("/encryption-keys/forget-journal", unknown).await.refused(404, "not-found");

    app.database.run("update journals set reported_at = now() - interval '1 hour' where needs = '{k1}'").await;
    let needed = app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.refused(409, "key-in-use");
    assert!(needed.text.contains(other), "{}", needed.text);
    app.platform.post("/encryption-keys/forget-journal", json!({"journal": other})).await.expect(200);
    app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrapped_by_a_retired_key_whoever_tries() {
    let app = TestApp::start().await;
    app.database.run("insert into master_keys (id, canary, retired_at) values ('gone', 'x', now())").await;
    let wrapped = "update data_keys set master_key_id = 'gone'";
    let error = sqlx::raw_sql(wrapped).execute(&mut app.database.connect().await).await.expect_err("refused");
    assert_eq!(error.into_database_error().expect("by Postgres").constraint(), Some("wrapped_by_usable_key"));
}
