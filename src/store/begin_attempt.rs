//! Beginning an attempt: the intent that is on disk before JFrog hears of it.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store, held::Held};
use crate::{actor::Actor, names::Asked};

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

impl Attempt {
    /// The same, for a statement that is shared with others.
    pub(super) fn shared(&self) -> Self {
        Self { kind: self.kind.clone(), asked: self.asked.clone(), ..*self }
    }
}

/// With the actor's name.
pub(super) type Ask = (NewAttempt, String);

impl Store {
    /// Begins an attempt, if no other is there, the chain is at the generation seen, rotation is due, and the master key was not
    /// retired. `None`: one of these is not so. Together with those of the team's that begin meanwhile.
    ///
    /// # Errors
    /// Postgres: then nothing may be spent.
    pub async fn begin_attempt(&self, new: &NewAttempt, actor: &Actor) -> Result<Option<Attempt>> {
        let (team, ask, held) = (new.team_id, (new.clone(), actor.name.clone()), self.held());
        let begun_at = self.begun.ask(team, ask, move |asks| Self::begin_all(team, asks, held.clone())).await?;
        Ok(begun_at.map(|begun_at| Attempt {
            id: new.id,
            team_id: new.team_id,
            token_id: new.token_id,
            chain_id: new.chain_id,
            kind: new.kind.to_owned(),
            spent_generation: new.seen_generation,
            begun_at,
            asked: new.asked.clone(),
        }))
    }

    async fn begin_all(team: Uuid, asks: Vec<Ask>, held: Held) -> Result<Vec<Option<OffsetDateTime>>> {
        let mut order: Vec<&Ask> = asks.iter().collect();
        // Every statement locks tokens in this order: no two can wait for each other.
        order.sort_unstable_by_key(|(new, _)| new.token_id);
        let tokens: Vec<Uuid> = order.iter().map(|(new, _)| new.token_id).collect();
        let chains: Vec<Uuid> = order.iter().map(|(new, _)| new.chain_id).collect();
        let seen: Vec<i64> = order.iter().map(|(new, _)| new.seen_generation).collect();
        let respect: Vec<bool> = order.iter().map(|(new, _)| new.respect_rotatable_at).collect();
        let ids: Vec<Uuid> = order.iter().map(|(new, _)| new.id).collect();
        let kinds: Vec<&str> = order.iter().map(|(new, _)| new.kind).collect();
        let leases: Vec<f64> = order.iter().map(|(new, _)| new.lease.as_secs_f64()).collect();
        let replicas: Vec<Uuid> = order.iter().map(|(new, _)| new.replica).collect();
        let actors: Vec<&str> = order.iter().map(|(_, actor)| actor.as_str()).collect();
        let master_keys: Vec<Option<&str>> = order.iter().map(|(new, _)| new.master_key.as_deref()).collect();
        let mut connection = held.take().await?;
        // The lock makes a stale snapshot look again: an attempt that ended while we waited has moved the generation on.
        let begun = sqlx::query!(
            r#"with locked as (
                   select ask.*, found.team_id
                   from unnest($2::uuid[], $3::uuid[], $4::int8[], $5::bool[], $6::uuid[], $7::text[], $8::float8[], $9::uuid[], $10::text[],
                               $11::text[]) as ask (token_id, chain_id, seen, respect, id, kind, lease, replica, actor, master_key),
                        lateral (
                            select t.team_id from tokens t join chains c on c.token_id = t.id
                            where (select in_team($1)) and t.id = ask.token_id and c.id = ask.chain_id and c.generation = ask.seen
                              and (t.rotatable_at <= now() or not ask.respect)
                              and (t.state <> 'revoked' or ask.kind in ('delete', 'sweep'))
                              -- An uncertain chain's refresh token may be spent: only settling sends it again.
                              and (c.state = 'active' or ask.kind <> 'rotate')
                              and (c.state = 'uncertain' and not c.resent or ask.kind <> 'settle')
                              -- A replica that was asleep must not need a key that is about to be destroyed.
                              and (ask.master_key is null
                                   or exists (select from master_keys m where m.id = ask.master_key and m.retired_at is null))
                            for no key update of t, c) found),
               begun as (
                   insert into attempts (token_id, id, team_id, chain_id, kind, spent_generation, lease_until, replica, actor)
                   select token_id, id, team_id, chain_id, kind, seen, now() + make_interval(secs => lease), replica, actor
                   from locked
                   on conflict on constraint attempts_pkey do nothing
                   returning id, token_id, chain_id, kind, begun_at, lease_until),
               resent as (
                   update chains c set resent = true from begun
                   where (select in_team($1)) and c.id = begun.chain_id and begun.kind = 'settle'),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'settle', begun.token_id, begun.lease_until from begun
                   on conflict on constraint jobs_pkey do update set due_at = excluded.due_at, failures = 0)
               select id, begun_at from begun"#,
            team,
            &tokens,
            &chains,
            &seen,
            &respect,
            &ids,
            &kinds as _,
            &leases,
            &replicas,
            &actors as _,
            &master_keys as _
        )
        .fetch_all(&mut *connection)
        .await?;
        held.keep(connection);
        let begun_at = |id| begun.iter().find(|row| row.id == id).map(|row| row.begun_at);
        Ok(asks.iter().map(|(new, _)| begun_at(new.id)).collect())
    }
}
