//! Full disks: Postgres' own, and that of the journal.

use serde_json::json;
use token_broker::dev::postgres::Durability;

use super::{
    all_live,
    disk::SmallDisk,
    own::{Own, directory},
    pairs_waiting, until,
};
use crate::app::{
    TestApp,
    journal::{COMMITTED, entries, logs},
};

const NAMES: [&str; 2] = ["deploy", "release"];
/// Generations of all tokens, less the first of each: the rotations that Postgres knows of.
const ROTATIONS: &str = "select sum(generation - 1)::bigint from tokens";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_postgres_loses_nothing() {
    let dir = directory();
    let Some(disk) = SmallDisk::over(dir.path(), 160) else { return };
    let mut own = Own::start_in(dir.path(), Durability::Fast).await;
    let app = TestApp::start_on(own.database()).await;
    for name in NAMES {
        app.register(name).await;
    }
    disk.fill();
    // Each table has a little room left in its last page.
    let mut refused = 0;
    for round in 0.. {
        let answer = app.admin.refresh(NAMES[round % 2], json!({"max_age": 0, "wait": 1})).await;
        if answer.status == 503 {
            assert!(answer.retry_after() >= 1, "{}", answer.text);
            refused += 1;
        } else {
            answer.expect(200);
        }
        if refused == 4 {
            break;
        }
        assert!(round < 500, "the disk never was full");
    }
    let saved = usize::try_from(app.database.count(ROTATIONS).await).expect("a number");
    // What is saved there is marked here a moment later.
    until("what was spent is saved, here or there", async || {
        app.simulator.refreshes() == saved + pairs_waiting(app.journal.path())
    })
    .await;
    eprintln!("{} spent, {saved} saved", app.simulator.refreshes());
    disk.free();
    until("all saved", async || pairs_waiting(app.journal.path()) == 0).await;
    all_live(&app, &NAMES).await;

    // Without room for its log the server itself goes down, in the middle of a rotation.
    app.simulator.knobs(|knobs| knobs.latency_ms = 700);
    let (admin, spent) = (app.admin.clone(), app.simulator.refreshes());
    let asked = tokio::spawn(async move { admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await });
    until("the call", async || app.simulator.refreshes_in_flight() == 1).await;
    disk.fill();
    own.write_until_it_fails().await;
    let answer = asked.await.expect("an answer");
    assert!(answer.status == 200 || answer.status == 503 && answer.retry_after() >= 1, "{}", answer.text);
    // It may have come back by itself, on what little there is.
    own.crash().await;
    disk.free();
    own.start_again().await;
    until("all saved", async || pairs_waiting(app.journal.path()) == 0).await;
    assert_eq!(app.simulator.refreshes(), spent + 1);
    app.simulator.knobs(|knobs| knobs.latency_ms = 0);
    all_live(&app, &NAMES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_journal_spends_nothing_and_keeps_what_was_begun() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let Some(disk) = SmallDisk::over(app.journal.path(), 4) else { return };
    app.start_again().await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);

    disk.fill();
    // What was made beforehand is gone.
    logs(app.journal.path()).into_iter().for_each(|log| std::fs::remove_file(log).expect("removes"));
    disk.fill();
    for _ in 0..3 {
        let still = app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
        assert_eq!((still.access_token(), &still.json["warnings"]), (before.access_token(), &json!(["refresh-pending"])));
        // With no current token good enough there is nothing to hand out instead.
        let none = json!({"max_age": 0, "wait": 1, "min_ttl": 1_000_000_000});
        app.admin.refresh("deploy", none).await.refused(503, "refresh-pending");
    }
    assert_eq!(app.simulator.refreshes(), 0, "nothing is spent");
    assert_eq!(app.database.count("select count(*) from attempts").await, 0);
    disk.free();
    app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);

    // Full while JFrog is being asked: the room for its answer was taken before.
    app.simulator.knobs(|knobs| knobs.latency_ms = 500);
    let admin = app.admin.clone();
    let asked = tokio::spawn(async move { admin.refresh("deploy", json!({"max_age": 0})).await });
    until("the call", async || app.simulator.refreshes_in_flight() == 1).await;
    disk.fill();
    until("a pair in the journal", async || pairs_waiting(app.journal.path()) == 1 || asked.is_finished()).await;
    assert_eq!(asked.await.expect("an answer").expect(200).json["generation"], 3);
    disk.free();
    app.simulator.knobs(|knobs| knobs.latency_ms = 0);
    all_live(&app, &["deploy"]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_journal_is_not_felt_while_there_is_room_made_beforehand() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let Some(disk) = SmallDisk::over(app.journal.path(), 16) else { return };
    app.start_again().await;
    let size = || logs(app.journal.path()).iter().map(|log| std::fs::metadata(log).map_or(0, |file| file.len())).sum::<u64>();
    until("room made beforehand", async || size() >= 1 << 20).await;
    disk.fill();
    let made = size();
    for spent in 1..=16 {
        let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!((rotated.json["refreshed"].as_bool(), app.simulator.refreshes()), (Some(true), spent), "{}", rotated.text);
    }
    until("all of them said to be committed", async || entries(app.journal.path(), COMMITTED) == 16).await;
    assert_eq!((size(), pairs_waiting(app.journal.path())), (made, 0));
    app.stop().await;
}
