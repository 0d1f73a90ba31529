//! A child token whose replica dies between JFrog's answer and the job: nobody has it, and it does not stay.

use std::time::Duration;

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{TestApp, process::Replica};

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_nobody_was_handed_is_revoked_by_another_replica() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let pairs = app.alive();
    let journal = tempfile::tempdir().expect("a directory");
    let mut replica = Replica::start(&app, journal.path(), "info").await;
    app.simulator.fault(Rule::once(Fault::DelayAfterCommit { ms: 1_500 }, Route::Create));
    let client = replica.client(&app.ci);
    let asked =
        tokio::spawn(
            async move { crate::app::Answer::try_of(client.request(reqwest::Method::POST, "/tokens/deploy/issue")).await },
        );
    while app.alive() == pairs {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    replica.kill();
    assert!(asked.await.expect("it ends").is_err(), "nobody was answered");
    app.database.until("not exists (select 1 from children where state <> 'revoked')").await;
    assert_eq!(app.alive(), pairs);
    let issued = app.ci.post("/tokens/deploy/issue", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(issued.access_token()));
}
