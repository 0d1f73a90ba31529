//! Registrations, written: reserved, completed, changed, forgotten.

use std::time::Duration;

use sqlx::types::Json;
use uuid::Uuid;

use super::{JobKind, Result, Store};
use crate::{actor::Actor, secret::Sealed};

/// A registration to be reserved.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Chosen by the broker: the identity token is sealed for it.
    pub id: Uuid,
    /// Unique in its team.
    pub name: String,
    /// For people.
    pub description: String,
    /// Which JFrog.
    pub instance: String,
    /// Asked of JFrog.
    pub scope: Option<String>,
    /// Asked of JFrog.
    pub audience: Option<String>,
    /// Asked of JFrog.
    pub project_key: Option<String>,
    /// Asked of JFrog, seconds.
    pub expires_in: Option<i64>,
    /// Asked of JFrog.
    pub include_reference_token: bool,
    /// Seconds.
    pub reuse_for: i32,
    /// Longest life of a child token, seconds.
    pub issue_max_expires_in: i32,
    /// What a child token may be given; `None`: what is asked of JFrog for the token itself.
    pub issue_scopes: Option<Vec<String>>,
    /// Row ids of chain a, and of b unless the token shall live on one.
    pub chains: Vec<Uuid>,
    /// Sealed; `None` for an import.
    pub identity_token: Option<Sealed>,
    /// Of the request.
    pub idempotency_key: Option<String>,
    /// Digest of the request.
    pub request_sha256: Option<[u8; 32]>,
}

/// What `PATCH` may change; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenChanges {
    /// For people.
    pub description: Option<String>,
    /// Seconds. Lowering it does not lower `rotatable_at`.
    pub reuse_for: Option<i32>,
    /// Asked of JFrog from the next rotation on.
    pub include_reference_token: Option<bool>,
    /// Seconds.
    pub issue_max_expires_in: Option<i32>,
    /// Empty: what is asked of JFrog for the token itself.
    pub issue_scopes: Option<Vec<String>>,
}

impl Store {
    /// Reserves the name, with chains that have no pair yet. If the process dies now, the job finds the row.
    ///
    /// # Errors
    /// `Taken` with `tokens_name_key` or `tokens_idempotency_key`, or Postgres.
    pub async fn reserve_token(&self, team: Uuid, token: &NewToken, resume_after: Duration, actor: &Actor) -> Result<()> {
        sqlx::query!(
            r#"with made as (
                   insert into tokens (id, team_id, name, description, instance, scope, audience, project_key, expires_in,
                                       include_reference_token, reuse_for, imported, chain_count, state, identity_token,
                                       identity_token_until, idempotency_key, request_sha256, created_by, issue_max_expires_in, issue_scopes)
                   select $2, $1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13::bytea is null, cardinality($12::uuid[]), 'creating', $13,
                          case when $13::bytea is not null then now() + interval '10 minutes' end, $14, $15, $16::jsonb->>'name', $18, $19
                   where (select in_team($1))
                   returning id, team_id, name),
               chained as (
                   insert into chains (id, token_id, team_id, letter, state)
                   select c.id, made.id, made.team_id, case c.place when 1 then 'a' else 'b' end, 'lost'
                   from made, unnest($12::uuid[]) with ordinality as c(id, place)),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'settle', made.id, now() + make_interval(secs => $17) from made)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, request_id, address)
               select made.team_id, $16->>'name', $16->'recognised_by', 'token.reserve', 'done', made.id, made.name,
                      $16->>'request_id', $16->>'address'
               from made"#,
            team,
            token.id,
            token.name,
            token.description,
            token.instance,
            token.scope,
            token.audience,
            token.project_key,
            token.expires_in,
            token.include_reference_token,
            token.reuse_for,
            &token.chains,
            token.identity_token.as_ref().map(Sealed::as_bytes),
            token.idempotency_key,
            token.request_sha256.as_ref().map(|digest| digest.as_slice()),
            Json(actor) as _,
            resume_after.as_secs_f64(),
            token.issue_max_expires_in,
            token.issue_scopes.as_deref()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The name registered under this `Idempotency-Key`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn token_by_idempotency_key(&self, team: Uuid, key: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar!("select name from tokens where (select in_team($1)) and idempotency_key = $2", team, key)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// The registration is complete: the identity token is destroyed. Harmless when it was complete already.
    ///
    /// # Errors
    /// Postgres.
    pub async fn complete_token(&self, team: Uuid, id: Uuid, action: &str, actor: &Actor) -> Result<()> {
        sqlx::query!(
            r#"with done as (
                   update tokens set state = 'registered', identity_token = null, identity_token_until = null
                   where (select in_team($1)) and id = $2 and (state = 'creating' or state = 'registered' and identity_token is not null)
                   returning id, team_id, name, generation),
               unscheduled as (
                   -- While a chain is missing, the job stays and sees to it.
                   delete from jobs using done where (select in_team($1)) and kind = 'settle' and subject = done.id
                   and not exists (select 1 from chains c where c.token_id = done.id and c.state <> 'active')),
               kept_alive as (
                   insert into jobs (kind, subject, due_at) select 'keep-alive', done.id, now() + interval '1 minute' from done
                   on conflict on constraint jobs_pkey do nothing)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, generation,
                                         request_id, address)
               select done.team_id, $3::jsonb->>'name', $3->'recognised_by', $4, 'done', done.id, done.name, done.generation,
                      $3->>'request_id', $3->>'address'
               from done"#,
            team,
            id,
            Json(actor) as _,
            action
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Changes settings. `false`: there is no such token.
    ///
    /// # Errors
    /// Postgres.
    pub async fn update_token(&self, team: Uuid, id: Uuid, changes: &TokenChanges, actor: &Actor) -> Result<bool> {
        let changed = sqlx::query_scalar!(
            r#"with changed as (
                   update tokens set description = coalesce($3, description), reuse_for = coalesce($4, reuse_for),
                                     include_reference_token = coalesce($5, include_reference_token),
                                     issue_max_expires_in = coalesce($7, issue_max_expires_in),
                                     issue_scopes = case when $8::text[] is null then issue_scopes else nullif($8, '{}') end
                   where (select in_team($1)) and id = $2
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, request_id,
                                             address, detail)
                   select changed.team_id, $6::jsonb->>'name', $6->'recognised_by', 'token.update', 'done', changed.id, changed.name,
                          $6->>'request_id', $6->>'address',
                          jsonb_build_object('description', changed.description, 'reuse_for', changed.reuse_for,
                                             'include_reference_token', changed.include_reference_token,
                                             'issue_max_expires_in', changed.issue_max_expires_in, 'issue_scopes', changed.issue_scopes)
                   from changed)
               select id from changed"#,
            team,
            id,
            changes.description,
            changes.reuse_for,
            changes.include_reference_token,
            Json(actor) as _,
            changes.issue_max_expires_in,
            changes.issue_scopes.as_deref()
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(changed.is_some())
    }

    /// A delete has begun: nothing is handed out any more.
    ///
    /// # Errors
    /// Postgres.
    pub async fn mark_revoked(&self, team: Uuid, id: Uuid) -> Result<()> {
        sqlx::query!("update tokens set state = 'revoked' where (select in_team($1)) and id = $2", team, id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets the registration and everything sealed in it. `reason`: why, where it was not a plain delete. `false`: another was
    /// faster; or, where it is given up (any action but `token.delete`), it was completed or goes on: then nothing is forgotten.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_token(&self, team: Uuid, id: Uuid, action: &str, reason: Option<&str>, actor: &Actor) -> Result<bool> {
        let done = sqlx::query!(
            r#"with gone as (
                   delete from tokens t where (select in_team($1)) and t.id = $2
                     and ($4 = 'token.delete' or t.state = 'creating' and not exists (select 1 from attempts a where a.token_id = t.id))
                   returning t.id, t.team_id, t.name, t.generation),
               unscheduled as (delete from jobs using gone where subject = gone.id)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation,
                                         request_id, address)
               select gone.team_id, $3::jsonb->>'name', $3->'recognised_by', $4,
                      case when $4 = 'token.delete' then 'done' else 'failed' end, $5, gone.id, gone.name, gone.generation,
                      $3->>'request_id', $3->>'address'
               from gone"#,
            team,
            id,
            Json(actor) as _,
            action,
            reason
        )
        .execute(&self.pool)
        .await?;
        // Whoever waits for the token finds it gone.
        self.notify(id).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Wakes who waits for the token on other replicas.
    ///
    /// # Errors
    /// Postgres.
    pub async fn notify(&self, token: Uuid) -> Result<()> {
        sqlx::query!("select pg_notify('token_broker', $1)", token.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Makes the settle job due now.
    ///
    /// # Errors
    /// Postgres.
    pub async fn settle_now(&self, token: Uuid) -> Result<()> {
        self.schedule(JobKind::Settle, token, Duration::ZERO).await
    }
}
