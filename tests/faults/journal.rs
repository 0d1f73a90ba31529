//! A pair that JFrog gave and Postgres did not take waits in the journal.

use std::fs;

use serde_json::json;

use crate::app::{
    TestApp,
    journal::{COMMITTED, PENDING, change, entries, logs, set_aside, uncommit, until_pending},
};

const REMEMBER: &str = "create table kept_chains as select * from chains; create table kept_tokens as select * from tokens";
const FORGET: &str =
    "delete from tokens; insert into tokens select * from kept_tokens; insert into chains select * from kept_chains;
                      drop table kept_chains, kept_tokens";

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_whose_commit_failed_is_committed_by_the_next_start() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    // Postgres refuses exactly the commit: the pair is in the journal and nowhere else.
    app.database
        .run(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
             create trigger refuse before update of access_token on chains for each row execute function refuse();",
        )
        .await;
    let asked = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!((asked.access_token(), &asked.json["warnings"]), (before.access_token(), &json!(["refresh-pending"])));
    assert_eq!(app.simulator.refreshes(), 1, "the refresh token is spent");
    until_pending(app.journal.path(), 1).await;
    app.database.run("drop trigger refuse on chains").await;

    app.stop().await;
    app.start_again().await;
    app.stop().await;
    let stand = [PENDING, COMMITTED].map(|standing| entries(app.journal.path(), standing));
    assert_eq!(stand, [0, 3], "two of the registration, one replayed");
    app.start_again().await;
    let token = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!((&token["generation"], &token["status"]), (&json!(2), &json!("active")));
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_ne!(after.access_token(), before.access_token(), "the replayed pair is the younger one");
    assert!(app.simulator.is_alive(after.access_token()));
    app.let_pass(21_620).await;
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["refreshed"], true);
    assert_eq!(app.simulator.refreshes(), 2);
    assert_eq!(app.database.count("select count(*) from attempts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_failover_set_back_is_mended_from_a_committed_entry() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.database.run(REMEMBER).await;
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    app.stop().await;
    // The standby that took over has not seen the last commit.
    app.database.run(FORGET).await;
    app.start_again().await;
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(now.access_token(), rotated.access_token());
    assert_eq!(now.json["generation"], rotated.json["generation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_entry_that_is_torn_is_set_aside_when_it_is_needed_and_blocks_nothing() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.database.run(REMEMBER).await;
    app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    app.stop().await;
    app.database.run(FORGET).await;
    let log = logs(app.journal.path()).pop().expect("a log");
    let bytes = fs::read(&log).expect("reads");
    let last = bytes.chunks(4096).rposition(|page| page.starts_with(COMMITTED)).expect("the rotation's");
    fs::write(&log, &bytes[..last * 4096 + 1_500]).expect("is torn");
    app.start_again().await;
    until_pending(app.journal.path(), 0).await;
    assert_eq!(set_aside(app.journal.path()), 1);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.stop().await;
    app.start_again().await;
    assert_eq!(set_aside(app.journal.path()), 1, "it is not looked at again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entry_is_set_aside_and_blocks_nothing() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    uncommit(app.journal.path());
    // Behind its beginning, its lengths and its header: in the answer.
    change(app.journal.path(), PENDING, |page| page[1_500] ^= 1);
    // As an earlier version would have left it.
    fs::write(app.journal.path().join("nonsense.pending"), b"\0").expect("writes");
    app.start_again().await;
    until_pending(app.journal.path(), 0).await;
    assert_eq!(set_aside(app.journal.path()), 3);
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_the_system_cannot_read_now_stays_and_blocks_nothing() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    uncommit(app.journal.path());
    // ELOOP, as EIO of a disk that recovers.
    let endless = app.journal.path().join(format!("{}.log", uuid::Uuid::now_v7()));
    std::os::unix::fs::symlink(&endless, &endless).expect("links");
    app.start_again().await;
    assert!(endless.is_symlink(), "it is looked at again");
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.stop().await;
    fs::remove_file(endless).expect("removes");
    let stand = [PENDING, COMMITTED].map(|standing| entries(app.journal.path(), standing));
    assert_eq!((stand, set_aside(app.journal.path())), ([0, 2], 0), "the others are dealt with");
}
