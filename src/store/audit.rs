//! Audit rows: of what changed nothing, which are refusals (what changed something is audited by the statement that changed it),
//! and as they are read.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// Something that was refused.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose; `None`: the platform's.
    pub team: Option<Uuid>,
    /// What was asked for, as `noun.verb`.
    pub action: String,
    /// Precisely why not.
    pub reason: String,
    /// The token's name as it was asked for.
    pub token_name: Option<String>,
}

/// A row as it is read.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// In the order of insertion, over all teams.
    pub id: i64,
    /// When.
    pub at: OffsetDateTime,
    /// Whose, by name; `None`: the platform's.
    pub team: Option<String>,
    /// Who.
    pub actor: String,
    /// How the actor was recognised.
    pub recognised_by: serde_json::Value,
    /// What, as `noun.verb`; of a refusal the method and the route.
    pub action: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// Precisely why, where it was not done.
    pub reason: Option<String>,
    /// The token's name, as it was asked for.
    pub token_name: Option<String>,
    /// JFrog's id of what was handed out or made.
    pub jfrog_token_id: Option<String>,
    /// Of what was handed out or made.
    pub fingerprint: Option<String>,
    /// The token's.
    pub generation: Option<i64>,
    /// The answer's `x-request-id`.
    pub request_id: Option<String>,
    /// The caller's.
    pub address: Option<String>,
    /// What else is worth knowing.
    pub detail: Option<serde_json::Value>,
}

/// Which rows are wanted: those that are all of what is given.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// The token's name.
    pub token_name: Option<String>,
    /// Who.
    pub actor: Option<String>,
    /// What.
    pub action: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Of what was handed out or made.
    pub fingerprint: Option<String>,
    /// The answer's `x-request-id`.
    pub request_id: Option<String>,
    /// Not before.
    pub from: Option<OffsetDateTime>,
    /// Before.
    pub to: Option<OffsetDateTime>,
    /// Older than the row of this time and id.
    pub before: Option<(OffsetDateTime, i64)>,
}

impl Store {
    /// Writes a refusal.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_refusal(&self, event: &Event, actor: &Actor) -> Result<()> {
        sqlx::query!(
            "insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_name, request_id, address)
             select nullif($1, '00000000-0000-0000-0000-000000000000'::uuid), $2::jsonb->>'name', $2->'recognised_by', $3, 'refused', $4, $5,
                    $2->>'request_id', $2->>'address'
             where (select in_team($1))",
            event.team.unwrap_or_default(),
            Json(actor) as _,
            event.action,
            event.reason,
            event.token_name
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A page of a team's rows, the newest first. The nil team is the platform, which has no name. `tokens`: only rows about tokens
    /// whose names are `like` one of these; `None`: rows about no token too.
    ///
    /// # Errors
    /// Others read for too long, or Postgres.
    pub async fn audit_events(
        &self,
        team: Uuid,
        team_name: Option<&str>,
        tokens: Option<&[String]>,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditRow>> {
        let (before, before_id) = filter.before.unzip();
        // A case, and not an `or`: planned for one team, it leaves an equality that the indexes serve in their order; planned for
        // any, nothing that looks cheap, so that Postgres plans anew for the filters that are given.
        Ok(sqlx::query_as!(
            AuditRow,
            r#"select id, at, $2::text as team, actor, recognised_by, action, outcome, reason, token_name, jfrog_token_id, fingerprint,
                      generation, request_id, address, detail
               from audit_events
               where (select in_team($1))
                     and case when $1 = '00000000-0000-0000-0000-000000000000' then team_id is null else team_id = $1 end
                     and ($3::text[] is null or token_name like any ($3))
                     and ($4::text is null or token_name = $4) and ($5::text is null or actor = $5)
                     and ($6::text is null or action = $6) and ($7::text is null or outcome = $7)
                     and ($8::text is null or fingerprint = $8) and ($9::text is null or request_id = $9)
                     and ($10::timestamptz is null or at >= $10) and ($11::timestamptz is null or at < $11)
                     and ($12::timestamptz is null or (at, id) < ($12, $13::bigint))
               order by at desc, id desc limit $14"#,
            team,
            team_name,
            tokens,
            filter.token_name,
            filter.actor,
            filter.action,
            filter.outcome,
            filter.fingerprint,
            filter.request_id,
            filter.from,
            filter.to,
            before,
            before_id,
            limit
        )
        .fetch_all(&self.audit_pool)
        .await?)
    }

    /// A page of all teams' rows about an access token, the oldest first, after the row of id `after`. For the operator alone.
    ///
    /// # Errors
    /// Postgres.
    pub async fn audit_of_fingerprint(&self, fingerprint: &str, after: i64, limit: i32) -> Result<Vec<AuditRow>> {
        Ok(sqlx::query_as!(
            AuditRow,
            r#"select id as "id!", at as "at!", team, actor as "actor!", recognised_by as "recognised_by!", action as "action!",
                      outcome as "outcome!", reason, token_name, jfrog_token_id, fingerprint, generation, request_id, address, detail
               from audit_of_fingerprint($1, $2, $3)"#,
            fingerprint,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
