//! Attempts: the intent that is on disk before JFrog hears of it, and all the ways it ends.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ChainState, Result, Store};
use crate::{actor::Actor, names::Asked, secret::Sealed};

/// An attempt to be begun.
#[derive(Clone, Debug)]
pub struct NewAttempt {
    /// Names the journal entry too.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Which registration.
    pub token_id: Uuid,
    /// Which chain.
    pub chain_id: Uuid,
    /// `create`, `rotate`, `heal`, `settle`, `recreate`, `delete` or `sweep`.
    pub kind: &'static str,
    /// The chain's generation as it was seen.
    pub seen_generation: i64,
    /// Whether `rotatable_at` must have passed.
    pub respect_rotatable_at: bool,
    /// How long nobody else may touch the token.
    pub lease: Duration,
    /// Which process.
    pub replica: Uuid,
    /// What is asked of JFrog differently from now on.
    pub asked: Asked,
    /// The master key that its journal entry needs; `None`: it has no entry.
    pub master_key: Option<String>,
}

/// An attempt that was begun, and is not ended yet. Ending takes it by value.
#[derive(Debug)]
pub struct Attempt {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Which registration.
    pub token_id: Uuid,
    /// Which chain.
    pub chain_id: Uuid,
    /// What it does.
    pub kind: String,
    /// The chain's generation it was spent from.
    pub spent_generation: i64,
    /// By Postgres' clock.
    pub begun_at: OffsetDateTime,
    /// What is asked of JFrog differently from now on.
    pub asked: Asked,
}

/// A pair, sealed for the chain's next generation.
#[derive(Clone, Debug)]
pub struct NewPair {
    /// Sealed.
    pub access_token: Sealed,
    /// Sealed.
    pub refresh_token: Sealed,
    /// Sealed.
    pub reference_token: Option<Sealed>,
    /// JFrog's id.
    pub jfrog_token_id: Option<String>,
    /// Of the access token.
    pub fingerprint: String,
    /// Granted scope.
    pub scope: Option<String>,
    /// JFrog's `sub`.
    pub subject: Option<String>,
    /// Lifetime in seconds; `None`: never expires.
    pub expires_in: Option<i64>,
}

/// What committing a pair came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Postgres has it, now or already.
    Yes,
    /// The chain has moved on: another pair was committed onto the generation this one was spent from.
    Superseded,
    /// The registration is gone.
    Gone,
}

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
    /// Begins an attempt, if no other is there, the chain is at the generation seen, rotation is due, and the master key was not
    /// retired. `None`: one of these is not so.
    ///
    /// # Errors
    /// Postgres: then nothing may be spent.
    pub async fn begin_attempt(&self, new: &NewAttempt, actor: &Actor) -> Result<Option<Attempt>> {
        // The lock makes a stale snapshot look again: an attempt that ended while we waited has moved the generation on.
        let row = sqlx::query!(
            r#"with locked as (
                   select t.id, t.team_id, c.id as chain_id, c.generation
                   from tokens t join chains c on c.token_id = t.id
                   where (select in_team($1)) and t.id = $2 and c.id = $3 and c.generation = $4
                     and (t.rotatable_at <= now() or not $5)
                     and (t.state <> 'revoked' or $7 in ('delete', 'sweep'))
                     -- An uncertain chain's refresh token may be spent: only settling sends it again.
                     and (c.state = 'active' or $7 <> 'rotate')
                     and (c.state = 'uncertain' and not c.resent or $7 <> 'settle')
                     -- A replica that was asleep must not need a key that is about to be destroyed.
                     and ($11::text is null or exists (select from master_keys m where m.id = $11 and m.retired_at is null))
                   for no key update of t, c),
               begun as (
                   insert into attempts (token_id, id, team_id, chain_id, kind, spent_generation, lease_until, replica, actor)
                   select locked.id, $6, locked.team_id, locked.chain_id, $7, locked.generation,
                          now() + make_interval(secs => $8), $9, $10
                   from locked
                   on conflict on constraint attempts_pkey do nothing
                   returning token_id, chain_id, begun_at, lease_until),
               resent as (
                   update chains c set resent = true from begun
                   where (select in_team($1)) and c.id = begun.chain_id and $7 = 'settle'),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'settle', begun.token_id, begun.lease_until from begun
                   on conflict on constraint jobs_pkey do update set due_at = excluded.due_at, failures = 0)
               select begun_at from begun"#,
            new.team_id,
            new.token_id,
            new.chain_id,
            new.seen_generation,
            new.respect_rotatable_at,
            new.id,
            new.kind,
            new.lease.as_secs_f64(),
            new.replica,
            actor.name,
            new.master_key
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Attempt {
            id: new.id,
            team_id: new.team_id,
            token_id: new.token_id,
            chain_id: new.chain_id,
            kind: new.kind.to_owned(),
            spent_generation: new.seen_generation,
            begun_at: row.begun_at,
            asked: new.asked.clone(),
        }))
    }

    /// Commits a pair onto the generation it was spent from, whoever holds the attempt now, and ends the attempt. Takes it by
    /// reference: it is tried again until Postgres has it.
    ///
    /// # Errors
    /// Postgres: the outcome is unknown; commit again.
    pub async fn commit_pair(&self, attempt: &Attempt, pair: &NewPair, actor: &Actor) -> Result<Committed> {
        let done = sqlx::query_scalar!(
            r#"with held as (
                   -- Every statement that changes an attempt takes the token's row first: no two can wait for each other.
                   select t.id, t.reuse_for, $12 in ('heal', 'recreate') as anew, t.subject is distinct from coalesce($13, t.subject) as moves
                   from tokens t where (select in_team($1)) and t.id = $16 for no key update),
               moved as (
                   update chains set
                          -- A new chain in place of an old one, which may still be in use. Where an earlier one is remembered still, that
                          -- one may bear no marker or be another user's: this one, of the same user as the new, is found by its marker.
                          replaced_access_token = case when held.anew and (held.moves or chains.replaced_jfrog_token_id is null)
                                                       then chains.access_token else chains.replaced_access_token end,
                          replaced_generation = case when held.anew and (held.moves or chains.replaced_jfrog_token_id is null)
                                                     then chains.generation else chains.replaced_generation end,
                          replaced_jfrog_token_id = case when held.anew and (held.moves or chains.replaced_jfrog_token_id is null)
                                                         then chains.jfrog_token_id else chains.replaced_jfrog_token_id end,
                          sweep_after = case when held.anew then greatest(chains.sweep_after, clock_timestamp()
                                             + make_interval(secs => protected_for(held.reuse_for, chains.refreshed_at, chains.expires_at)))
                                        else chains.sweep_after end,
                          state = 'active', resent = false, generation = chains.generation + 1, access_token = $4, refresh_token = $5,
                          reference_token = $6, jfrog_token_id = $7, fingerprint = $8, scope = coalesce($9, chains.scope),
                          refreshed_at = $10::timestamptz, expires_at = $10::timestamptz + make_interval(secs => $11)
                   from held
                   where (select in_team($1)) and chains.token_id = held.id and chains.id = $2 and generation = $3
                   returning chains.*),
               named as (
                   update tokens t set
                          -- A registration's first pairs are one generation; each later pair is the next.
                          generation = case when $12 = 'create' then greatest(t.generation, 1) else t.generation + 1 end,
                          rotatable_at = greatest(t.rotatable_at, clock_timestamp() + make_interval(secs =>
                              protected_for(t.reuse_for, moved.refreshed_at, moved.expires_at))),
                          subject = coalesce($13, t.subject), scope = coalesce($17, t.scope), audience = coalesce($18, t.audience),
                          expires_in = coalesce($19, t.expires_in), heal_after = 'epoch', rejected_since = null, rejections = 0,
                          last_error_at = null, last_error_kind = null, last_error_detail = null
                   from moved where (select in_team($1)) and t.id = moved.token_id
                   returning t.id, t.team_id, t.name, t.generation, t.state),
               ended as (delete from attempts a using moved where (select in_team($1)) and a.token_id = moved.token_id and a.id = $14),
               put_aside as (
                   -- A recreate begins anew from this chain: the other is made from it.
                   update chains c set state = 'lost' from moved
                   where (select in_team($1)) and $12 = 'recreate' and c.token_id = moved.token_id and c.id <> moved.id),
               remaining as (
                   -- Whether something is left to see to: a chain that is missing, a registration that is not complete, another attempt.
                   select named.id, named.state = 'creating'
                          or exists (select 1 from chains c, moved where c.token_id = named.id and c.id <> moved.id
                                     and (c.state <> 'active' or $12 = 'recreate'))
                          or exists (select 1 from attempts o where o.token_id = named.id and o.id <> $14) as any
                   from named where (select in_team($1))),
               unscheduled as (
                   delete from jobs j using remaining where j.kind = 'settle' and j.subject = remaining.id and not remaining.any),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'settle', remaining.id, now() + interval '1 minute'
                   from remaining where remaining.any
                   on conflict on constraint jobs_pkey do nothing),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id,
                                             fingerprint, generation, request_id, address, detail)
                   select named.team_id, $15::jsonb->>'name', $15->'recognised_by', 'chain.' || $12::text, 'done', named.id, named.name,
                          moved.jfrog_token_id, moved.fingerprint, named.generation, $15->>'request_id', $15->>'address',
                          jsonb_build_object('chain', moved.letter, 'chain_generation', moved.generation)
                   from named, moved)
               select id from named"#,
            attempt.team_id,
            attempt.chain_id,
            attempt.spent_generation,
            pair.access_token.as_bytes(),
            pair.refresh_token.as_bytes(),
            pair.reference_token.as_ref().map(Sealed::as_bytes),
            pair.jfrog_token_id,
            pair.fingerprint,
            pair.scope,
            attempt.begun_at,
            pair.expires_in.map(|seconds| seconds as f64),
            attempt.kind,
            pair.subject,
            attempt.id,
            Json(actor) as _,
            attempt.token_id,
            attempt.asked.scope,
            attempt.asked.audience,
            attempt.asked.expires_in
        )
        .fetch_optional(&self.pool)
        .await?;
        if done.is_some() {
            return Ok(Committed::Yes);
        }
        // No row moved: it is ours already (a commit whose answer was lost), or someone else's, or gone.
        let now_there = sqlx::query!(
            "select generation, fingerprint from chains where (select in_team($1)) and id = $2",
            attempt.team_id,
            attempt.chain_id
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match now_there {
            None => Committed::Gone,
            Some(row) if row.fingerprint.as_deref() == Some(&pair.fingerprint) => Committed::Yes,
            Some(_) => Committed::Superseded,
        })
    }

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
