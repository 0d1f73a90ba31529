//! Between a look and what follows from it something else is committed: a lock on the token's row makes the moment.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::app::{Answer, TestApp, jfrog::chain_ids, process::Replica};

const LOCKED: &str = "select from tokens for update";
/// Whoever waits for a lock with a statement of these words, within its first thousand letters.
const WAITS: &str = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like";
const LISTENS: &str = "select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database() and query ilike 'listen%'";

async fn somebody_waits(app: &TestApp, words: &str) {
    app.database.until(&format!("exists (select {WAITS} '%{words}%')")).await;
}

async fn with_a_token(app: &TestApp) -> Value {
    let token = app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201).json;
    app.no_keep_alive().await;
    token
}

/// A rotation that everybody knows of but Postgres: a failover has lost it.
async fn lost_by_a_failover(app: &TestApp) -> Answer {
    app.database.run("create table chains_before as table chains; create table tokens_before as table tokens").await;
    let handed = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    app.database
        .run(
            "update chains c set generation = b.generation, access_token = b.access_token, refresh_token = b.refresh_token,
                    jfrog_token_id = b.jfrog_token_id, fingerprint = b.fingerprint, refreshed_at = b.refreshed_at, expires_at = b.expires_at
             from chains_before b where b.id = c.id;
             update tokens t set generation = b.generation, rotatable_at = b.rotatable_at from tokens_before b where b.id = t.id",
        )
        .await;
    handed
}

async fn locked<'a>(connection: &'a mut PgConnection, statement: &str) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let mut transaction = connection.begin().await.expect("begins");
    transaction.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.expect("locks");
    transaction
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_lost_whose_pair_was_committed_while_that_was_concluded() {
    let app = TestApp::start().await;
    let token = with_a_token(&app).await;
    for id in chain_ids(&token) {
        app.simulator.revoke(id.parse().expect("a UUID"));
    }
    let mut other = app.database.connect().await;
    let mut theirs = locked(&mut other, LOCKED).await;
    app.database
        .run(
            "update chains set state = 'uncertain', resent = true;
             insert into jobs (kind, subject, due_at) select 'settle', id, now() from tokens",
        )
        .await;
    somebody_waits(&app, "who waited for it finds what was committed meanwhile").await;
    theirs.execute("update chains set state = 'active'; update tokens set generation = generation + 1").await.expect("runs");
    theirs.commit().await.expect("commits");
    app.database.until("not exists (select from jobs where kind = 'settle')").await;
    assert_eq!(app.database.count("select count(*) from chains where state = 'active'").await, 2);
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'token.lost'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_a_failover_lost_is_not_taken_from_its_holders_by_another_that_came_meanwhile() {
    let app = TestApp::start().await;
    with_a_token(&app).await;
    let handed = lost_by_a_failover(&app).await;
    let mut other = app.database.connect().await;
    let mut theirs = locked(&mut other, LOCKED).await;
    app.database.run(LISTENS).await;
    // The replay has seen the row as it was.
    somebody_waits(&app, "Every statement that changes an attempt").await;
    let healed =
        "update chains set generation = generation + 1, fingerprint = 'another', jfrog_token_id = gen_random_uuid()::text,
                         refreshed_at = refreshed_at - interval '1 h' where letter = 'a'";
    theirs.execute(healed).await.expect("runs");
    theirs.commit().await.expect("commits");
    app.database.until(&format!("not exists (select {WAITS} '%')")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(app.simulator.is_alive(handed.access_token()), "its holders had it seconds ago");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_postgres_broke_off_is_made_again() {
    let app = TestApp::start().await;
    with_a_token(&app).await;
    let handed = lost_by_a_failover(&app).await;
    let mut other = app.database.connect().await;
    let theirs = locked(&mut other, "lock table tokens in access exclusive mode").await;
    app.database.run(LISTENS).await;
    let read = "user_refused_at";
    somebody_waits(&app, read).await;
    app.database.run(&format!("select pg_terminate_backend(pid) {WAITS} '%{read}%'")).await;
    theirs.rollback().await.expect("gives it up");
    let now = app.token_until("deploy", "mended", |token| token["generation"] == 2).await;
    assert!(chain_ids(&now).iter().any(|id| handed.json["token_id"] == id.as_str()), "{now:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recreate_replaced_while_a_sweep_began_keeps_its_time() {
    let app = TestApp::start().await;
    let token = with_a_token(&app).await;
    // Old enough to be nobody's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut other = app.database.connect().await;
    let mut theirs = locked(&mut other, LOCKED).await;
    let due = "insert into jobs (kind, subject, due_at) select 'sweep', id, now() from tokens
               on conflict on constraint jobs_pkey do update set due_at = now()";
    app.database.run(due).await;
    somebody_waits(&app, "with locked as").await;
    let recreated =
        "update chains set jfrog_token_id = gen_random_uuid()::text, sweep_after = now() + interval '1 h' where letter = 'b'";
    theirs.execute(recreated).await.expect("runs");
    theirs.commit().await.expect("commits");
    app.database.until("exists (select from jobs where kind = 'sweep' and due_at > now() + interval '50 min')").await;
    assert_eq!(app.alive(), chain_ids(&token), "it has its holders still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_hangs_keeps_no_pair_from_postgres() {
    let app = TestApp::start().await;
    with_a_token(&app).await;
    let (journal, asked) = (tempfile::tempdir().expect("a directory"), app.asked_for_pairs());
    // Its lease is not over before it gives up waiting: nobody else makes the chain anew.
    let variables = [("TOKEN_BROKER_FAULT", "saving:stall"), ("TOKEN_BROKER_LEASE_SECONDS", "30")];
    let replica = Replica::launch(&app, journal.path(), &variables).await.expect("it starts");
    let answer = replica.client(&app.admin).refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!((&answer.json["refreshed"], &answer.json["generation"]), (&json!(true), &json!(2)));
    assert_eq!(app.asked_for_pairs(), asked + 1, "the one that was refreshed");
    assert!(replica.log().contains("the journal could not keep a pair"), "{}", replica.log());
}
