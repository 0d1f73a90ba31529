//! Lockdowns, and what they hit.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// A lockdown to be begun.
#[derive(Clone, Debug)]
pub struct NewLockdown {
    /// Which token; `None`: every one of the team.
    pub token_id: Option<Uuid>,
    /// For people.
    pub reason: String,
    /// Whether the chains are made anew.
    pub renew: bool,
    /// By a platform admin.
    pub by_platform: bool,
}

/// A lockdown as it stands.
#[derive(Clone, Debug)]
pub struct LockdownRow {
    /// For people.
    pub reason: String,
    /// Whether the chains are made anew.
    pub renew: bool,
    /// By a platform admin: only such a one ends it.
    pub by_platform: bool,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// Who began it.
    pub created_by: String,
    /// Tokens whose chains are still to be made anew.
    pub renewing: Vec<String>,
}

/// Sessions that are good for the same tokens.
#[derive(Clone, Debug)]
pub struct SessionsRow {
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// How many.
    pub count: i64,
}

impl Store {
    /// Begins a lockdown, or says anew why; the chains that are to be made anew are, in the background.
    ///
    /// # Errors
    /// Postgres: then nothing is locked down.
    pub async fn lock_down(&self, team: Uuid, new: &NewLockdown, actor: &Actor) -> Result<()> {
        sqlx::query!(
            r#"with begun as (
                   insert into lockdowns (id, team_id, token_id, reason, renew, by_platform, created_by)
                   select gen_random_uuid(), $1, $2, $3, $4, $5, $6::jsonb->>'name' where (select in_team($1))
                   on conflict on constraint lockdowns_token_key do update
                       set reason = excluded.reason, renew = excluded.renew, created_by = excluded.created_by,
                           -- A team's admin who says why once more must not take away what a platform admin has done.
                           by_platform = lockdowns.by_platform or excluded.by_platform
                   returning team_id, token_id),
               scheduled as (
                   insert into jobs (kind, subject, due_at) select 'renew', t.id, now() from tokens t, begun
                   where (select in_team($1)) and t.team_id = $1 and $4 and t.state = 'registered' and t.id = coalesce(begun.token_id, t.id)
                   on conflict on constraint jobs_pkey do update set due_at = now(), failures = 0),
               -- From here on no child token is issued: the job gives up those that there are.
               to_revoke as (
                   insert into jobs (kind, subject, due_at) select 'revoke', t.id, now() from tokens t, begun
                   where (select in_team($1)) and t.team_id = $1 and t.id = coalesce(begun.token_id, t.id)
                   on conflict on constraint jobs_pkey do update set due_at = now(), failures = 0)
               insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, request_id, address,
                                         detail)
               select begun.team_id, $6->>'name', $6->'recognised_by', case when $2 is null then 'team.lock_down' else 'token.lock_down' end,
                      'done', $3, begun.token_id, (select t.name from tokens t where (select in_team($1)) and t.id = $2), $6->>'request_id',
                      $6->>'address', jsonb_build_object('renew', $4::boolean)
               from begun"#,
            team,
            new.token_id,
            new.reason,
            new.renew,
            new.by_platform,
            Json(actor) as _
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The lockdown of this very token, or of the team itself for `None`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn lockdown(&self, team: Uuid, token: Option<Uuid>) -> Result<Option<LockdownRow>> {
        Ok(sqlx::query_as!(
            LockdownRow,
            r#"select reason, renew, by_platform, created_at, created_by,
                      array(select t.name from tokens t join jobs j on j.kind = 'renew' and j.subject = t.id
                            where (select in_team($1)) and t.team_id = $1 and t.id = coalesce($2, t.id) order by t.name limit 200) as "renewing!"
               from lockdowns where (select in_team($1)) and team_id = $1 and token_id is not distinct from $2"#,
            team,
            token
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Whether the whole team is locked down.
    ///
    /// # Errors
    /// Postgres.
    pub async fn team_is_locked_down(&self, team: Uuid) -> Result<bool> {
        let locked = sqlx::query_scalar!(
            r#"select exists (select 1 from lockdowns where (select in_team($1)) and team_id = $1 and token_id is null) as "locked!""#,
            team
        );
        Ok(locked.fetch_one(&self.pool).await?)
    }

    /// Ends a lockdown. `false`: there is none.
    ///
    /// # Errors
    /// Postgres.
    pub async fn end_lockdown(&self, team: Uuid, token: Option<Uuid>, actor: &Actor) -> Result<bool> {
        let ended = sqlx::query_scalar!(
            r#"with ended as (
                   delete from lockdowns where (select in_team($1)) and team_id = $1 and token_id is not distinct from $2
                   returning id, team_id, token_id, created_at),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, token_id, token_name, request_id, address, detail)
                   select ended.team_id, $3::jsonb->>'name', $3->'recognised_by',
                          case when $2 is null then 'team.lockdown_end' else 'token.lockdown_end' end, 'done', ended.token_id,
                          (select t.name from tokens t where (select in_team($1)) and t.id = $2), $3->>'request_id', $3->>'address',
                          jsonb_build_object('since', ended.created_at)
                   from ended)
               select id from ended"#,
            team,
            token,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(ended.is_some())
    }

    /// Sessions that have not ended, by what they are good for.
    ///
    /// # Errors
    /// Postgres.
    pub async fn sessions_by_tokens(&self, team: Uuid) -> Result<Vec<SessionsRow>> {
        Ok(sqlx::query_as!(
            SessionsRow,
            r#"select given.patterns as "token_patterns!", count(*) as "count!"
               from sessions s,
                    lateral (select array_agg(distinct pattern order by pattern) as patterns
                             from trust_rules r, unnest(r.token_patterns) pattern
                             where (select in_team($1)) and r.id = any (s.rule_ids) and r.role <> 'viewer') given
               where (select in_team($1)) and s.team_id = $1 and s.expires_at > now() and given.patterns is not null
               group by given.patterns"#,
            team
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// How many tokens the team has.
    ///
    /// # Errors
    /// Postgres.
    pub async fn count_tokens(&self, team: Uuid) -> Result<i64> {
        let count =
            sqlx::query_scalar!(r#"select count(*) as "count!" from tokens where (select in_team($1)) and team_id = $1"#, team);
        Ok(count.fetch_one(&self.pool).await?)
    }
}
