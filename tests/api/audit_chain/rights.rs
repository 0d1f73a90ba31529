//! What the service's role may do with the chain, and what the command needs the owner for.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use token_broker::{
    broker::{BrokerError, Keys},
    crypto::{MasterKeyError, MasterKeys},
};
use uuid::Uuid;

use super::Chained;
use crate::app::some_master_key;

async fn service_connection(chained: &Chained) -> PgConnection {
    let options: PgConnectOptions = chained.database.url().parse().expect("a URL");
    PgConnection::connect_with(&options.options([("role", "token_broker_app")])).await.expect("connects")
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.expect(sql)
}

#[tokio::test]
async fn no_team_sees_batches_or_their_key_and_the_platform_sees_all() {
    let chained = Chained::of(2).await;
    let mut service = service_connection(&chained).await;
    for (table, rows) in [("audit_batches", 2), ("audit_keys", 1)] {
        let count = format!("select count(*) from {table}");
        assert_eq!(number(&mut service, &count).await, 0, "{table} without a team");
        let team = Uuid::new_v4();
        assert_eq!(number(&mut service, &format!("{count} where (select in_team('{team}'))")).await, 0, "{table} for a team");
        assert_eq!(number(&mut service, &format!("{count} where (select in_team('{}'))", Uuid::nil())).await, rows, "{table}");
    }
}

#[tokio::test]
async fn the_service_adds_to_the_chain_and_changes_nothing_in_it() {
    let chained = Chained::of(2).await;
    let mut service = service_connection(&chained).await;
    let nil = Uuid::nil();
    for sql in [
        format!("update audit_batches set events = 1 where (select in_team('{nil}'))"),
        format!("delete from audit_batches where (select in_team('{nil}'))"),
        format!("delete from audit_keys where (select in_team('{nil}'))"),
        format!("delete from audit_events where (select in_team('{nil}'))"),
        "truncate audit_batches".to_owned(),
        "alter table audit_batches disable row level security".to_owned(),
        "create or replace function audit_ahead(bigint, integer) returns table (events bigint, last_id bigint) language sql as 'select 0, 0'"
            .to_owned(),
        format!(
            "insert into audit_batches select number + 10, key_id, last_id, events, digest, rows, head, closed_at, pruned from audit_batches
             where (select in_team('{}'))",
            Uuid::new_v4()
        ) + "; insert into audit_keys (id, master_key_id, wrapped) values (gen_random_uuid(), 'k1', 'x')",
    ] {
        let error = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut service).await.expect_err(&sql);
        let text = error.to_string();
        assert!(
            ["permission denied", "must be owner", "row-level security"].iter().any(|why| text.contains(why)),
            "{sql}: {text}"
        );
    }
    chained.is_whole(2).await;
}

#[tokio::test]
async fn the_master_key_that_wraps_the_chains_key_must_be_there() {
    let chained = Chained::of(1).await;
    assert_eq!(chained.database.count("select count(*) from data_keys").await, 0, "nothing else needs it");
    assert_eq!(chained.store.master_keys_in_use().await.expect("asks"), ["k1"]);
    let other = MasterKeys::parse(&some_master_key("k2")).expect("keys");
    let refused = Keys::open(other, &chained.store, Duration::from_secs(60)).await.expect_err("k1 is needed");
    assert!(matches!(refused, BrokerError::MasterKey(MasterKeyError::Missing(id)) if id == "k1"));
}
