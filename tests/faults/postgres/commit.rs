//! The connection breaks while a pair is being committed: whether it was, the broker has to find out.

use serde_json::json;

use super::{
    all_live, behind_a_gate,
    gate::{Cut, Gate},
};
use crate::app::{TestApp, jfrog::chain_ids};

/// At the commit, its first backend ends itself: nothing is committed.
const KILL_ONCE: &str = "create sequence commits;
    create function die() returns trigger language plpgsql security definer as $$
        begin if nextval('commits') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if; return null; end $$;
    create constraint trigger die after update of access_token on chains deferrable initially deferred
        for each row execute function die()";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_during_the_commit_costs_one_commit_more_and_nothing_else() {
    let (_gate, app) = started(KILL_ONCE).await;
    rotates_once(&app).await;
    assert_eq!(app.database.count("select last_value from commits").await, 2, "the first commit was killed");
    all_live(&app, &["deploy"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    for cut in [Cut::After, Cut::During] {
        let (gate, app) = started(Gate::WATCH_COMMITS).await;
        gate.cut(cut);
        rotates_once(&app).await;
        assert!(!gate.is_armed(), "the connection was cut");
        all_live(&app, &["deploy"]).await;
    }
}

async fn started(trigger: &str) -> (Gate, TestApp) {
    let (gate, app) = behind_a_gate().await;
    app.register("deploy").await;
    app.database.run(trigger).await;
    (gate, app)
}

/// One refresh through the fault: one rotation at JFrog, one pair, one generation, and whoever asks next is handed the same.
async fn rotates_once(app: &TestApp) {
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!((&rotated.json["generation"], &rotated.json["warnings"]), (&json!(2), &json!([])), "{}", rotated.text);
    let next = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!((next.access_token(), &next.json["generation"]), (rotated.access_token(), &json!(2)));
    assert_eq!(app.simulator.refreshes(), 1);
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'chain.rotate'").await, 1);
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!(app.alive(), chain_ids(&token), "nothing was given back, and nothing is left over");
}
