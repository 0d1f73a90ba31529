//! Pruning: whole closed batches, by the tables' owner with the key; what is left can be verified, and what was pruned stays gone.

use time::OffsetDateTime;
use token_broker::{
    actor::Actor,
    audit::Wrong,
    broker::Pruned,
    store::{AuditPruning, PgConnectOptions},
};

use super::Chained;

impl Chained {
    async fn prune(&self, before: OffsetDateTime) -> Pruned {
        let options: PgConnectOptions = self.database.url().parse().expect("a URL");
        let owner = AuditPruning::connect(options).await.expect("connects");
        self.chain().prune(before, &owner, &Actor::system()).await.expect("it prunes")
    }

    /// When this batch was closed, and a moment more.
    async fn closed(&self, batch: i64) -> OffsetDateTime {
        let batches = self.store.audit_batches(batch - 1, 1).await.expect("batches");
        batches[0].closed_at + time::Duration::MICROSECOND
    }
}

const EVENTS: &str = "select count(*) from audit_events where action = 'test.event'";

#[tokio::test]
async fn old_batches_lose_their_rows_and_the_rest_is_whole() {
    let chained = Chained::of(5).await;
    chained.write(2).await;
    let newest = chained.verify(&[]).await.newest.expect("five");
    let done = chained.prune(chained.closed(2).await).await;
    assert_eq!((done.batches, done.events, done.finding), (2, 18, None));
    let seen = chained.verify(&[newest]).await;
    assert_eq!((seen.finding, seen.batches, seen.pruned, seen.events), (None, 5, 2, 27));
    let event = "select count(*) from audit_events where action = 'audit.prune' and outcome = 'done' and actor = 'system' and team_id is null
                 and detail->>'first_batch' = '1' and detail->>'last_batch' = '2' and detail->>'events' = '18' and detail ? 'before'";
    assert_eq!(chained.database.count(event).await, 1, "it is written down");
    assert_eq!(chained.close().await.events, 3, "and closed like everything else");
    // Nothing is left to prune before that time, and so nothing is written down.
    let done = chained.prune(chained.closed(2).await).await;
    assert_eq!((done.batches, done.events, done.finding), (0, 0, None));
    assert_eq!(chained.prune(chained.closed(3).await).await.batches, 1, "it goes on where it stopped");
    assert_eq!(chained.database.count("select count(*) from audit_events where action = 'audit.prune'").await, 2);
    chained.is_whole(6).await;
}

#[tokio::test]
async fn a_row_that_is_not_closed_is_never_pruned() {
    let chained = Chained::of(2).await;
    chained.write(4).await;
    chained.database.run("update audit_events set at = '2001-01-01' where id > (select max(last_id) from audit_batches)").await;
    let done = chained.prune(OffsetDateTime::now_utc() + time::Duration::days(365)).await;
    assert_eq!((done.batches, done.events), (2, 18));
    assert_eq!(chained.database.count(EVENTS).await, 4);
    assert_eq!(chained.close().await.events, 5);
    chained.is_whole(3).await;
}

#[tokio::test]
async fn what_is_done_to_the_rest_is_found_as_before() {
    let chained = Chained::of(4).await;
    let newest = chained.verify(&[]).await.newest.expect("four");
    chained.prune(chained.closed(2).await).await;
    let first = chained.database.count("select min(id) from audit_events").await;
    let pruned = "(select last_id from audit_batches where number = 2)";
    for (change, event, wrong) in [
        ("update audit_events set actor = 'x' where id = (select min(id) from audit_events)", Some(first), Wrong::Changed),
        ("delete from audit_events where id = (select min(id) from audit_events)", Some(first), Wrong::Removed),
        (
            "insert into audit_events (id, actor, recognised_by, action, outcome) overriding system value values (3, 'x', '{}', 'x', 'done')",
            Some(3),
            Wrong::SlippedIn,
        ),
        ("delete from audit_batches where number = 1", None, Wrong::BatchMissing),
        ("update audit_batches set pruned = sha256('x') where number = 1", None, Wrong::NotPruned),
        // A mark is good for its own batch.
        (
            "update audit_batches set rows = null, pruned = (select pruned from audit_batches where number = 1) where number = 3;
             delete from audit_events where id < (select last_id from audit_batches where number = 3)",
            None,
            Wrong::NotPruned,
        ),
        ("delete from audit_batches where number = 4", None, Wrong::CutOff),
    ] {
        chained
            .database
            .run("create table kept_events as table audit_events; create table kept_batches as table audit_batches")
            .await;
        chained.database.run(change).await;
        let found = chained.found(std::slice::from_ref(&newest)).await.expect(change);
        assert_eq!((found.event, found.wrong), (event, wrong), "{change}");
        chained
            .database
            .run(
                "delete from audit_events; insert into audit_events overriding system value table kept_events;
                 delete from audit_batches; insert into audit_batches table kept_batches; drop table kept_events, kept_batches",
            )
            .await;
    }
    assert_eq!(chained.found(&[newest]).await, None);
    assert!(first > chained.database.count(&format!("select {pruned}")).await);
}

#[tokio::test]
async fn what_was_tampered_with_is_not_pruned() {
    let chained = Chained::of(4).await;
    chained
        .database
        .run("update audit_events set actor = 'x' where id = (select last_id from audit_batches where number = 2)")
        .await;
    let before = chained.database.count(EVENTS).await;
    let done = chained.prune(chained.closed(4).await).await;
    assert_eq!((done.batches, done.finding.expect("it is found").batch), (1, 2), "only what comes before it");
    assert_eq!(chained.database.count(EVENTS).await, before - 9);
    assert_eq!(chained.found(&[]).await.expect("it is found still").wrong, Wrong::Changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_while_it_is_pruned_raises_no_alarm() {
    let chained = Chained::of(30).await;
    let verify = async {
        for _ in 0..15 {
            assert_eq!(chained.found(&[]).await, None);
        }
    };
    let prune = async {
        for batch in 1..=25 {
            chained.prune(chained.closed(batch).await).await;
        }
    };
    futures_util::join!(verify, prune);
    let seen = chained.verify(&[]).await;
    assert_eq!((seen.finding, seen.pruned), (None, 25));
}
