//! Closing while others write: rows commit in another order than their ids, and none of them may look slipped in.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{join, join_all};
use rand::RngExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use token_broker::{
    audit::RowList,
    broker::{AuditChain, Closed},
    store::Store,
};

use super::Chained;

const ROW: &str =
    "insert into audit_events (actor, recognised_by, action, outcome) values ('test', '{}', 'test.event', 'done') returning id";

async fn insert(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(ROW).fetch_one(connection).await.expect("it inserts")
}

#[tokio::test]
async fn an_older_row_that_commits_late_is_waited_for() {
    let chained = Chained::of(1).await;
    let mut late = chained.database.connect().await;
    let mut transaction = late.begin().await.expect("begins");
    let older = insert(&mut transaction).await;
    let newer = insert(&mut chained.database.connect().await).await;
    assert!(older < newer);
    let commits = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        transaction.commit().await.expect("commits");
    };
    let (checkpoint, ()) = join(chained.close(), commits).await;
    assert_eq!((checkpoint.events, checkpoint.last_event), (2, newer));
    chained.is_whole(2).await;
}

#[tokio::test]
async fn one_that_takes_too_long_puts_the_closing_off_and_is_closed_later() {
    let chained = Chained::of(1).await;
    let mut late = chained.database.connect().await;
    let mut transaction = late.begin().await.expect("begins");
    insert(&mut transaction).await;
    chained.write(3).await;
    assert_eq!(chained.chain().close().await.expect("it looks"), Closed::PutOff);
    let seen = chained.verify(&[]).await;
    assert_eq!((seen.finding, seen.batches, seen.unclosed), (None, 1, 3));
    transaction.commit().await.expect("commits");
    assert_eq!(chained.close().await.events, 4);
    chained.is_whole(2).await;
}

/// An id without a transaction id: Postgres' snapshots know nothing of this writer yet.
#[tokio::test]
async fn one_that_has_an_id_and_has_written_nothing_yet_is_waited_for() {
    let chained = Chained::of(1).await;
    let slow = "insert into audit_events (actor, recognised_by, action, outcome, reason)
                values ('slow', '{}', 'test.event', 'done', (select pg_sleep(2)::text)) returning id";
    let mut late = chained.database.connect().await;
    let slow = tokio::spawn(async move { sqlx::query_scalar::<_, i64>(slow).fetch_one(&mut late).await.expect("it inserts") });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let newer = insert(&mut chained.database.connect().await).await;
    let without = "select count(*) from pg_stat_activity where query like '%pg_sleep(2)%' and datname = current_database()
                   and pid <> pg_backend_pid() and state = 'active' and backend_xid is null";
    assert_eq!(chained.database.count(without).await, 1, "no transaction id yet");
    let checkpoint = chained.close().await;
    let older = slow.await.expect("no panic");
    assert!(older < newer, "{older} was given out first");
    assert_eq!((checkpoint.events, checkpoint.last_event), (2, newer));
    chained.is_whole(2).await;
}

#[tokio::test]
async fn a_row_that_is_rolled_back_leaves_a_gap_that_stays_one() {
    let chained = Chained::of(1).await;
    let mut other = chained.database.connect().await;
    let mut transaction = other.begin().await.expect("begins");
    let lost = insert(&mut transaction).await;
    chained.write(1).await;
    transaction.rollback().await.expect("rolls back");
    assert_eq!(chained.close().await.events, 1);
    chained.is_whole(2).await;
    let slip = format!(
        "insert into audit_events (id, actor, recognised_by, action, outcome) overriding system value values ({lost}, 'x', '{{}}', 'x', 'done')"
    );
    chained.database.run(&slip).await;
    assert_eq!(chained.found(&[]).await.expect("it is found").event, Some(lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_in_any_order_closers_and_a_verifier_at_once() {
    let chained = Chained::new().await;
    let (done, url) = (AtomicBool::new(false), chained.database.url());
    let writer = || async {
        let mut connection = PgConnection::connect(url).await.expect("connects");
        for _ in 0..60 {
            let mut transaction = connection.begin().await.expect("begins");
            let (pause, rows) = (rand::rng().random_range(0..40), rand::rng().random_range(1..4));
            for _ in 0..rows {
                insert(&mut transaction).await;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            match rand::rng().random_range(0..4) {
                0 => transaction.rollback().await.expect("rolls back"),
                _ => transaction.commit().await.expect("commits"),
            }
        }
    };
    let work = async {
        join_all((0..6).map(|_| writer())).await;
        done.store(true, Ordering::SeqCst);
    };
    let closer = || async {
        let mut closed = 0;
        while !done.load(Ordering::SeqCst) {
            closed += usize::from(matches!(chained.chain().close().await.expect("it closes"), Closed::Batch { .. }));
        }
        closed
    };
    let verifier = async {
        while !done.load(Ordering::SeqCst) {
            assert_eq!(chained.found(&[]).await, None, "a false alarm");
        }
    };
    let ((), (one, two), ()) = futures_util::join!(work, join(closer(), closer()), verifier);
    while chained.chain().close().await.expect("it closes") != Closed::Nothing {}
    let seen = chained.verify(&[]).await;
    let rows = chained.database.count("select count(*) from audit_events").await;
    assert_eq!((seen.finding, seen.events, seen.unclosed), (None, rows, 0));
    assert!(one + two > 5, "{one} and {two} batches while they wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_replicas_that_close_at_once_one_does() {
    let chained = Chained::new().await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(Store::connect(chained.database.url().parse().expect("a URL"), 2).await.expect("connects"));
    }
    for round in 1..=20 {
        chained.write(3).await;
        let chains: Vec<_> = stores.iter().map(|store| AuditChain::new(store, &chained.master)).collect();
        let closed = join_all(chains.iter().map(AuditChain::close))
            .await
            .into_iter()
            .filter(|closed| matches!(closed, Ok(Closed::Batch { .. })))
            .count();
        assert_eq!(closed, 1);
        chained.is_whole(round).await;
    }
    assert_eq!(chained.database.count("select count(*) from audit_keys").await, 1, "nor did two make a key");
}

#[tokio::test]
async fn the_list_in_a_batch_is_what_stood_in_the_table() {
    let chained = Chained::of(2).await;
    let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe("select id from audit_events order by id"))
        .fetch_all(&mut chained.database.connect().await)
        .await
        .expect("ids");
    let mut listed = Vec::new();
    for batch in chained.store.audit_batches(0, 10).await.expect("batches") {
        let list = RowList::from_bytes(batch.rows.expect("rows")).expect("a list");
        listed.extend((0..list.count()).filter_map(|at| Some(list.get(at)?.0)));
        let late = format!("select count(*) from audit_events where id <= {} and at > '{}'", batch.last_id, batch.closed_at);
        assert_eq!(chained.database.count(&late).await, 0);
    }
    assert_eq!(listed, ids);
}
