//! A replica that slept while its master key was retired.

use serde_json::json;

use crate::app::{TestApp, process::Replica, some_master_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_wakes_after_its_master_key_was_retired_wraps_nothing_by_it_and_says_so() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.stop().await;
    app.database.run("delete from journals").await;
    let (old, new) = (app.master_keys.clone(), some_master_key("k2"));
    let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    app.master_keys = format!("{old},{new}");
    let asleep = Replica::start(&app, journals[0].path(), "info").await;
    app.master_keys = format!("{new},{old}");
    let awake = Replica::start(&app, journals[1].path(), "info").await;
    // Its journal's key is made by then.
    asleep.client(&app.admin).refresh("deploy", json!({"max_age": 0})).await.expect(200);
    asleep.freeze();

    let platform = awake.client(&app.platform);
    platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    app.database.until("(select count(*) from wrapped_keys('k2', '00000000-0000-0000-0000-000000000000', 1)) = 0").await;
    app.database.run("update journals set reported_at = now() - interval '1 hour' where holds[1] = 'k1'").await;
    let journal = app.database.text("select id::text from journals where holds[1] = 'k1'").await;
    platform.post("/encryption-keys/forget-journal", json!({"journal": journal})).await.expect(200);
    platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.expect(200);

    asleep.thaw();
    let spent = app.simulator.refreshes();
    let handed = asleep.client(&app.admin).refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    assert_eq!(handed.json["warnings"], json!(["refresh-pending"]), "{}", handed.text);
    assert_eq!(app.simulator.refreshes(), spent, "nothing is spent for which no entry can be wrapped");
    assert!(asleep.log().contains("master key k1 was retired"), "{}", asleep.log());
    let unready = asleep.client(&app.ci).nobody().get("/health/ready").await.refused(503, "master-key-unusable");
    assert!(unready.text.contains("k1 was retired"), "{}", unready.text);
    // What is for every replica, it wraps by what every replica has.
    asleep.client(&app.platform).post("/teams", json!({"name": "orders"})).await.expect(201);
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id <> 'k2'").await, 0);
    let rotated = awake.client(&app.admin).refresh("deploy", json!({"max_age": 0, "wait": 10})).await.expect(200);
    assert_eq!(rotated.json["refreshed"], true);
}
