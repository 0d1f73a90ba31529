//! A team's data key is rotated, and goes when nothing needs it.

use serde_json::json;

use super::{data_keys, let_pass_for_keys, rotated};
use crate::app::{HOOKS, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_data_key_seals_everything_and_the_old_one_goes() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.register_with("other", json!({"include_reference_token": true})).await.expect(201);
    app.admin.post("/teams/payments/webhooks", json!({"name": "hook", "url": HOOKS})).await.expect(201);
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    let old = data_keys(&app).await.remove(0);
    assert_eq!((&old["state"], &old["used"], &old["rows"]), (&json!("current"), &json!(true), &json!(5)));

    let shown = rotated(&app).await;
    assert_eq!((&shown["rotation"]["rows"], &shown["rotation"]["old_data_keys"]), (&json!(5), &json!(1)));
    let keys = data_keys(&app).await;
    assert_eq!(keys.len(), 2);
    let now = keys.iter().find(|key| key["id"] == old["id"]).expect("the old one");
    // A replica may have it as the current one in memory still.
    assert_eq!((&now["state"], &now["used"], &now["rows"]), (&json!("open"), &json!(true), &json!(0)));
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((after.access_token(), &after.json["generation"]), (before.access_token(), &before.json["generation"]));
    assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    app.admin.refresh("other", json!({"max_age": 0})).await.expect(200);

    let_pass_for_keys(&app, 200).await;
    app.database.until("(select count(*) from data_keys where closed_at is not null) = 1").await;
    let keys = data_keys(&app).await;
    let now = keys.iter().find(|key| key["id"] == old["id"]).expect("the old one");
    assert_eq!((&now["state"], &now["used"]), (&json!("closed"), &json!(false)), "it is no longer used");
    let_pass_for_keys(&app, 700).await;
    app.database.until("(select count(*) from data_keys) = 1").await;
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'data-key.delete'").await, 1);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.database.until("not exists (select from jobs where kind = 'reseal')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_team_is_rotated_where_none_is_named_and_a_team_that_is_none_is_refused() {
    let app = TestApp::start().await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.platform.post("/encryption-keys/rotate", json!({"team": "nobody"})).await.refused(404, "not-found");
    app.platform.post("/encryption-keys/rotate", json!({"all": true})).await.refused(422, "invalid-request");
    app.platform.post("/encryption-keys/rewrap", json!({"all": true})).await.refused(422, "invalid-request");
    app.platform.post("/encryption-keys/rewrap", json!([])).await.refused(422, "invalid-request");
    app.platform.post("/encryption-keys/rewrap", json!({"master_key": "k2"})).await.refused(409, "key-not-first");
    app.platform.post("/encryption-keys/rewrap", json!({"master_key": "k1"})).await.expect(202);
    app.platform.get("/encryption-keys/data-keys?team=nobody").await.refused(404, "not-found");
    app.platform.get("/encryption-keys/data-keys?after=bm8").await.refused(422, "invalid-request");
    assert_eq!(app.database.count("select count(*) from data_keys").await, 2);
    app.platform.post("/encryption-keys/rotate", json!({})).await.expect(202);
    app.database.until("(select count(*) from data_keys where current) = 2 and (select count(*) from data_keys) = 4").await;
    let page = app.platform.get("/encryption-keys/data-keys?limit=3").await.expect(200).json;
    assert_eq!(page["items"].as_array().expect("items").len(), 3);
    let rest =
        app.platform.get(&format!("/encryption-keys/data-keys?limit=3&after={}", page["next"].as_str().expect("more"))).await;
    assert_eq!(rest.expect(200).json["items"].as_array().expect("items").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_keeps_its_data_key() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.database
        .run(
            "update chains set refresh_token = set_byte(refresh_token, length(refresh_token) - 1,
                     get_byte(refresh_token, length(refresh_token) - 1) # 1) where letter = 'a'",
        )
        .await;
    app.platform.post("/encryption-keys/rotate", json!({"team": "payments"})).await.expect(202);
    app.database.until("(select failures from jobs where kind = 'reseal') > 0").await;
    for seconds in [200, 700, 700] {
        let_pass_for_keys(&app, seconds).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let keys = data_keys(&app).await;
    let old = keys.iter().find(|key| key["state"] != "current").expect("the old one");
    assert_eq!((&old["rows"], &old["used"]), (&json!(1), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_nothing_that_was_sealed_with_a_closed_key_or_another_teams() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let refused = |sql: &'static str| {
        let database = &app.database;
        async move {
            let done = sqlx::raw_sql(sql).execute(&mut database.connect().await).await;
            let error = done.expect_err("it must be refused").into_database_error().expect("by Postgres");
            assert_eq!((error.code().as_deref(), error.constraint()), (Some("23503"), Some("sealed_by_open_key")), "{sql}");
        }
    };
    app.database
        .run(
            "create table kept as select id, access_token from chains;
              update data_keys set current = false, rotated_at = now(), closed_at = now()
              where team_id = (select id from teams where name = 'payments')",
        )
        .await;
    // What a row has already may stay and move within it.
    app.database.run("update chains set replaced_access_token = access_token, access_token = access_token").await;
    refused("update chains c set access_token = set_byte(k.access_token, 90, 0) from kept k where k.id = c.id").await;
    refused(
        "insert into webhooks (id, team_id, name, origin, target, events, created_by)
         select gen_random_uuid(), id, 'w', 'https://hooks.example', (select access_token from kept limit 1), '{token.lost}', 'test'
         from teams where name = 'orders'",
    )
    .await;
    refused("update tokens set identity_token = (select access_token from kept limit 1), identity_token_until = now()").await;
}
