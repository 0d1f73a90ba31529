//! Data keys, wrapped, and how one takes another's place: a new one seals at once; the old one is closed when no replica can seal with
//! it any more, and deleted when no row needs it and nobody can have such a row in hand.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::{
    actor::Actor,
    secret::{Sealed, Wrapped},
};

/// A wrapped data key.
#[derive(Clone, Debug)]
pub struct DataKeyRow {
    /// Stands in every value it sealed.
    pub id: Uuid,
    /// The key, wrapped.
    pub wrapped: Wrapped,
}

/// A data key as it is listed.
#[derive(Clone, Debug)]
pub struct ListedDataKey {
    /// Stands in every value it sealed.
    pub id: Uuid,
    /// Whose.
    pub team: String,
    /// What wraps it.
    pub master_key_id: String,
    /// Whether it seals new values.
    pub current: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When another took its place.
    pub rotated_at: Option<OffsetDateTime>,
    /// Since when nothing is sealed with it.
    pub closed_at: Option<OffsetDateTime>,
    /// Rows that need it.
    pub rows: i64,
}

/// An old data key, and when the next thing may happen to it.
#[derive(Clone, Debug)]
pub struct OldDataKey {
    /// Which.
    pub id: Uuid,
    /// Whether nothing is sealed with it any more.
    pub closed: bool,
    /// Seconds until it may be closed, or deleted; 0: now.
    pub wait_seconds: f64,
}

/// How far the rotation of data keys is.
#[derive(Clone, Copy, Debug)]
pub struct ResealProgress {
    /// Data keys.
    pub keys: i64,
    /// Of these, old ones.
    pub old_keys: i64,
    /// Teams whose new data key was asked for and is not made yet.
    pub teams_waiting: i64,
    /// Rows of the teams that have old keys.
    pub rows: i64,
    /// Of these, rows that need an old key.
    pub rows_left: i64,
}

impl Store {
    /// The team's data key `id`, or its current one for `None`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn data_key(&self, team: Uuid, id: Option<Uuid>) -> Result<Option<DataKeyRow>> {
        let row = sqlx::query!(
            "select id, master_key_id, wrapped from data_keys
             where (select in_team($1)) and team_id = $1 and (id = $2 or ($2 is null and current))",
            team,
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| DataKeyRow {
            id: row.id,
            wrapped: Wrapped { master_key_id: row.master_key_id, sealed: Sealed::from_bytes(row.wrapped) },
        }))
    }

    /// Asks for a new data key of this team, or of all for `None`; the worker makes them. Returns of how many.
    ///
    /// # Errors
    /// Postgres.
    pub async fn ask_rotation(&self, team: Option<&str>, actor: &Actor) -> Result<i64> {
        Ok(sqlx::query_scalar!(
            r#"with asked as (
                   update teams set rotation_asked_at = now() where (select in_team($1)) and (name = $2 or $2 is null) returning id),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'reseal', asked.id, now() from asked
                   on conflict on constraint jobs_pkey do update set due_at = least(jobs.due_at, excluded.due_at), failures = 0),
               audited as (
                   insert into audit_events (actor, recognised_by, action, outcome, request_id, address, detail)
                   select $3::jsonb->>'name', $3->'recognised_by', 'data-key.rotate', 'done', $3->>'request_id', $3->>'address',
                          jsonb_build_object('team', $2::text, 'teams', count(*))
                   from asked having count(*) > 0)
               select count(*) as "count!" from asked"#,
            Uuid::nil(),
            team,
            Json(actor) as _
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether a new data key of the team was asked for and is not made yet.
    ///
    /// # Errors
    /// Postgres.
    pub async fn is_rotation_asked(&self, team: Uuid) -> Result<bool> {
        let asked = sqlx::query_scalar!(
            r#"select rotation_asked_at is not null as "asked!" from teams where (select in_team($1)) and id = $1"#,
            team
        );
        Ok(asked.fetch_optional(&self.pool).await?.unwrap_or(false))
    }

    /// The teams whose new data keys are asked for, or whose old ones are still there.
    ///
    /// # Errors
    /// Postgres.
    pub async fn teams_to_reseal(&self) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar!("select subject from jobs where kind = 'reseal' and subject <> $1 order by subject", Uuid::nil())
            .fetch_all(&self.pool)
            .await?)
    }

    /// From now on the team's values are sealed with `key`. Nothing happens where another replica was first.
    ///
    /// # Errors
    /// Postgres.
    pub async fn rotate_data_key(&self, team: Uuid, key: &DataKeyRow) -> Result<()> {
        sqlx::query!(
            "with asked as (
                 update teams set rotation_asked_at = null
                 where (select in_team($1)) and id = $1 and rotation_asked_at is not null returning id),
             rotated as (
                 update data_keys d set current = false, rotated_at = now() from asked
                 where (select in_team($1)) and d.team_id = asked.id and d.current returning d.team_id)
             insert into data_keys (id, team_id, master_key_id, wrapped, current)
             select $2, rotated.team_id, $3, $4, true from rotated",
            team,
            key.id,
            key.wrapped.master_key_id,
            key.wrapped.sealed.as_bytes()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The team's old data keys. One may be closed `open_for` after its rotation, and deleted `kept_for` after that.
    ///
    /// # Errors
    /// Postgres.
    pub async fn old_data_keys(&self, team: Uuid, open_for: Duration, kept_for: Duration) -> Result<Vec<OldDataKey>> {
        Ok(sqlx::query_as!(
            OldDataKey,
            r#"select id, closed_at is not null as "closed!",
                      greatest(0, extract(epoch from case when closed_at is null then rotated_at + make_interval(secs => $2)
                                                     else closed_at + make_interval(secs => $3) end - now()))::double precision as "wait_seconds!"
               from data_keys where (select in_team($1)) and team_id = $1 and not current"#,
            team,
            open_for.as_secs_f64(),
            kept_for.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// From now on nothing is sealed with this old key: Postgres refuses it.
    ///
    /// # Errors
    /// Postgres.
    pub async fn close_data_key(&self, team: Uuid, id: Uuid) -> Result<()> {
        sqlx::query!(
            "update data_keys set closed_at = now()
             where (select in_team($1)) and team_id = $1 and id = $2 and not current and closed_at is null",
            team,
            id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes an old key that is closed and that no row needs. `false`: some row does.
    ///
    /// # Errors
    /// Postgres.
    pub async fn delete_data_key(&self, team: Uuid, id: Uuid) -> Result<bool> {
        let deleted = sqlx::query_scalar!(
            r#"with gone as (
                   delete from data_keys d
                   where (select in_team($1)) and d.team_id = $1 and d.id = $2 and not d.current and d.closed_at is not null
                     and not exists (select from sealed_rows($1) r where (select in_team($1)) and $2 = any (r.keys))
                   returning d.id, d.team_id, d.master_key_id),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, detail)
                   select gone.team_id, 'system', '{}', 'data-key.delete', 'done',
                          jsonb_build_object('data_key', gone.id, 'master_key', gone.master_key_id)
                   from gone)
               select id from gone"#,
            team,
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(deleted.is_some())
    }

    /// A page of data keys by id, of one team or of all.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_data_keys(&self, team: Option<Uuid>, after: Uuid, limit: i32) -> Result<Vec<ListedDataKey>> {
        Ok(sqlx::query_as!(
            ListedDataKey,
            r#"select id as "id!", team as "team!", master_key_id as "master_key_id!", current as "current!", created_at as "created_at!",
                      rotated_at, closed_at, rows as "rows!"
               from data_keys_page($1, $2, $3)"#,
            team,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// How far the rotation of data keys is.
    ///
    /// # Errors
    /// Postgres.
    pub async fn reseal_progress(&self) -> Result<ResealProgress> {
        Ok(sqlx::query_as!(
            ResealProgress,
            r#"select keys as "keys!", old_keys as "old_keys!", teams_waiting as "teams_waiting!", rows as "rows!", rows_left as "rows_left!"
               from reseal_progress()"#
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
