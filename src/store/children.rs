//! Child tokens: begun before JFrog hears of them, recorded without their values, ended when JFrog was told.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// Where a child token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum ChildState {
    /// JFrog's answer is not here yet, or was lost.
    Issuing,
    /// A job has it.
    Live,
    /// JFrog is being told.
    Revoking,
    /// It does not work any more.
    Revoked,
    /// JFrog does not revoke it: it works until it expires.
    NotRevocable,
}

impl ChildState {
    /// As in answers and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Live => "live",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::NotRevocable => "not-revocable",
        }
    }
}

/// A child token as it is kept.
#[derive(Clone, Debug)]
pub struct ChildRow {
    /// In its marker at JFrog.
    pub id: Uuid,
    /// Where it stands.
    pub state: ChildState,
    /// JFrog's id.
    pub jfrog_token_id: Option<String>,
    /// Of the access token.
    pub fingerprint: Option<String>,
    /// What JFrog granted.
    pub scope: Option<String>,
    /// When it was asked for.
    pub issued_at: OffsetDateTime,
    /// At the latest.
    pub expires_at: OffsetDateTime,
    /// Who asked.
    pub actor: String,
    /// How that was recognised.
    pub recognised_by: serde_json::Value,
    /// Of the answer that held it.
    pub request_id: Option<String>,
    /// Which credential it was issued to.
    pub credential: String,
    /// Why JFrog did not revoke it yet.
    pub last_error: Option<String>,
}

/// A child token that JFrog is about to be asked for.
#[derive(Clone, Debug)]
pub struct NewChild {
    /// In its marker at JFrog.
    pub id: Uuid,
    /// The registration.
    pub token_id: Uuid,
    /// The chain whose access token is the bearer.
    pub chain_id: Uuid,
    /// Its generation.
    pub generation: i64,
    /// Which credential it is issued to.
    pub credential: String,
    /// Seconds that are asked for.
    pub expires_in: i64,
    /// When a lost answer may be looked for.
    pub lease: Duration,
}

/// What JFrog gave.
#[derive(Clone, Debug)]
pub struct IssuedChild {
    /// JFrog's id.
    pub jfrog_token_id: String,
    /// Of the access token.
    pub fingerprint: String,
    /// What JFrog granted.
    pub scope: Option<String>,
    /// Seconds.
    pub expires_in: i64,
}

/// What became of a child token that nobody was handed.
#[derive(Clone, Debug)]
pub enum NotIssued {
    /// JFrog made none.
    NotMade,
    /// Nobody knows: it is looked for once the lease is over.
    Unknown,
    /// JFrog made it, under this id: it is revoked.
    Unwanted(Option<String>),
}

impl Store {
    /// Writes down that a child token is asked for. `None`: the chain has moved on, or the token with it; `true`: it is locked down, and
    /// nothing was written.
    ///
    /// # Errors
    /// Postgres: then JFrog must not be asked.
    pub async fn begin_child(&self, team: Uuid, new: &NewChild, actor: &Actor) -> Result<Option<bool>> {
        Ok(sqlx::query_scalar!(
            r#"with asked as (
                   select t.id, t.team_id, locked_down(t.team_id, t.id) as locked_down
                   from tokens t join chains c on c.token_id = t.id
                   where (select in_team($1)) and t.id = $2 and t.state = 'registered'
                         and c.id = $3 and c.generation = $4 and c.state = 'active'),
               made as (
                   insert into children (id, team_id, token_id, state, expires_at, actor, recognised_by, request_id, credential)
                   select $5, asked.team_id, asked.id, 'issuing', now() + make_interval(secs => $6::double precision + $7::double precision), $8::jsonb->>'name',
                          $8->'recognised_by', $8->>'request_id', $9
                   from asked where not asked.locked_down
                   returning token_id),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'revoke', made.token_id, now() + make_interval(secs => $7) from made
                   on conflict on constraint jobs_pkey do nothing)
               select locked_down as "locked_down!" from asked"#,
            team,
            new.token_id,
            new.chain_id,
            new.generation,
            new.id,
            new.expires_in as f64,
            new.lease.as_secs_f64(),
            Json(actor) as _,
            new.credential
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// JFrog's answer is here: recorded and audited, before anybody is handed it. `None`: it was given up meanwhile, or the token was
    /// locked down. When it expires, and Postgres' clock.
    ///
    /// # Errors
    /// Postgres: then nothing may be handed out.
    pub async fn child_issued(
        &self,
        team: Uuid,
        id: Uuid,
        issued: &IssuedChild,
        actor: &Actor,
    ) -> Result<Option<(OffsetDateTime, OffsetDateTime)>> {
        let row = sqlx::query!(
            r#"with issued as (
                   update children c set state = 'live', jfrog_token_id = $3, fingerprint = $4, scope = $5,
                                         expires_at = c.issued_at + make_interval(secs => $6)
                   where (select in_team($1)) and c.id = $2 and c.state = 'issuing' and not locked_down(c.team_id, c.token_id)
                   returning c.*),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id,
                                             fingerprint, request_id, address, detail)
                   select i.team_id, $7::jsonb->>'name', $7->'recognised_by', 'token.issue', 'done', i.token_id,
                          (select t.name from tokens t where (select in_team($1)) and t.id = i.token_id), i.jfrog_token_id, i.fingerprint,
                          $7->>'request_id', $7->>'address', jsonb_build_object('scope', i.scope, 'expires_at', i.expires_at)
                   from issued i)
               select expires_at, now() as "now!" from issued"#,
            team,
            id,
            issued.jfrog_token_id,
            issued.fingerprint,
            issued.scope,
            issued.expires_in as f64,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| (row.expires_at, row.now)))
    }

    /// Nobody is handed the child token.
    ///
    /// # Errors
    /// Postgres: then it is looked for once the lease is over.
    pub async fn child_not_issued(&self, team: Uuid, id: Uuid, what: &NotIssued, reason: &str, actor: &Actor) -> Result<()> {
        let (word, jfrog_token_id) = match what {
            NotIssued::NotMade => ("not-made", None),
            NotIssued::Unknown => ("unknown", None),
            NotIssued::Unwanted(jfrog_token_id) => ("unwanted", jfrog_token_id.as_deref()),
        };
        sqlx::query!(
            r#"with gone as (
                   delete from children where (select in_team($1)) and id = $2 and $3 = 'not-made' returning token_id),
               unwanted as (
                   update children set state = 'revoking', jfrog_token_id = $4
                   where (select in_team($1)) and id = $2 and $3 = 'unwanted' returning token_id),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'revoke', unwanted.token_id, now() from unwanted
                   on conflict on constraint jobs_pkey do update set due_at = now(), failures = 0)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, jfrog_token_id,
                                         request_id, address, detail)
               select c.team_id, $6::jsonb->>'name', $6->'recognised_by', 'token.issue', 'failed', $5, c.token_id,
                      (select t.name from tokens t where (select in_team($1)) and t.id = c.token_id), $4, $6->>'request_id', $6->>'address',
                      jsonb_build_object('child', $3::text)
               from children c where (select in_team($1)) and c.id = $2"#,
            team,
            id,
            word,
            jfrog_token_id,
            reason,
            Json(actor) as _
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A page of a token's child tokens, the newest first, of those issued to one credential where that is given, older than `before`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_children(
        &self,
        team: Uuid,
        token: Uuid,
        credential: Option<&str>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ChildRow>> {
        Ok(sqlx::query_as!(
            ChildRow,
            r#"select id, state as "state: ChildState", jfrog_token_id, fingerprint, scope, issued_at, expires_at, actor, recognised_by,
                      request_id, credential, last_error
               from children
               where (select in_team($1)) and token_id = $2 and ($3::text is null or credential = $3) and ($4::uuid is null or id < $4)
               order by id desc limit $5"#,
            team,
            token,
            credential,
            before,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// One child token, by JFrog's id.
    ///
    /// # Errors
    /// Postgres.
    pub async fn child(&self, team: Uuid, token: Uuid, jfrog_token_id: &str) -> Result<Option<ChildRow>> {
        Ok(sqlx::query_as!(
            ChildRow,
            r#"select id, state as "state: ChildState", jfrog_token_id, fingerprint, scope, issued_at, expires_at, actor, recognised_by,
                      request_id, credential, last_error
               from children where (select in_team($1)) and token_id = $2 and jfrog_token_id = $3"#,
            team,
            token,
            jfrog_token_id
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Forgets what expired more than a day ago.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_expired_children(&self, team: Uuid, token: Uuid) -> Result<()> {
        sqlx::query!(
            "delete from children where (select in_team($1)) and token_id = $2 and expires_at < now() - interval '1 day'",
            team,
            token
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
