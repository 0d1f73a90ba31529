//! Postgres takes no writes.

use serde_json::json;
use token_broker::dev::postgres::Durability;

use super::{all_live, own::Own, until};
use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_became_read_only_spends_nothing_and_goes_on_when_it_writes_again() {
    read_only("alter system set default_transaction_read_only = on", "alter system reset default_transaction_read_only").await;
}

/// Connections that were opened meanwhile stay read-only for ever.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_born_read_only_are_not_kept() {
    read_only(
        "alter database broker set default_transaction_read_only = on",
        "alter database broker reset default_transaction_read_only",
    )
    .await;
}

async fn read_only(on: &str, off: &str) {
    let own = Own::start(Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    let asked = app.asked_for_pairs();

    own.beside(on).await;
    own.beside("select pg_reload_conf()").await;
    own.beside("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'broker'").await;
    until("read-only", async || app.ci.get("/health/ready").await.status == 503).await;
    for _ in 0..10 {
        // No hand-out without its audit row.
        app.ci.refresh("deploy", json!({"wait": 2})).await.refused(503, "database-unavailable");
        app.admin.refresh("deploy", json!({"wait": 2, "max_age": 0})).await.refused(503, "database-unavailable");
    }
    app.ci.get("/health/ready").await.refused(503, "database-unavailable");
    assert_eq!(app.asked_for_pairs(), asked, "nothing is spent");

    own.beside(off).await;
    own.beside("select pg_reload_conf()").await;
    // Not one request a while, but always somebody: no connection is idle long enough to be looked at.
    let mut rows = Vec::new();
    until("a hand-out", async || {
        let answer = app.ci.refresh("deploy", json!({})).await;
        rows.push(answer.status);
        answer.status == 200 && answer.access_token() == handed.access_token()
    })
    .await;
    until("ready", async || app.ci.get("/health/ready").await.status == 200).await;
    for _ in 0..50 {
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
    all_live(&app, &["deploy"]).await;
}
