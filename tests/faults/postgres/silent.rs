//! The machine of Postgres dies without a word, and another takes its place: nobody closes the connections to the old one.

use serde_json::json;

use super::{all_live, behind_a_gate, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_without_a_word_is_noticed_and_what_its_successor_missed_is_mended() {
    let (gate, app) = behind_a_gate().await;
    app.register("deploy").await;
    app.database.run("create table kept_chains as select * from chains; create table kept_tokens as select * from tokens").await;
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    gate.abandon();
    // The successor has not seen the last commit.
    app.database
        .run(
            "delete from tokens; insert into tokens select * from kept_tokens; insert into chains select * from kept_chains;
             drop table kept_chains, kept_tokens",
        )
        .await;
    until("the mended row", async || app.database.count("select max(generation) from tokens").await == 2).await;
    until("ready", async || app.ci.get("/health/ready").await.status == 200).await;
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((now.access_token(), &now.json["generation"]), (rotated.access_token(), &json!(2)));
    assert_eq!(app.simulator.refreshes(), 1);
    all_live(&app, &["deploy"]).await;
}
