//! Master keys: their canaries, which one the others' keys are to be re-wrapped by, and their retirement. Never the keys themselves.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::{actor::Actor, secret::Sealed};

/// A master key that was ever used.
#[derive(Clone, Debug)]
pub struct MasterKeyRow {
    /// Its id.
    pub id: String,
    /// A known text, sealed by it.
    pub canary: Sealed,
    /// When it was first used.
    pub created_at: OffsetDateTime,
    /// When everything was asked to be wrapped by it; `None`: not, or it is done.
    pub rewrap_asked_at: Option<OffsetDateTime>,
    /// Since when nothing needs it.
    pub retired_at: Option<OffsetDateTime>,
}

impl Store {
    /// All master keys ever used.
    ///
    /// # Errors
    /// Postgres.
    pub async fn master_keys(&self) -> Result<Vec<MasterKeyRow>> {
        let rows =
            sqlx::query!("select id, canary, created_at, rewrap_asked_at, retired_at from master_keys order by created_at, id")
                .fetch_all(&self.pool)
                .await?;
        let keys = rows.into_iter().map(|row| MasterKeyRow {
            id: row.id,
            canary: Sealed::from_bytes(row.canary),
            created_at: row.created_at,
            rewrap_asked_at: row.rewrap_asked_at,
            retired_at: row.retired_at,
        });
        Ok(keys.collect())
    }

    /// Keeps the canary of a master key's first use.
    ///
    /// # Errors
    /// Postgres.
    pub async fn add_canary(&self, id: &str, canary: &Sealed) -> Result<()> {
        sqlx::query!(
            "insert into master_keys (id, canary) values ($1, $2) on conflict on constraint master_keys_pkey do nothing",
            id,
            canary.as_bytes()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Which master keys some wrapped key needs.
    ///
    /// # Errors
    /// Postgres.
    pub async fn master_keys_in_use(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(r#"select id as "id!" from master_keys_in_use() as used(id)"#).fetch_all(&self.pool).await?)
    }

    /// Asks for all keys to be wrapped by this master key; the worker does it. `false`: it is unknown, or retired.
    ///
    /// # Errors
    /// Postgres.
    pub async fn ask_rewrap(&self, by: &str, actor: &Actor) -> Result<bool> {
        let asked = sqlx::query_scalar!(
            r#"with asked as (
                   update master_keys set rewrap_asked_at = now()
                   where (select in_team($2)) and id = $1 and retired_at is null returning id),
               withdrawn as (
                   update master_keys m set rewrap_asked_at = null from asked where m.id <> asked.id and m.rewrap_asked_at is not null),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'reseal', $2, now() from asked
                   on conflict on constraint jobs_pkey do update set due_at = least(jobs.due_at, excluded.due_at), failures = 0),
               audited as (
                   insert into audit_events (actor, recognised_by, action, outcome, request_id, address, detail)
                   select $3::jsonb->>'name', $3->'recognised_by', 'master-key.rewrap', 'done', $3->>'request_id', $3->>'address',
                          jsonb_build_object('master_key', asked.id)
                   from asked)
               select id from asked"#,
            by,
            Uuid::nil(),
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(asked.is_some())
    }

    /// Everything is wrapped by this master key.
    ///
    /// # Errors
    /// Postgres.
    pub async fn rewrapped(&self, by: &str) -> Result<()> {
        sqlx::query!("update master_keys set rewrap_asked_at = null where id = $1", by).execute(&self.pool).await?;
        Ok(())
    }

    /// Retires a master key if nothing needs it. Returns what does; `None`: there is no such key.
    ///
    /// # Errors
    /// Postgres.
    pub async fn retire_master_key(&self, id: &str, actor: &Actor) -> Result<Option<Vec<String>>> {
        Ok(sqlx::query_scalar!(
            "with retired as materialized (select retire_master_key($1) as needs where (select in_team($3))),
             audited as (
                 insert into audit_events (actor, recognised_by, action, outcome, request_id, address, detail)
                 select $2::jsonb->>'name', $2->'recognised_by', 'master-key.retire', 'done', $2->>'request_id', $2->>'address',
                        jsonb_build_object('master_key', $1::text)
                 from retired where retired.needs = '{}')
             select needs from retired",
            id,
            Json(actor) as _,
            Uuid::nil()
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
