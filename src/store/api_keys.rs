//! API keys: of teams, and of the platform (nil team).

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// A key to be kept.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Unique in its team.
    pub name: String,
    /// `ci`, `viewer`, `admin` or `platform-admin`.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// The part that finds the row.
    pub public_id: String,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    /// Seconds from now; `None`: never expires.
    pub expires_in: Option<i64>,
}

/// A key as it is listed.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
    /// `None`: never.
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// What is known of a presented key before it is verified.
#[derive(Clone, Debug)]
pub struct PresentedKeyRow {
    /// Row id.
    pub id: Uuid,
    /// `None`: a platform key.
    pub team_id: Option<Uuid>,
    /// Its team's name.
    pub team_name: Option<String>,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// What the presented key must hash to.
    pub sha256: Vec<u8>,
    /// `None`: never.
    pub expires_at: Option<OffsetDateTime>,
    /// By Postgres' clock.
    pub expired: bool,
    /// Whether its last use was noted within the last minute.
    pub used_lately: bool,
    /// Postgres' clock.
    pub now: OffsetDateTime,
}

impl Store {
    /// Keeps a key. `team` is nil for a platform key.
    ///
    /// # Errors
    /// `Taken("api_keys_name_key")`, or Postgres.
    pub async fn create_api_key(&self, team: Uuid, key: &NewApiKey, actor: &Actor) -> Result<ApiKeyRow> {
        Ok(sqlx::query_as!(
            ApiKeyRow,
            r#"with made as (
                   insert into api_keys (id, team_id, name, role, token_patterns, public_id, secret_sha256, expires_at, created_by)
                   select gen_random_uuid(), nullif($1, '00000000-0000-0000-0000-000000000000'::uuid), $2, $3, $4, $5, $6,
                          now() + make_interval(secs => $7), $8::jsonb->>'name'
                   where (select in_team($1))
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.team_id, $8->>'name', $8->'recognised_by', 'key.create', 'done', $8->>'request_id', $8->>'address',
                          jsonb_build_object('key', made.name, 'role', made.role, 'tokens', made.token_patterns,
                                             'expires_at', made.expires_at)
                   from made)
               select name, role, token_patterns, created_at, created_by, expires_at, last_used_at from made"#,
            team,
            key.name,
            key.role,
            &key.token_patterns,
            key.public_id,
            &key.sha256,
            key.expires_in.map(|seconds| seconds as f64),
            Json(actor) as _
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// The key of this name. `team` is nil for the platform's.
    ///
    /// # Errors
    /// Postgres.
    pub async fn api_key(&self, team: Uuid, name: &str) -> Result<Option<ApiKeyRow>> {
        Ok(sqlx::query_as!(
            ApiKeyRow,
            "select name, role, token_patterns, created_at, created_by, expires_at, last_used_at from api_keys
             where (select in_team($1)) and name = $2",
            team,
            name
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// A page of keys by name. `team` is nil for the platform's.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_api_keys(&self, team: Uuid, after: &str, limit: i64) -> Result<Vec<ApiKeyRow>> {
        Ok(sqlx::query_as!(
            ApiKeyRow,
            "select name, role, token_patterns, created_at, created_by, expires_at, last_used_at from api_keys
             where (select in_team($1)) and name > $2 order by name limit $3",
            team,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Deletes a key. `false`: there is none of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn delete_api_key(&self, team: Uuid, name: &str, actor: &Actor) -> Result<bool> {
        let deleted = sqlx::query_scalar!(
            r#"with gone as (
                   delete from api_keys where (select in_team($1)) and name = $2 returning id, team_id, name),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select gone.team_id, $3::jsonb->>'name', $3->'recognised_by', 'key.delete', 'done', $3->>'request_id', $3->>'address',
                          jsonb_build_object('key', gone.name)
                   from gone)
               select id from gone"#,
            team,
            name,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        self.assurance.changed_here();
        Ok(deleted.is_some())
    }

    /// The row that a presented key names.
    ///
    /// # Errors
    /// Postgres.
    pub async fn presented_key(&self, public_id: &str) -> Result<Option<PresentedKeyRow>> {
        Ok(sqlx::query_as!(
            PresentedKeyRow,
            r#"select id as "id!", team_id, team_name, name as "name!", role as "role!", token_patterns as "token_patterns!",
                      secret_sha256 as "sha256!", expires_at, expired as "expired!",
                      coalesce(last_used_at > now() - interval '1 minute', false) as "used_lately!", now() as "now!"
               from find_api_key($1)"#,
            public_id
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Records a use, at most once a minute. `team` is nil for a platform key.
    ///
    /// # Errors
    /// Postgres.
    pub async fn touch_api_key(&self, team: Uuid, id: Uuid) -> Result<()> {
        sqlx::query!(
            "update api_keys set last_used_at = now() where (select in_team($1)) and id = $2
             and (last_used_at is null or last_used_at < now() - interval '1 minute')",
            team,
            id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
