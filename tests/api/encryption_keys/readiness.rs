//! A replica says when it lacks a master key, and does not ask for one that was retired.

use serde_json::json;

use crate::app::{
    TestApp,
    fake_transit::{Behaving, FakeTransit, listed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_is_needed_and_was_not_given_makes_it_unready_and_is_named() {
    let app = TestApp::start().await;
    app.database.run("insert into master_keys (id, canary) values ('k9', 'x'); update data_keys set master_key_id = 'k9'").await;
    let unready = app.ci.nobody().get("/health/ready").await.refused(503, "master-key-unusable");
    assert!(unready.text.contains("The master key k9 is needed and is not in the list"), "{}", unready.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_master_key_that_was_retired_meanwhile_makes_it_unready_and_is_named() {
    let app = TestApp::start().await;
    app.database.run("update master_keys set retired_at = now()").await;
    let unready = app.ci.nobody().get("/health/ready").await.refused(503, "master-key-unusable");
    assert!(unready.text.contains("The master key k1 was retired"), "{}", unready.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_a_retired_master_key_may_be_switched_off() {
    let transit = FakeTransit::start().await;
    let mut app = TestApp::start().await;
    app.stop().await;
    let list = format!("{},{}", app.master_keys, transit.entry("bao"));
    app.change(move |settings| settings.database.master_keys = listed(&list));
    app.start_again().await;
    transit.behave(Behaving::Away);
    app.ci.nobody().get("/health/ready").await.refused(503, "key-service-unavailable");
    app.database.run("update master_keys set retired_at = now() where id = 'bao'").await;
    // What the last look found is said again for a moment.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    app.ci.nobody().get("/health/ready").await.expect(200);
    app.stop().await;
    app.start_again().await;
    app.ci.nobody().get("/health/ready").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_service_wrapped_and_does_not_open_is_refused_by_its_form_or_found_behind_the_start() {
    let transit = FakeTransit::start().await;
    let list = transit.entry("bao");
    let mut app = TestApp::start_changed(move |settings| settings.database.master_keys = listed(&list)).await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.stop().await;
    app.database.run("create table kept as select id, team_id, wrapped from data_keys").await;
    let id = app.database.text("select min(id::text) from data_keys").await;
    for cut in ["substring(wrapped for 40)", "substring(wrapped for length(wrapped) - 1)", "'vault:v1:'"] {
        app.database.run(&format!("update data_keys set wrapped = {cut} where id = '{id}'")).await;
        let refused = app.refused_to_start().await;
        assert!(refused.contains(&id) && refused.contains("does not open"), "{refused}");
        app.database.run("update data_keys d set wrapped = k.wrapped from kept k where k.id = d.id").await;
    }
    app.start_again().await;
    app.ci.nobody().get("/health/ready").await.expect(200);
    app.stop().await;
    // One team's in another's row.
    app.database
        .run(&format!("update data_keys d set wrapped = k.wrapped from kept k where d.id = '{id}' and k.team_id <> d.team_id"))
        .await;
    app.start_again().await;
    for _ in 0..100 {
        if app.ci.nobody().get("/health/ready").await.status != 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let unready = app.ci.nobody().get("/health/ready").await.refused(503, "master-key-unusable");
    assert!(unready.text.contains(&id), "{}", unready.text);
}
