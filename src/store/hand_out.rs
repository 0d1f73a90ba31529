//! The hot path: decide whether the younger chain's access token may be handed out, and write the audit row of doing so, in one
//! statement and one round trip.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
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

impl Store {
    /// Decides and audits. `None`: no such token, or none with an active chain that is in use.
    ///
    /// # Errors
    /// Postgres; then nothing may be handed out.
    pub async fn hand_out(
        &self,
        team: Uuid,
        name: &str,
        rule: &HandOutRule,
        warnings: &[&'static str],
        actor: &Actor,
    ) -> Result<Option<HandOut>> {
        // Never closed; whoever waits too long is told by its own deadline.
        let _room = self.hand_out_room.acquire().await;
        let row = sqlx::query!(
            r#"with younger as (
                   select t.id as token_id, t.team_id, t.name, t.generation, t.subject, c.id as chain_id,
                          c.generation as chain_generation, c.access_token, c.reference_token, c.jfrog_token_id, c.fingerprint,
                          c.scope, c.refreshed_at, c.expires_at,
                          effective_reuse_for(t.reuse_for, c.refreshed_at, c.expires_at) as reuse_for,
                          locked_down(t.team_id, t.id) as locked_down
                   from tokens t join chains c on c.token_id = t.id
                   where (select in_team($1)) and t.team_id = $1 and t.name = $2 and t.state = 'registered' and c.state = 'active'
                   order by c.refreshed_at desc limit 1),
               judged as (
                   select *, coalesce($4 and $3 < reuse_for, false) as raised,
                          not locked_down and (expires_at is null or expires_at - now() >= make_interval(secs => $5))
                          and ($7 or coalesce(refreshed_at > $6, false) or now() - refreshed_at <= make_interval(secs =>
                              case when $4 then greatest(coalesce($3, reuse_for), reuse_for) else coalesce($3, reuse_for) end)) as handed
                   from younger),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, jfrog_token_id,
                                             fingerprint, generation, request_id, address, detail)
                   select team_id, $8::jsonb->>'name', $8->'recognised_by', 'token.hand_out', 'done', token_id, name, jfrog_token_id,
                          fingerprint, generation, $8->>'request_id', $8->>'address',
                          case when cardinality($9::text[]) > 0 then jsonb_build_object('warnings', $9) end
                   from judged where handed)
               select locked_down as "locked_down!", handed as "handed!", raised as "raised!", token_id, generation, chain_id, chain_generation, access_token,
                      reference_token, jfrog_token_id, scope, subject, refreshed_at, expires_at, now() as "now!"
               from judged"#,
            team,
            name,
            rule.max_age.map(|seconds| seconds as f64),
            rule.raise_max_age,
            rule.min_ttl as f64,
            rule.since,
            rule.any_age,
            Json(actor) as _,
            warnings as &[&str]
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| HandOut {
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
        }))
    }
}
