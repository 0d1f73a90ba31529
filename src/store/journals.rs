//! What the replicas' journals need: Postgres cannot see their files.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// A journal, as its replica last reported it.
#[derive(Clone, Debug)]
pub struct JournalRow {
    /// Lies in its directory.
    pub id: Uuid,
    /// Master keys that its entries need.
    pub needs: Vec<String>,
    /// Master keys that its replica was given, the wrapping one first.
    pub holds: Vec<String>,
    /// When.
    pub reported_at: OffsetDateTime,
    /// Whether its replica has been silent for longer than it should be.
    pub away: bool,
}

impl Store {
    /// Takes down what a journal needs, before anything more is wrapped for it. Returns which of these master keys may still wrap: one
    /// that was retired does not come back.
    ///
    /// # Errors
    /// Postgres.
    pub async fn report_journal(&self, id: Uuid, needs: &[String], holds: &[String]) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(
            r#"with usable as materialized (select m.id from master_keys m where m.id = any ($2) and m.retired_at is null for share)
               insert into journals (id, needs, holds) values ($1, array(select usable.id from usable order by usable.id), $3)
               on conflict on constraint journals_pkey do update
                   set needs = excluded.needs, holds = excluded.holds, reported_at = now()
               returning needs"#,
            id,
            needs,
            holds
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// All journals. One is away that has not reported for so long.
    ///
    /// # Errors
    /// Postgres.
    pub async fn journals(&self, away_after: Duration) -> Result<Vec<JournalRow>> {
        Ok(sqlx::query_as!(
            JournalRow,
            r#"select id, needs, holds, reported_at, reported_at < now() - make_interval(secs => $1) as "away!"
               from journals order by id"#,
            away_after.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Forgets a journal whose replica has been silent for so long: its operator says that it does not come back. `false`: there is
    /// none, or it has reported since.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_journal(&self, id: Uuid, away_after: Duration, actor: &Actor) -> Result<bool> {
        let gone = sqlx::query_scalar!(
            r#"with gone as (
                   delete from journals where (select in_team($4)) and id = $1 and reported_at < now() - make_interval(secs => $2) returning id, needs),
               audited as (
                   insert into audit_events (actor, recognised_by, action, outcome, request_id, address, detail)
                   select $3::jsonb->>'name', $3->'recognised_by', 'journal.forget', 'done', $3->>'request_id', $3->>'address',
                          jsonb_build_object('journal', gone.id, 'needed', gone.needs)
                   from gone)
               select id from gone"#,
            id,
            away_after.as_secs_f64(),
            Json(actor) as _,
            Uuid::nil()
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(gone.is_some())
    }
}
