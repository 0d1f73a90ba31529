//! The hot path: decide whether the younger chain's access token may be handed out, and write the audit row of doing so, in one
//! statement and one round trip.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store, StoreError, TokenState, TokenView, held::Held};
use crate::{actor::Actor, secret::Sealed};

/// What the caller asks of the token it is handed.
#[derive(Clone, Debug)]
pub struct HandOutRule {
    /// Seconds since it was obtained; `None`: the token's effective `reuse_for`.
    pub max_age: Option<i64>,
    /// Whether a smaller `max_age` is raised to the effective `reuse_for`.
    pub raise_max_age: bool,
    /// Seconds it must still have.
    pub min_ttl: i64,
    /// When the request arrived, by Postgres' clock: whatever was obtained since is new enough for any `max_age`.
    pub since: Option<OffsetDateTime>,
    /// Whatever its age: nothing newer is to be had now.
    pub any_age: bool,
}

/// The younger chain as of the decision.
#[derive(Clone, Debug)]
pub struct HandOut {
    /// By an admin: handed out to nobody.
    pub locked_down: bool,
    /// Whether it may be handed out: then, and only then, the audit row is written.
    pub handed: bool,
    /// Whether `max_age` was raised.
    pub raised: bool,
    /// The registration.
    pub token_id: Uuid,
    /// Pairs so far.
    pub generation: i64,
    /// The chain's row.
    pub chain_id: Uuid,
    /// The chain's generation.
    pub chain_generation: i64,
    /// Sealed.
    pub access_token: Option<Sealed>,
    /// Sealed.
    pub reference_token: Option<Sealed>,
    /// JFrog's id.
    pub jfrog_token_id: Option<String>,
    /// Granted scope.
    pub scope: Option<String>,
    /// JFrog's `sub`.
    pub subject: Option<String>,
    /// When the pair was obtained.
    pub refreshed_at: Option<OffsetDateTime>,
    /// `None`: never.
    pub expires_at: Option<OffsetDateTime>,
    /// Postgres' clock.
    pub now: OffsetDateTime,
}

impl HandOut {
    /// A token that was only looked at, for a rule that nothing there can meet.
    pub fn refused(view: &TokenView) -> Option<Self> {
        let younger = view.younger().filter(|_| view.state == TokenState::Registered)?;
        Some(Self {
            locked_down: view.locked_down,
            handed: false,
            raised: false,
            token_id: view.id,
            generation: view.generation,
            chain_id: younger.id,
            chain_generation: younger.generation,
            access_token: None,
            reference_token: None,
            jfrog_token_id: younger.jfrog_token_id.clone(),
            scope: younger.scope.clone(),
            subject: view.subject.clone(),
            refreshed_at: younger.refreshed_at,
            expires_at: younger.expires_at,
            now: view.now,
        })
    }
}

/// Of one request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    name: String,
    rule: HandOutRule,
    warning: Option<&'static str>,
    actor: Actor,
}

impl Store {
    /// Decides and audits, in one statement with those who ask for the team's tokens meanwhile. `None`: no such token, or none with
    /// an active chain that is in use. `warning` stands in the audit.
    ///
    /// # Errors
    /// Postgres; then nothing may be handed out.
    pub async fn hand_out(
        &self,
        team: Uuid,
        name: &str,
        rule: &HandOutRule,
        warning: Option<&'static str>,
        actor: &Actor,
    ) -> Result<Option<HandOut>> {
        let ask = Ask { name: name.to_owned(), rule: rule.clone(), warning, actor: actor.clone() };
        let (store, held) = (self.clone(), Held::of(&self.pool));
        self.hand_outs.ask(team, ask, move |asks| store.clone().hand_out_all(team, asks, held.clone())).await
    }

    async fn hand_out_all(self, team: Uuid, asks: Vec<Ask>, held: Held) -> Result<Vec<Option<HandOut>>> {
        let _room = match self.hand_out_room.try_acquire() {
            Ok(room) => room,
            Err(_) => {
                // Those who have room may be waiting for it.
                held.give_back();
                self.hand_out_room.acquire().await.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolClosed))?
            }
        };
        let names: Vec<&str> = asks.iter().map(|ask| ask.name.as_str()).collect();
        let max_ages: Vec<Option<f64>> = asks.iter().map(|ask| ask.rule.max_age.map(|seconds| seconds as f64)).collect();
        let raise: Vec<bool> = asks.iter().map(|ask| ask.rule.raise_max_age).collect();
        let min_ttls: Vec<f64> = asks.iter().map(|ask| ask.rule.min_ttl as f64).collect();
        let since: Vec<Option<OffsetDateTime>> = asks.iter().map(|ask| ask.rule.since).collect();
        let any_age: Vec<bool> = asks.iter().map(|ask| ask.rule.any_age).collect();
        let actors: Vec<Json<&Actor>> = asks.iter().map(|ask| Json(&ask.actor)).collect();
        let warnings: Vec<Option<&str>> = asks.iter().map(|ask| ask.warning).collect();
        let mut connection = held.take().await?;
        let rows = sqlx::query!(
            r#"with judged as (
                   select *, coalesce(raise and max_age < reuse_for, false) as raised,
                          not locked_down and (expires_at is null or expires_at - now() >= make_interval(secs => min_ttl))
                          and (any_age or coalesce(refreshed_at > since, false) or now() - refreshed_at <= make_interval(secs =>
                              case when raise then greatest(coalesce(max_age, reuse_for), reuse_for) else coalesce(max_age, reuse_for) end))
                          as handed
                   from unnest($2::text[], $3::float8[], $4::bool[], $5::float8[], $6::timestamptz[], $7::bool[], $8::jsonb[], $9::text[])
                        with ordinality as ask (name, max_age, raise, min_ttl, since, any_age, actor, warning, place),
                        lateral (
                            select t.id as token_id, t.team_id, t.generation, t.subject, c.id as chain_id, c.generation as chain_generation,
                                   c.access_token, c.reference_token, c.jfrog_token_id, c.fingerprint, c.scope, c.refreshed_at, c.expires_at,
                                   effective_reuse_for(t.reuse_for, c.refreshed_at, c.expires_at) as reuse_for,
                                   -- As locked_down() says, which would be planned anew each time.
                                   exists (select 1 from lockdowns l where l.team_id = t.team_id and coalesce(l.token_id, t.id) = t.id)
                                   as locked_down
                            from tokens t join chains c on c.token_id = t.id
                            where (select in_team($1)) and t.team_id = $1 and t.name = ask.name
                                  and t.state = 'registered' and c.state = 'active'
                            order by c.refreshed_at desc limit 1) younger),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id,
                                             fingerprint, generation, request_id, address, detail)
                   select team_id, actor->>'name', actor->'recognised_by', 'token.hand_out', 'done', token_id, name, jfrog_token_id,
                          fingerprint, generation, actor->>'request_id', actor->>'address',
                          case when warning is not null then jsonb_build_object('warnings', array[warning]) end
                   from judged where handed)
               select place as "place!", locked_down as "locked_down!", handed as "handed!", raised as "raised!", token_id, generation,
                      chain_id, chain_generation, access_token, reference_token, jfrog_token_id, scope, subject, refreshed_at, expires_at,
                      now() as "now!"
               from judged"#,
            team,
            &names as _,
            &max_ages as _,
            &raise,
            &min_ttls,
            &since as _,
            &any_age,
            &actors as _,
            &warnings as _
        )
        .fetch_all(&mut *connection)
        .await?;
        held.keep(connection);
        let mut found: Vec<Option<HandOut>> = asks.iter().map(|_| None).collect();
        for row in rows {
            let place = usize::try_from(row.place - 1).ok().and_then(|place| found.get_mut(place));
            let hand_out = HandOut {
                locked_down: row.locked_down,
                handed: row.handed,
                raised: row.raised,
                token_id: row.token_id,
                generation: row.generation,
                chain_id: row.chain_id,
                chain_generation: row.chain_generation,
                access_token: row.access_token.map(Sealed::from_bytes),
                reference_token: row.reference_token.map(Sealed::from_bytes),
                jfrog_token_id: row.jfrog_token_id,
                scope: row.scope,
                subject: row.subject,
                refreshed_at: row.refreshed_at,
                expires_at: row.expires_at,
                now: row.now,
            };
            place.map(|place| place.replace(hand_out));
        }
        Ok(found)
    }
}
