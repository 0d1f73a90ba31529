//! How attempts end that brought no pair: their owner ends them, or recovery does when their lease is over.

use std::time::Duration;

use sqlx::types::Json;
use uuid::Uuid;

use super::{Attempt, ChainState, Result, Store};
use crate::actor::Actor;

/// How an attempt ends that brought no pair.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The chain's state from now on; `None`: as it was.
    pub chain_state: Option<ChainState>,
    /// A word for programs, and a sentence for admins.
    pub error: Option<(&'static str, String)>,
    /// Whether the lease is left to run out, because the request may still be running at JFrog.
    pub keep_lease: bool,
    /// Making the missing chain is not tried again for so long.
    pub no_heal_for: Option<Duration>,
}

impl Store {
    /// Ends an attempt that brought no pair. A late owner, whose attempt was ended by recovery, ends nothing.
    ///
    /// # Errors
    /// Postgres: the lease runs out instead, and the outcome counts as unknown.
    pub async fn end_attempt(&self, attempt: Attempt, ending: &Ending, actor: &Actor) -> Result<()> {
        let (kind, detail) = ending.error.clone().unzip();
        sqlx::query_scalar!(
            r#"with held as (select t.id from tokens t where (select in_team($1)) and t.id = $2 for no key update),
               mine as (
                   select a.token_id, a.chain_id, a.spent_generation from attempts a, held
                   where (select in_team($1)) and a.token_id = held.id and a.id = $3),
               ended as (delete from attempts a using mine where (select in_team($1)) and a.token_id = mine.token_id and a.id = $3 and not $5),
               unscheduled as (
                   -- A chain that is missing keeps its job, due at once.
                   update jobs j set due_at = case when $4::text is null then j.due_at else now() end
                   from mine where j.kind = 'settle' and j.subject = mine.token_id and not $5),
               moved as (
                   -- What a settling definitely did not spend may be sent again; the end of another attempt says nothing of it.
                   update chains c set state = coalesce($4, c.state), resent = c.resent and ($5 or $10 <> 'settle') from mine
                   where (select in_team($1)) and c.id = mine.chain_id and c.generation = mine.spent_generation),
               named as (
                   update tokens t set
                          last_error_at = case when $6::text is null then t.last_error_at else now() end,
                          last_error_kind = coalesce($6, t.last_error_kind), last_error_detail = coalesce($7, t.last_error_detail),
                          heal_after = coalesce(now() + make_interval(secs => $8), t.heal_after),
                          rejected_since = case when $6 = 'jfrog-unauthenticated' then coalesce(t.rejected_since, now()) else t.rejected_since end,
                          rejections = t.rejections + ($6 is not distinct from 'jfrog-unauthenticated')::int
                   from mine where (select in_team($1)) and t.id = mine.token_id
                   returning t.id, t.team_id, t.name, t.generation),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation,
                                             request_id, address, detail)
                   select named.team_id, $9::jsonb->>'name', $9->'recognised_by', 'chain.' || $10::text, 'failed', $6, named.id, named.name,
                          named.generation, $9->>'request_id', $9->>'address', jsonb_build_object('detail', $7::text)
                   from named where $6 is not null)
               select pg_notify('token_broker', named.id::text)::text from named"#,
            attempt.team_id,
            attempt.token_id,
            attempt.id,
            ending.chain_state as Option<ChainState>,
            ending.keep_lease,
            kind,
            detail,
            ending.no_heal_for.map(|wait| wait.as_secs_f64()),
            Json(actor) as _,
            attempt.kind
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends an attempt whose lease is over: its owner died or stalled. A rotation found in the dark leaves its chain uncertain.
    /// Returns what kind of attempt it was; `None`: there is none whose lease is over.
    ///
    /// # Errors
    /// Postgres.
    pub async fn recover_attempt(&self, team: Uuid, token: Uuid, sweep_after: Duration) -> Result<Option<String>> {
        Ok(sqlx::query_scalar!(
            r#"with held as (select t.id from tokens t where (select in_team($1)) and t.id = $2 for no key update),
               dead as (
                   delete from attempts a using held
                   where (select in_team($1)) and a.token_id = held.id and a.lease_until <= now()
                   returning a.token_id, a.team_id, a.chain_id, a.kind, a.spent_generation, a.actor),
               swept as (
                   -- What it may have left at JFrog is looked for once nobody can commit it any more.
                   insert into jobs (kind, subject, due_at) select 'sweep', dead.token_id, now() + make_interval(secs => $3) from dead
                   on conflict on constraint jobs_pkey do update set due_at = greatest(jobs.due_at, excluded.due_at)),
               moved as (
                   update chains c set state = 'uncertain' from dead
                   where (select in_team($1)) and c.id = dead.chain_id and dead.kind = 'rotate' and c.generation = dead.spent_generation
                     and c.state = 'active'),
               named as (
                   update tokens t set last_error_at = now(), last_error_kind = 'outcome-unknown',
                          last_error_detail = 'a ' || dead.kind || ' was begun and its outcome is not known'
                   from dead where (select in_team($1)) and t.id = dead.token_id
                   returning t.id, t.team_id, t.name, t.generation),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation,
                                             detail)
                   select named.team_id, 'system', '{}', 'attempt.recover', 'done', 'outcome-unknown', named.id, named.name,
                          named.generation, jsonb_build_object('attempt', dead.kind, 'begun_for', dead.actor)
                   from named, dead)
               select kind from dead"#,
            team,
            token,
            sweep_after.as_secs_f64()
        )
        .fetch_optional(&self.pool)
        .await?)
    }
}
