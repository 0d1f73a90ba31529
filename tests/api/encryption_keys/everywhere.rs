//! What every replica needs is wrapped by a master key that every replica was given.

use serde_json::json;

use super::{master_key, until};
use crate::app::{TestApp, some_master_key};

const OTHER: &str = "7b0c2f0e-5a0e-4d33-8c39-3f6c8f9d3a10";

/// A service whose list is `k2,k1`, beside a replica with only `k1`.
async fn beside_one_without() -> TestApp {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    app.database.run(&format!("insert into journals (id, needs, holds) values ('{OTHER}', '{{k1}}', '{{k1}}')")).await;
    app.master_keys = format!("{},{}", some_master_key("k2"), app.master_keys);
    app.start_again().await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn new_teams_are_for_every_replica_and_refused_where_no_master_key_is() {
    let app = beside_one_without().await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id = 'k1'").await, 2);
    app.database.run("update jobs set due_at = now() where kind = 'close-audit'").await;
    app.database.until("exists (select from audit_keys)").await;
    assert_eq!(master_key(&app, "k2").await["wrapped_keys"], 0, "the audit's key is for every replica too");

    app.database.run(&format!("update journals set holds = '{{k9}}' where id = '{OTHER}'")).await;
    let refused = app.platform.post("/teams", json!({"name": "stock"})).await.refused(409, "key-not-everywhere");
    assert!(refused.text.contains("k2") && refused.text.contains(OTHER), "{}", refused.text);
    // Who is away does not count.
    app.database.run(&format!("update journals set reported_at = now() - interval '1 hour' where id = '{OTHER}'")).await;
    app.platform.post("/teams", json!({"name": "stock"})).await.expect(201);
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id = 'k2'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_refused_and_one_that_was_asked_for_waits() {
    let app = beside_one_without().await;
    app.platform.post("/encryption-keys/rotate", json!({})).await.refused(409, "key-not-everywhere");
    // Another replica had asked for it, by its own first master key.
    app.database
        .run(
            "update teams set rotation_asked_at = now();
             insert into jobs (kind, subject, due_at) select 'reseal', id, now() from teams",
        )
        .await;
    app.database.until("(select due_at > now() + interval '2 s' from jobs where kind = 'reseal')").await;
    assert_eq!(app.database.count("select count(*) from data_keys").await, 1);
    let waiting = app.platform.get("/encryption-keys").await.expect(200).json;
    assert_eq!((&waiting["rotation"]["done"], &waiting["rotation"]["teams_waiting"]), (&json!(false), &json!(1)));
    app.database.run(&format!("update journals set holds = '{{k1,k2}}' where id = '{OTHER}'")).await;
    until(&app, "rotated", |keys| keys["rotation"]["done"] == true).await;
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id = 'k2' and current").await, 1);
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_re_wrapping_that_was_asked_for_waits_for_a_replica_that_came_without() {
    let app = beside_one_without().await;
    let asked = "update master_keys set rewrap_asked_at = now() where id = 'k2';
                 insert into jobs (kind, subject, due_at) values ('reseal', '00000000-0000-0000-0000-000000000000', now())";
    app.database.run(asked).await;
    app.database.until("(select due_at > now() + interval '2 s' from jobs where kind = 'reseal')").await;
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id = 'k2'").await, 0);
    app.database.run(&format!("update journals set holds = '{{k1,k2}}' where id = '{OTHER}'")).await;
    until(&app, "re-wrapped", |keys| keys["rewrap"].is_null()).await;
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id <> 'k2'").await, 0);
}
