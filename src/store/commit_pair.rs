//! Committing a pair: the one statement that moves a chain on.

use std::{collections::HashMap, sync::Arc};

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Attempt, HandOut, HandOutRule, Result, Store, held::Held};
use crate::{actor::Actor, secret::Sealed};

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

/// Of one attempt.
#[derive(Debug)]
pub(super) struct Ask {
    attempt: Attempt,
    pair: NewPair,
    wanted: Option<HandOutRule>,
    actor: Actor,
}

/// A chain that was moved on.
#[derive(Debug)]
pub(super) struct Moved {
    /// What was handed out by the same statement.
    handed: Option<HandOut>,
}

impl Store {
    /// Commits a pair onto the generation it was spent from, whoever holds the attempt now, and ends the attempt. Takes it by
    /// reference: it is tried again until Postgres has it. Together with those of the team's that are committed meanwhile.
    ///
    /// With `wanted`, the pair is handed out to the actor by the same statement, its audit row written, if it is good enough: then it
    /// stands in the answer.
    ///
    /// # Errors
    /// Postgres: the outcome is unknown; commit again.
    pub async fn commit_pair(
        &self,
        attempt: &Attempt,
        pair: &NewPair,
        wanted: Option<HandOutRule>,
        actor: &Actor,
    ) -> Result<(Committed, Option<HandOut>)> {
        let (team, held) = (attempt.team_id, self.held());
        let ask = Ask { attempt: attempt.shared(), pair: pair.clone(), wanted, actor: actor.clone() };
        let moved = self.committed.ask(team, Arc::new(ask), move |asks| Self::commit_all(team, asks, held.clone())).await?;
        if let Some(moved) = moved {
            return Ok((Committed::Yes, moved.handed));
        }
        // No row moved: it is ours already (a commit whose answer was lost), or someone else's, or gone.
        let now_there = sqlx::query!(
            "select generation, fingerprint from chains where (select in_team($1)) and id = $2",
            attempt.team_id,
            attempt.chain_id
        )
        .fetch_optional(&self.pool)
        .await?;
        let committed = match now_there {
            None => Committed::Gone,
            Some(row) if row.fingerprint.as_deref() == Some(&pair.fingerprint) => Committed::Yes,
            Some(_) => Committed::Superseded,
        };
        Ok((committed, None))
    }

    /// What of them moved their chains.
    async fn commit_all(team: Uuid, asks: Vec<Arc<Ask>>, held: Held) -> Result<Vec<Option<Moved>>> {
        let mut order: Vec<&Ask> = asks.iter().map(Arc::as_ref).collect();
        // Every statement locks tokens in this order: no two can wait for each other.
        order.sort_by_key(|ask| ask.attempt.token_id);
        let mut moved = HashMap::new();
        // A statement changes a row once: a second pair of the same token has the next one.
        for some in order.chunk_by(|one, next| one.attempt.token_id != next.attempt.token_id) {
            moved.extend(Self::commit_some(team, some, &held).await?);
        }
        // Not by the attempt alone: another pair of the same one has not moved it.
        Ok(asks.iter().map(|ask| moved.remove(&(ask.attempt.id, ask.pair.fingerprint.clone()))).collect())
    }

    /// Commits pairs of different tokens. Answers those that are there now, by their attempts and fingerprints.
    async fn commit_some(team: Uuid, asks: &[&Ask], held: &Held) -> Result<HashMap<(Uuid, String), Moved>> {
        let tokens: Vec<Uuid> = asks.iter().map(|ask| ask.attempt.token_id).collect();
        let chains: Vec<Uuid> = asks.iter().map(|ask| ask.attempt.chain_id).collect();
        let spent: Vec<i64> = asks.iter().map(|ask| ask.attempt.spent_generation).collect();
        let access_tokens: Vec<&[u8]> = asks.iter().map(|ask| ask.pair.access_token.as_bytes()).collect();
        let refresh_tokens: Vec<&[u8]> = asks.iter().map(|ask| ask.pair.refresh_token.as_bytes()).collect();
        let reference_tokens: Vec<Option<&[u8]>> =
            asks.iter().map(|ask| ask.pair.reference_token.as_ref().map(Sealed::as_bytes)).collect();
        let jfrog_ids: Vec<Option<&str>> = asks.iter().map(|ask| ask.pair.jfrog_token_id.as_deref()).collect();
        let fingerprints: Vec<&str> = asks.iter().map(|ask| ask.pair.fingerprint.as_str()).collect();
        let scopes: Vec<Option<&str>> = asks.iter().map(|ask| ask.pair.scope.as_deref()).collect();
        let begun_at: Vec<OffsetDateTime> = asks.iter().map(|ask| ask.attempt.begun_at).collect();
        let lifetimes: Vec<Option<f64>> = asks.iter().map(|ask| ask.pair.expires_in.map(|seconds| seconds as f64)).collect();
        let kinds: Vec<&str> = asks.iter().map(|ask| ask.attempt.kind.as_str()).collect();
        let subjects: Vec<Option<&str>> = asks.iter().map(|ask| ask.pair.subject.as_deref()).collect();
        let ids: Vec<Uuid> = asks.iter().map(|ask| ask.attempt.id).collect();
        let actors: Vec<Json<&Actor>> = asks.iter().map(|ask| Json(&ask.actor)).collect();
        let asked_scopes: Vec<Option<&str>> = asks.iter().map(|ask| ask.attempt.asked.scope.as_deref()).collect();
        let asked_audiences: Vec<Option<&str>> = asks.iter().map(|ask| ask.attempt.asked.audience.as_deref()).collect();
        let asked_lifetimes: Vec<Option<i64>> = asks.iter().map(|ask| ask.attempt.asked.expires_in).collect();
        let min_ttls: Vec<Option<f64>> = asks.iter().map(|ask| Some(ask.wanted.as_ref()?.min_ttl as f64)).collect();
        let mut connection = held.take().await?;
        let moved = sqlx::query!(
            r#"with held as (
                   -- Every statement that changes an attempt takes the token's row first: no two can wait for each other.
                   select ask.*, t.reuse_for, ask.kind in ('heal', 'recreate') as anew,
                          t.subject as of_token, coalesce(ask.subject, t.subject) as becomes
                   from unnest($2::uuid[], $3::uuid[], $4::int8[], $5::bytea[], $6::bytea[], $7::bytea[], $8::text[], $9::text[], $10::text[],
                               $11::timestamptz[], $12::float8[], $13::text[], $14::text[], $15::uuid[], $16::jsonb[], $17::text[],
                               $18::text[], $19::int8[], $20::float8[])
                        as ask (token_id, chain_id, spent, access_token, refresh_token, reference_token, jfrog_token_id, fingerprint, scope,
                                begun_at, lifetime, kind, subject, attempt, actor, asked_scope, asked_audience, asked_lifetime, min_ttl),
                        lateral (select t.reuse_for, t.subject from tokens t
                                 where (select in_team($1)) and t.id = ask.token_id for no key update) t),
               moved as (
                   update chains c set
                          -- A new chain in place of an old one, which may still be in use. Where an earlier one is remembered still, that
                          -- one may bear no marker or be another user's: this one, of the same user as the new, is found by its marker.
                          replaced_access_token = case when held.anew and (c.replaced_jfrog_token_id is null
                                                            or coalesce(c.subject, held.of_token) is distinct from held.becomes)
                                                       then c.access_token else c.replaced_access_token end,
                          replaced_generation = case when held.anew and (c.replaced_jfrog_token_id is null
                                                          or coalesce(c.subject, held.of_token) is distinct from held.becomes)
                                                     then c.generation else c.replaced_generation end,
                          replaced_jfrog_token_id = case when held.anew and (c.replaced_jfrog_token_id is null
                                                              or coalesce(c.subject, held.of_token) is distinct from held.becomes)
                                                         then c.jfrog_token_id else c.replaced_jfrog_token_id end,
                          sweep_after = case when held.anew then greatest(c.sweep_after, clock_timestamp()
                                             + make_interval(secs => protected_for(held.reuse_for, c.refreshed_at, c.expires_at)))
                                        else c.sweep_after end,
                          state = 'active', resent = false, generation = c.generation + 1, access_token = held.access_token,
                          refresh_token = held.refresh_token, reference_token = held.reference_token,
                          jfrog_token_id = held.jfrog_token_id, subject = coalesce(held.subject, c.subject), fingerprint = held.fingerprint,
                          scope = coalesce(held.scope, c.scope),
                          refreshed_at = held.begun_at, expires_at = held.begun_at + make_interval(secs => held.lifetime)
                   from held
                   where (select in_team($1)) and c.token_id = held.token_id and c.id = held.chain_id and c.generation = held.spent
                   returning c.id, c.token_id, c.letter, c.generation, c.jfrog_token_id, c.fingerprint, c.scope, c.refreshed_at, c.expires_at,
                             held.kind, held.subject, held.attempt, held.actor, held.asked_scope, held.asked_audience, held.asked_lifetime,
                             held.min_ttl),
               named as (
                   update tokens t set
                          -- A registration's first pairs are one generation; each later pair is the next.
                          generation = case when moved.kind = 'create' then greatest(t.generation, 1) else t.generation + 1 end,
                          rotatable_at = greatest(t.rotatable_at, clock_timestamp() + make_interval(secs =>
                              protected_for(t.reuse_for, moved.refreshed_at, moved.expires_at))),
                          subject = coalesce(moved.subject, t.subject), scope = coalesce(moved.asked_scope, t.scope),
                          audience = coalesce(moved.asked_audience, t.audience), expires_in = coalesce(moved.asked_lifetime, t.expires_in),
                          heal_after = 'epoch', rejected_since = null, rejections = 0,
                          last_error_at = null, last_error_kind = null, last_error_detail = null
                   from moved where (select in_team($1)) and t.id = moved.token_id
                   returning t.id, t.team_id, t.name, t.generation, t.state, t.subject, moved.id as chain_id, moved.letter,
                             moved.generation as chain_generation, moved.jfrog_token_id, moved.fingerprint, moved.scope, moved.refreshed_at,
                             moved.expires_at, moved.kind, moved.attempt, moved.actor,
                             effective_reuse_for(t.reuse_for, moved.refreshed_at, moved.expires_at) as reuse_for,
                             -- As a hand-out by itself would decide.
                             moved.min_ttl is not null and t.state = 'registered'
                             and (moved.expires_at is null or moved.expires_at - now() >= make_interval(secs => moved.min_ttl))
                             and not exists (select 1 from lockdowns l
                                             where l.team_id = t.team_id and coalesce(l.token_id, t.id) = t.id) as handed),
               ended as (
                   delete from attempts a using moved
                   where (select in_team($1)) and a.token_id = moved.token_id and a.id = moved.attempt),
               put_aside as (
                   -- A recreate begins anew from this chain: the other is made from it.
                   update chains c set state = 'lost' from moved
                   where (select in_team($1)) and moved.kind = 'recreate' and c.token_id = moved.token_id and c.id <> moved.id),
               remaining as (
                   -- Whether something is left to see to: a chain that is missing, a registration that is not complete, another attempt.
                   select named.id, named.state = 'creating'
                          or exists (select 1 from chains c where c.token_id = named.id and c.id <> named.chain_id
                                     and (c.state <> 'active' or named.kind = 'recreate'))
                          or exists (select 1 from attempts o where o.token_id = named.id and o.id <> named.attempt) as any
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
                   select team_id, actor->>'name', actor->'recognised_by', event.action, 'done', id, name, jfrog_token_id, fingerprint,
                          generation, actor->>'request_id', actor->>'address', event.detail
                   from named, lateral (
                       values ('chain.' || kind, jsonb_build_object('chain', letter, 'chain_generation', chain_generation), true),
                              ('token.hand_out', null, handed)) event (action, detail, is_so)
                   where event.is_so)
               select attempt as "attempt!", fingerprint as "fingerprint!", handed as "handed!", id as token_id, generation, chain_id,
                      chain_generation, jfrog_token_id, scope, subject, refreshed_at, expires_at, reuse_for as "reuse_for!", now() as "now!"
               from named"#,
            team,
            &tokens,
            &chains,
            &spent,
            &access_tokens as _,
            &refresh_tokens as _,
            &reference_tokens as _,
            &jfrog_ids as _,
            &fingerprints as _,
            &scopes as _,
            &begun_at,
            &lifetimes as _,
            &kinds as _,
            &subjects as _,
            &ids,
            &actors as _,
            &asked_scopes as _,
            &asked_audiences as _,
            &asked_lifetimes as _,
            &min_ttls as _
        )
        .fetch_all(&mut *connection)
        .await?;
        held.keep(connection);
        let pairs: HashMap<Uuid, &Ask> = asks.iter().map(|ask| (ask.attempt.id, *ask)).collect();
        let moved = moved.into_iter().map(|row| {
            let ask = pairs.get(&row.attempt).filter(|_| row.handed);
            let handed = ask.and_then(|ask| ask.wanted.as_ref().zip(Some(&ask.pair))).map(|(wanted, pair)| HandOut {
                locked_down: false,
                handed: true,
                raised: wanted.raise_max_age && wanted.max_age.is_some_and(|seconds| (seconds as f64) < row.reuse_for),
                token_id: row.token_id,
                generation: row.generation,
                chain_id: row.chain_id,
                chain_generation: row.chain_generation,
                access_token: Some(pair.access_token.clone()),
                reference_token: pair.reference_token.clone(),
                jfrog_token_id: row.jfrog_token_id,
                scope: row.scope,
                subject: row.subject,
                refreshed_at: row.refreshed_at,
                expires_at: row.expires_at,
                now: row.now,
            });
            ((row.attempt, row.fingerprint), Moved { handed })
        });
        Ok(moved.collect())
    }
}
