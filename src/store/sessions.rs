//! Sessions of CI identities.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// A session to be kept.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The part that finds the row.
    pub public_id: String,
    /// SHA-256 of the whole credential.
    pub sha256: [u8; 32],
    /// The rules it comes from.
    pub rules: Vec<Uuid>,
    /// Seconds from now.
    pub expires_in: i32,
}

/// What a rule gives a session.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct GrantRow {
    /// Its role.
    pub role: String,
    /// Which tokens.
    pub tokens: Vec<String>,
}

/// What is known of a presented session credential before it is verified.
#[derive(Clone, Debug)]
pub struct PresentedSessionRow {
    /// Row id.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Its team's name.
    pub team_name: String,
    /// What the presented credential must hash to.
    pub sha256: Vec<u8>,
    /// The identity that began it.
    pub actor: String,
    /// How that was recognised.
    pub recognised_by: serde_json::Value,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// By Postgres' clock, or because a rule it came from is gone or was changed.
    pub expired: bool,
    /// What its rules give.
    pub grants: Option<Json<Vec<GrantRow>>>,
    /// Postgres' clock.
    pub now: OffsetDateTime,
}

impl Store {
    /// Keeps a session, and forgets those of the team that have ended. `None`: one of its rules is gone, or was changed.
    ///
    /// # Errors
    /// Postgres.
    pub async fn create_session(&self, team: Uuid, session: &NewSession, actor: &Actor) -> Result<Option<OffsetDateTime>> {
        Ok(sqlx::query_scalar!(
            r#"with ended as (
                   delete from sessions where (select in_team($1)) and expires_at < now()),
               made as (
                   insert into sessions (id, team_id, public_id, secret_sha256, actor, recognised_by, rule_ids, expires_at)
                   select gen_random_uuid(), $1, $2, $3, $6::jsonb->>'name', $6->'recognised_by', $4, now() + make_interval(secs => $5)
                   where (select in_team($1)) and (select count(*) from trust_rules where (select in_team($1)) and id = any ($4)) = cardinality($4)
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.team_id, $6->>'name', $6->'recognised_by', 'session.begin', 'done', $6->>'request_id', $6->>'address',
                          jsonb_build_object('session', made.public_id, 'expires_at', made.expires_at)
                   from made)
               select expires_at from made"#,
            team,
            session.public_id,
            &session.sha256,
            &session.rules,
            f64::from(session.expires_in),
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The row that a presented session credential names.
    ///
    /// # Errors
    /// Postgres.
    pub async fn presented_session(&self, public_id: &str) -> Result<Option<PresentedSessionRow>> {
        Ok(sqlx::query_as!(
            PresentedSessionRow,
            r#"select id as "id!", team_id as "team_id!", team_name as "team_name!", secret_sha256 as "sha256!", actor as "actor!",
                      recognised_by as "recognised_by!", expires_at as "expires_at!", expired as "expired!",
                      grants as "grants: Json<Vec<GrantRow>>", now() as "now!"
               from find_session($1)"#,
            public_id
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Ends a session. `false`: it has ended.
    ///
    /// # Errors
    /// Postgres.
    pub async fn delete_session(&self, team: Uuid, public_id: &str, actor: &Actor) -> Result<bool> {
        let ended = sqlx::query_scalar!(
            r#"with gone as (
                   delete from sessions where (select in_team($1)) and public_id = $2 returning id, team_id, public_id),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select gone.team_id, $3::jsonb->>'name', $3->'recognised_by', 'session.end', 'done', $3->>'request_id',
                          $3->>'address', jsonb_build_object('session', gone.public_id)
                   from gone)
               select id from gone"#,
            team,
            public_id,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        self.assurance.changed_here();
        Ok(ended.is_some())
    }
}
