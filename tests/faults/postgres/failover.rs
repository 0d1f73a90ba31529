//! Failover to an asynchronous standby that has missed the last seconds: the replicas' journals mend what it has not seen.

use std::time::Duration;

use serde_json::json;
use token_broker::dev::{
    postgres::Durability,
    simulator::{Fault, Route},
};

use super::{all_live, own::Own, until};
use crate::app::{
    Answer, TestApp,
    jfrog::{chain_ids, sorted},
    process::Replica,
};

const NAMES: [&str; 5] = ["once", "twice", "often", "elsewhere", "healed"];

#[tokio::test(flavor = "multi_thread")]
async fn what_the_standby_missed_is_mended_from_the_journals_of_both_replicas() {
    let mut own = Own::start(Durability::Fast).await;
    let mut standby = own.standby().await;
    let app = TestApp::start_on(own.database()).await;
    for name in NAMES {
        app.register_with(name, json!({"reuse_for": 1})).await.expect(201);
    }
    let journal = tempfile::tempdir().expect("a directory");
    let replica = Replica::start(&app, journal.path(), "info").await;
    let elsewhere = replica.client(&app.admin);
    let seen = app.database.count("select sum(generation)::bigint from tokens").await;
    own.cut_off(&mut standby).await;

    // From here on, the standby misses everything.
    let mut handed: Vec<(&str, Answer)> = Vec::new();
    for (name, rotations, admin) in
        [("once", 1, &app.admin), ("twice", 2, &elsewhere), ("often", 5, &app.admin), ("elsewhere", 3, &elsewhere)]
    {
        for _ in 0..rotations {
            handed.push((name, admin.refresh(name, json!({"max_age": 0})).await.expect(200)));
        }
    }
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.refresh("healed", json!({"max_age": 0, "wait": 1})).await;
    app.token_until("healed", "healed", |token| token["generation"] == 2 && token["status"] == "active").await;
    handed.push(("healed", app.ci.refresh("healed", json!({})).await.expect(200)));
    let spent = app.simulator.refreshes();

    own.fail_over_to(standby).await;
    let mended = format!("select (sum(generation) = {seen} + 12)::int::bigint from tokens");
    until("the mended rows", async || app.database.count(&mended).await == 1).await;
    assert_eq!(app.simulator.refreshes(), spent, "nothing was sent to JFrog for it");
    for name in NAMES {
        let (_, last) = handed.iter().rfind(|(handed, _)| *handed == name).expect("it was handed out");
        assert!(app.simulator.is_alive(last.access_token()), "{name}: what its callers hold works on");
        for admin in [&app.ci, &elsewhere] {
            let now = admin.refresh(name, json!({"max_age": 3_600})).await.expect(200);
            assert_eq!((&now.json["generation"], now.access_token()), (&last.json["generation"], last.access_token()), "{name}");
        }
    }
    no_orphan(&app).await;
    all_live(&app, &NAMES).await;
}

/// What lives at JFrog is what the tokens hold.
async fn no_orphan(app: &TestApp) {
    let (mut ours, mut alive) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        ours.clear();
        for name in NAMES {
            ours.extend(chain_ids(&app.admin.get(&format!("/tokens/{name}")).await.expect(200).json));
        }
        (ours, alive) = (sorted(ours), app.alive());
        if ours == alive {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("ours: {ours:#?}\nalive at JFrog: {alive:#?}");
}
