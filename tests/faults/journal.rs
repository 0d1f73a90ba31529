//! A pair that JFrog gave and Postgres did not take waits in the journal.

use std::fs;

use serde_json::json;

use crate::app::TestApp;

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
    assert_eq!(entries(&app, "pending"), 1);
    app.database.run("drop trigger refuse on chains").await;

    app.stop().await;
    app.start_again().await;
    assert_eq!((entries(&app, "pending"), entries(&app, "committed")), (0, 3), "two of the registration, one replayed");
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
    app.database.run("create table kept_chains as select * from chains; create table kept_tokens as select * from tokens").await;
    let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    app.stop().await;
    // The standby that took over has not seen the last commit.
    app.database
        .run(
            "delete from tokens; insert into tokens select * from kept_tokens; insert into chains select * from kept_chains;
             drop table kept_chains, kept_tokens",
        )
        .await;
    app.start_again().await;
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(now.access_token(), rotated.access_token());
    assert_eq!(now.json["generation"], rotated.json["generation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entry_is_set_aside_and_blocks_nothing() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let files = fs::read_dir(app.journal.path()).expect("the journal").flatten().map(|file| file.path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "committed")) {
        let mut bytes = fs::read(&path).expect("an entry");
        bytes[5000] ^= 1;
        fs::write(path.with_extension("pending"), bytes).expect("writes");
        fs::remove_file(path).expect("removes");
    }
    fs::write(app.journal.path().join("nonsense.pending"), b"\0").expect("writes");
    app.start_again().await;
    assert_eq!((entries(&app, "pending"), entries(&app, "unreadable")), (0, 3));
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_the_system_cannot_read_now_stays_and_blocks_nothing() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    let waits = fs::read_dir(app.journal.path()).expect("the journal").flatten().map(|file| file.path());
    let waits = waits.filter(|path| path.extension().is_some_and(|extension| extension == "committed")).min().expect("an entry");
    app.stop().await;
    fs::rename(&waits, waits.with_extension("pending")).expect("renames");
    // ELOOP, as EIO of a disk that recovers.
    let endless = app.journal.path().join(format!("{}.pending", uuid::Uuid::new_v4()));
    std::os::unix::fs::symlink(&endless, &endless).expect("links");
    app.start_again().await;
    assert_eq!((entries(&app, "pending"), entries(&app, "unreadable")), (1, 0));
    assert!(endless.is_symlink(), "it is looked at again");
    assert!(waits.exists(), "the other one is dealt with");
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

pub(crate) fn entries(app: &TestApp, extension: &str) -> usize {
    let files = fs::read_dir(app.journal.path()).expect("the journal").flatten();
    files.filter(|file| file.path().extension().is_some_and(|e| e == extension)).count()
}
