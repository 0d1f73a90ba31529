//! The chain of audit batches, the rows they are made of, and the wrapped key of their heads. All of them are the platform's.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{DataKeyRow, Result, Store};
use crate::secret::{Sealed, Wrapped};

/// A closed batch as it is stored.
#[derive(Clone, Debug)]
pub struct AuditBatchRow {
    /// From 1 without a gap.
    pub number: i64,
    /// Which key made the head.
    pub key_id: Uuid,
    /// It is every row after the last batch's up to this id.
    pub last_id: i64,
    /// How many rows.
    pub events: i32,
    /// Of the list of rows.
    pub digest: Vec<u8>,
    /// The list; `None`: pruned.
    pub rows: Option<Vec<u8>>,
    /// What binds it to the batch before.
    pub head: Vec<u8>,
    /// When.
    pub closed_at: OffsetDateTime,
    /// What shows that its rows were removed by who has the key.
    pub pruned: Option<Vec<u8>>,
}

/// Rows that are in no batch yet.
#[derive(Clone, Debug)]
pub struct AuditAhead {
    /// How many.
    pub events: i64,
    /// The last one's id; `None`: there is none.
    pub last_id: Option<i64>,
    /// Postgres' clock.
    pub now: OffsetDateTime,
}

/// A row for its digest.
#[derive(Clone, Debug)]
pub struct AuditText {
    /// The row's.
    pub id: i64,
    /// Its columns but the id, in their order.
    pub fields: Vec<Option<String>>,
}

impl Store {
    /// Rows from this id on, looked at up to `most`; `None`: all.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_ahead(&self, from: i64, most: Option<i32>) -> Result<AuditAhead> {
        let ahead = sqlx::query_as!(
            AuditAhead,
            r#"select events as "events!", last_id, now() as "now!" from audit_ahead($1, $2)"#,
            from,
            most
        );
        Ok(ahead.fetch_one(&self.pool).await?)
    }

    /// Transactions that may still insert a row under an id that was given out before now. Postgres locks a table for a statement
    /// before it takes an id from the table's sequence, and gives the lock back after the commit: a transaction that begins to
    /// write from now on gets later ids, and when these here are gone, every earlier id has its row or never will.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_writers(&self) -> Result<Vec<String>> {
        let writers = sqlx::query_scalar!(
            r#"select virtualtransaction as "transaction!" from pg_locks
               where relation = 'audit_events'::regclass and mode = 'RowExclusiveLock' and granted
                     and database = (select oid from pg_database where datname = current_database())"#
        );
        Ok(writers.fetch_all(&self.pool).await?)
    }

    /// A page of all teams' rows, by id.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_rows(&self, from: i64, upto: i64, page: i32) -> Result<Vec<AuditText>> {
        let rows = sqlx::query_as!(
            AuditText,
            r#"select id as "id!", fields as "fields!: Vec<Option<String>>" from audit_rows($1, $2, $3)"#,
            from,
            upto,
            page
        );
        Ok(rows.fetch_all(&self.pool).await?)
    }

    /// A page of the chain, after batch `after`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_batches(&self, after: i64, page: i64) -> Result<Vec<AuditBatchRow>> {
        Ok(sqlx::query_as!(
            AuditBatchRow,
            "select number, key_id, last_id, events, digest, rows, head, closed_at, pruned from audit_batches
             where (select in_team($1)) and number > $2 order by number limit $3",
            Uuid::nil(),
            after,
            page
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The end of the chain, without its list of rows. `None`: nothing is closed yet.
    ///
    /// # Errors
    /// Postgres.
    pub async fn newest_audit_batch(&self) -> Result<Option<AuditBatchRow>> {
        Ok(sqlx::query_as!(
            AuditBatchRow,
            r#"select number, key_id, last_id, events, digest, null::bytea as rows, head, closed_at, pruned from audit_batches
               where (select in_team($1)) order by number desc limit 1"#,
            Uuid::nil()
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// A key of the chain, wrapped.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_key(&self, id: Uuid) -> Result<Option<DataKeyRow>> {
        let row = sqlx::query!(
            "select id, master_key_id, wrapped from audit_keys where (select in_team($1)) and id = $2",
            Uuid::nil(),
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| DataKeyRow {
            id: row.id,
            wrapped: Wrapped { master_key_id: row.master_key_id, sealed: Sealed::from_bytes(row.wrapped) },
        }))
    }

    /// Appends a batch to the chain, the first one with its key.
    ///
    /// # Errors
    /// `Taken("audit_batches_pkey")`: another replica was first, and nothing is kept of this. Or Postgres.
    pub async fn close_audit_batch(&self, batch: &AuditBatchRow, new_key: Option<&Wrapped>) -> Result<()> {
        sqlx::query!(
            "with key as (
                 insert into audit_keys (id, master_key_id, wrapped) select $3, $9::text, $10 where (select in_team($1)) and $9 is not null)
             insert into audit_batches (number, key_id, last_id, events, digest, rows, head, closed_at)
             select $2, $3, $4, $5, $6, $7, $8, $11 where (select in_team($1))",
            Uuid::nil(),
            batch.number,
            batch.key_id,
            batch.last_id,
            batch.events,
            batch.digest,
            batch.rows.as_deref(),
            batch.head,
            new_key.map(|key| key.master_key_id.as_str()),
            new_key.map(|key| key.sealed.as_bytes()),
            batch.closed_at
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
