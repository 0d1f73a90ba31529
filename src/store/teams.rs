//! Teams.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DataKeyRow, Result, Store};
use crate::actor::Actor;

/// A team as it is stored.
#[derive(Clone, Debug)]
pub struct TeamRow {
    /// Internal id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
}

impl Store {
    /// Makes a team with its data key.
    ///
    /// # Errors
    /// `Taken("teams_name_key")`, or Postgres.
    pub async fn create_team(&self, id: Uuid, name: &str, description: &str, key: &DataKeyRow, actor: &Actor) -> Result<TeamRow> {
        Ok(sqlx::query_as!(
            TeamRow,
            r#"with made as (
                   insert into teams (id, name, description, created_by)
                   select $1, $2, $3, $7::jsonb->>'name' where (select in_team($1))
                   returning id, name, description, created_at, created_by),
               keyed as (
                   insert into data_keys (id, team_id, master_key_id, wrapped, current)
                   select $4, made.id, $5, $6, true from made),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.id, $7->>'name', $7->'recognised_by', 'team.create', 'done', $7->>'request_id', $7->>'address',
                          jsonb_build_object('team', made.name)
                   from made)
               select id, name, description, created_at, created_by from made"#,
            id,
            name,
            description,
            key.id,
            key.wrapped.master_key_id,
            key.wrapped.sealed.as_bytes(),
            Json(actor) as _
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// A page of teams by name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_teams(&self, after: &str, limit: i64) -> Result<Vec<TeamRow>> {
        Ok(sqlx::query_as!(
            TeamRow,
            "select id, name, description, created_at, created_by from teams
             where (select in_team($1)) and name > $2 order by name limit $3",
            Uuid::nil(),
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The team of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn team_by_name(&self, name: &str) -> Result<Option<TeamRow>> {
        Ok(sqlx::query_as!(
            TeamRow,
            "select id, name, description, created_at, created_by from teams where (select in_team($1)) and name = $2",
            Uuid::nil(),
            name
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Deletes a team with its keys of both kinds: what it had sealed is noise from now on. `false`: there is none.
    ///
    /// # Errors
    /// `InUse` while it has tokens, or Postgres.
    pub async fn delete_team(&self, id: Uuid, actor: &Actor) -> Result<bool> {
        let deleted = sqlx::query_scalar!(
            r#"with gone as (
                   delete from teams where (select in_team($1)) and id = $1 returning id, name),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select gone.id, $2::jsonb->>'name', $2->'recognised_by', 'team.delete', 'done', $2->>'request_id', $2->>'address',
                          jsonb_build_object('team', gone.name)
                   from gone)
               select id from gone"#,
            id,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(deleted.is_some())
    }
}
