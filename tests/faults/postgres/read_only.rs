//! Postgres takes no writes.

use serde_json::json;
use token_broker::dev::postgres::Durability;

use super::{all_live, own::Own, until};
use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_became_read_only_spends_nothing_and_goes_on_when_it_writes_again() {
    let own = Own::start(Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    let (on, off) = ("alter system set default_transaction_read_only = on", "alter system reset default_transaction_read_only");
    read_only(&app, on, off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_born_read_only_and_would_stay_so_are_not_kept() {
    let app = TestApp::start().await;
    let name = app.database.text("select current_database()").await;
    let on = format!("alter database {name} set default_transaction_read_only = on");
    let off = format!("set transaction read write; alter database {name} reset default_transaction_read_only");
    read_only(&app, &on, &off).await;
}

async fn read_only(app: &TestApp, on: &str, off: &str) {
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    let asked = app.asked_for_pairs();

    app.database.run(on).await;
    app.database.run("select pg_reload_conf()").await;
    let others = "datname = current_database() and pid <> pg_backend_pid()";
    app.database.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {others}")).await;
    until("read-only", async || app.ci.get("/health/ready").await.status == 503).await;
    for _ in 0..3 {
        // No hand-out without its audit row.
        app.ci.refresh("deploy", json!({"wait": 2})).await.refused(503, "database-unavailable");
        app.admin.refresh("deploy", json!({"wait": 2, "max_age": 0})).await.refused(503, "database-unavailable");
    }
    app.ci.get("/health/ready").await.refused(503, "database-unavailable");
    assert_eq!(app.asked_for_pairs(), asked, "nothing is spent");

    app.database.run(off).await;
    app.database.run("select pg_reload_conf()").await;
    // Always somebody asks: no connection is idle long enough to be looked at before it is used.
    until("a hand-out", async || {
        let answer = app.ci.refresh("deploy", json!({})).await;
        answer.status == 200 && answer.access_token() == handed.access_token()
    })
    .await;
    until("ready", async || app.ci.get("/health/ready").await.status == 200).await;
    for _ in 0..50 {
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
    all_live(app, &["deploy"]).await;
}
