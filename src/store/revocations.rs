//! Child tokens that are given up, until JFrog was told.

use std::time::Duration;

use sqlx::types::Json;
use uuid::Uuid;

use super::{ChildRow, ChildState, Result, Store};
use crate::actor::Actor;

/// Which child tokens are given up: those that are all of it.
#[derive(Clone, Debug, Default)]
pub struct GivenUp {
    /// Of this token; `None`: of the whole team.
    pub token_id: Option<Uuid>,
    /// Issued to this credential.
    pub credential: Option<String>,
    /// JFrog's id.
    pub jfrog_token_id: Option<String>,
    /// Of a token that is locked down.
    pub locked_down: bool,
}

/// What JFrog said to a revocation.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of which child token.
    pub id: Uuid,
    /// Where it stands now.
    pub state: ChildState,
    /// Why JFrog did not revoke it.
    pub error: Option<String>,
}

impl Store {
    /// Gives up child tokens: JFrog is told in the background. How many.
    ///
    /// # Errors
    /// Postgres.
    pub async fn give_up_children(&self, team: Uuid, which: &GivenUp, actor: &Actor) -> Result<i64> {
        let count = sqlx::query_scalar!(
            r#"with given_up as (
                   update children set state = 'revoking'
                   where (select in_team($1)) and team_id = $1 and state in ('issuing', 'live') and expires_at > now()
                         and ($2::uuid is null or token_id = $2) and ($3::text is null or credential = $3)
                         and ($4::text is null or jfrog_token_id = $4) and (not $5 or locked_down(team_id, token_id))
                   returning token_id, jfrog_token_id),
               counted as (
                   select token_id, count(*) as children, case when count(*) = 1 then min(jfrog_token_id) end as only_one
                   from given_up group by token_id),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'revoke', counted.token_id, now() from counted
                   on conflict on constraint jobs_pkey do update set due_at = now(), failures = 0),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id,
                                             request_id, address, detail)
                   select $1, $6::jsonb->>'name', $6->'recognised_by', 'token.give_up_children', 'done', counted.token_id,
                          (select t.name from tokens t where (select in_team($1)) and t.id = counted.token_id), counted.only_one,
                          $6->>'request_id', $6->>'address', jsonb_build_object('children', counted.children)
                   from counted)
               select coalesce(sum(children), 0)::bigint as "count!" from counted"#,
            team,
            which.token_id,
            which.credential,
            which.jfrog_token_id,
            which.locked_down,
            Json(actor) as _
        );
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// Child tokens that JFrog is to be told of: given up, or with an answer that was lost more than a lease ago.
    ///
    /// # Errors
    /// Postgres.
    pub async fn children_to_revoke(&self, team: Uuid, token: Uuid, lease: Duration, limit: i64) -> Result<Vec<ChildRow>> {
        Ok(sqlx::query_as!(
            ChildRow,
            r#"select id, state as "state: ChildState", jfrog_token_id, fingerprint, scope, issued_at, expires_at, actor, recognised_by,
                      request_id, credential, last_error
               from children
               where (select in_team($1)) and token_id = $2 and state in ('issuing', 'revoking') and expires_at > now()
                     and (jfrog_token_id is not null or issued_at < now() - make_interval(secs => $3))
               -- What was tried in vain comes last: one that JFrog does not take must not keep it from the others.
               order by last_error is not null, id limit $4"#,
            team,
            token,
            lease.as_secs_f64(),
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Whether there are any whose end is still open.
    ///
    /// # Errors
    /// Postgres.
    pub async fn children_are_open(&self, team: Uuid, token: Uuid) -> Result<bool> {
        let open = sqlx::query_scalar!(
            r#"select exists (select 1 from children where (select in_team($1)) and token_id = $2 and state in ('issuing', 'revoking')
                                                           and expires_at > now()) as "open!""#,
            team,
            token
        );
        Ok(open.fetch_one(&self.pool).await?)
    }

    /// Takes down what JFrog said; each one that has ended is audited.
    ///
    /// # Errors
    /// Postgres: then JFrog is told once more.
    pub async fn children_told(&self, team: Uuid, told: &[Told], actor: &Actor) -> Result<()> {
        let ids: Vec<Uuid> = told.iter().map(|told| told.id).collect();
        let states: Vec<String> = told.iter().map(|told| told.state.as_str().to_owned()).collect();
        let errors: Vec<Option<String>> = told.iter().map(|told| told.error.clone()).collect();
        sqlx::query!(
            r#"with told as (
                   update children c set state = r.state, last_error = r.error
                   from unnest($2::uuid[], $3::text[], $4::text[]) as r(id, state, error)
                   where (select in_team($1)) and c.id = r.id
                   returning c.*)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id, fingerprint,
                                         request_id, address, detail)
               select told.team_id, $5::jsonb->>'name', $5->'recognised_by', 'token.revoke_child',
                      case told.state when 'revoked' then 'done' else 'failed' end, told.token_id,
                      (select t.name from tokens t where (select in_team($1)) and t.id = told.token_id), told.jfrog_token_id,
                      told.fingerprint, $5->>'request_id', $5->>'address',
                      jsonb_build_object('state', told.state)
               from told where told.state in ('revoked', 'not-revocable')"#,
            team,
            &ids,
            &states,
            &errors as &[Option<String>],
            Json(actor) as _
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Child tokens that may work still, the newest first: of one token, or of the whole team.
    ///
    /// # Errors
    /// Postgres.
    pub async fn live_children(&self, team: Uuid, token: Option<Uuid>, limit: i64) -> Result<Vec<ChildRow>> {
        Ok(sqlx::query_as!(
            ChildRow,
            r#"select id, state as "state: ChildState", jfrog_token_id, fingerprint, scope, issued_at, expires_at, actor, recognised_by,
                      request_id, credential, last_error
               from children
               where (select in_team($1)) and team_id = $1 and ($2::uuid is null or token_id = $2)
                     and state in ('issuing', 'live', 'revoking') and expires_at > now()
               order by id desc limit $3"#,
            team,
            token,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// How many these are.
    ///
    /// # Errors
    /// Postgres.
    pub async fn count_live_children(&self, team: Uuid, token: Option<Uuid>) -> Result<i64> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from children
               where (select in_team($1)) and team_id = $1 and ($2::uuid is null or token_id = $2)
                     and state in ('issuing', 'live', 'revoking') and expires_at > now()"#,
            team,
            token
        );
        Ok(count.fetch_one(&self.pool).await?)
    }
}
