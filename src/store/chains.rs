//! Chains that are given up without an attempt of their own.

use sqlx::types::Json;
use uuid::Uuid;

use super::{ChainRow, ChainState, Result, Store};
use crate::actor::Actor;

impl Store {
    /// The chain's pair does not work at JFrog: it is not handed out again, and settled at once.
    ///
    /// # Errors
    /// Postgres.
    pub async fn give_up_chain(&self, team: Uuid, chain: &ChainRow, state: ChainState, actor: &Actor) -> Result<()> {
        sqlx::query_scalar!(
            r#"with moved as (
                   update chains c set state = $4
                   where (select in_team($1)) and c.id = $2 and c.generation = $3 and c.state = 'active'
                   returning c.token_id, c.letter, c.jfrog_token_id, c.fingerprint),
               named as (
                   update tokens t set last_error_at = now(), last_error_kind = 'access-token-dead',
                          last_error_detail = 'JFrog does not know the access token of chain ' || moved.letter || ' any more'
                   from moved where (select in_team($1)) and t.id = moved.token_id
                   returning t.id, t.team_id, t.name, t.generation),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'settle', named.id, now() from named
                   on conflict on constraint jobs_pkey do nothing),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name,
                                             jfrog_token_id, fingerprint, generation, request_id, address)
                   select named.team_id, $5::jsonb->>'name', $5->'recognised_by', 'chain.reject', 'done', 'access-token-dead', named.id,
                          named.name, moved.jfrog_token_id, moved.fingerprint, named.generation, $5->>'request_id', $5->>'address'
                   from named, moved)
               select pg_notify('token_broker', named.id::text)::text from named"#,
            team,
            chain.id,
            chain.generation,
            state as ChainState,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }

    /// No chain works and none can be made: from now on a person is needed.
    ///
    /// # Errors
    /// Postgres.
    pub async fn declare_lost(&self, team: Uuid, token: Uuid, detail: &str) -> Result<()> {
        sqlx::query_scalar!(
            r#"with held as (
                   select t.id, t.team_id, t.name, t.generation from tokens t
                   where (select in_team($1)) and t.id = $2
                     and not exists (select 1 from chains c where c.token_id = t.id and c.state = 'active')
                     and not exists (select 1 from attempts a where a.token_id = t.id)
                   for no key update),
               moved as (
                   update chains c set state = 'lost' from held where (select in_team($1)) and c.token_id = held.id),
               named as (
                   update tokens t set last_error_at = now(), last_error_kind = 'lost', last_error_detail = $3
                   from held where (select in_team($1)) and t.id = held.id),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation)
                   select held.team_id, 'system', '{}', 'token.lost', 'failed', $3, held.id, held.name, held.generation from held)
               select pg_notify('token_broker', held.id::text)::text from held"#,
            team,
            token,
            detail
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }
}
