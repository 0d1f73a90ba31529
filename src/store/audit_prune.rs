//! Removing audit rows: with the account that owns the tables, since the service's role may not.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
    types::Json,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Result;
use crate::actor::Actor;

/// A connection of the tables' owner.
#[derive(Clone, Debug)]
pub struct AuditPruning {
    pool: PgPool,
}

/// Batches that follow one another, and were verified.
#[derive(Clone, Debug, Default)]
pub struct Prunable {
    /// Their numbers.
    pub numbers: Vec<i64>,
    /// For each, what shows that its rows were removed by who has the key.
    pub marks: Vec<Vec<u8>>,
    /// No row from this id on is older than theirs.
    pub from: i64,
    /// Their last row.
    pub upto: i64,
    /// How many rows they have.
    pub events: i64,
}

impl AuditPruning {
    /// Connects.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn connect(options: PgConnectOptions) -> Result<Self> {
        let options = options.application_name("token-broker").options([("synchronous_commit", "on")]);
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(10));
        Ok(Self { pool: pool.connect_with(options).await? })
    }

    /// Removes the rows of these batches, marks the batches, and writes it down. `false`: the rows are not all there, or this account
    /// does not see them, and nothing was removed.
    ///
    /// # Errors
    /// The account may not, or Postgres.
    pub async fn remove(&self, batches: &Prunable, before: OffsetDateTime, actor: &Actor) -> Result<bool> {
        let removed = sqlx::query_scalar!(
            r#"with gone as (
                   delete from audit_events where (select in_team($1)) and id >= $4 and id <= $5
                          and (select count(*) from audit_events where (select in_team($1)) and id >= $4 and id <= $5) = $6
                   returning id),
               marked as (
                   update audit_batches set rows = null, pruned = mark
                   from unnest($2::bigint[], $3::bytea[]) as removed (batch, mark)
                   where (select in_team($1)) and number = batch and rows is not null and (select count(*) from gone) = $6
                   returning number),
               audited as (
                   insert into audit_events (actor, recognised_by, action, outcome, detail)
                   select $7::jsonb->>'name', $7->'recognised_by', 'audit.prune', 'done',
                          jsonb_build_object('first_batch', min(number), 'last_batch', max(number), 'events', $6::bigint, 'before', $8::timestamptz)
                   from marked where (select in_team($1)) having count(*) > 0)
               select count(*) as "batches!" from marked"#,
            Uuid::nil(),
            &batches.numbers,
            &batches.marks,
            batches.from,
            batches.upto,
            batches.events,
            Json(actor) as _,
            before
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(removed > 0)
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
