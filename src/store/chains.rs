//! Chains that are given up without an attempt of their own.

use sqlx::types::Json;
use uuid::Uuid;

use super::{ChainRow, ChainState, Result, Store, TokenView};
use crate::actor::Actor;

/// Why a token is lost.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// No chain works and none can be made.
    NoChain,
    /// JFrog refused the user's bearers at least so often in a row, and for so many hours.
    UserRejected {
        /// At least so often.
        times: i32,
        /// And for so long.
        hours: i32,
    },
}

impl Lost {
    /// A word for programs, a sentence for people, and what must hold.
    fn told(self) -> (&'static str, &'static str, Option<(i32, i32)>) {
        match self {
            Self::NoChain => (
                "lost",
                "JFrog knows neither the refresh tokens nor the access tokens of this token any more: an answer was lost, or the \
                 tokens or their user were revoked at JFrog",
                None,
            ),
            Self::UserRejected { times, hours } => (
                "user-rejected",
                "JFrog has refused this token's user for hours: it was disabled, locked or deleted there, or its tokens were revoked",
                Some((times, hours)),
            ),
        }
    }
}

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
                   returning t.id, t.team_id, t.name, t.generation, t.state),
               scheduled as (
                   -- A job that is just being done has looked at it before: it is not finished then, but due again. Not that of a
                   -- registration, which gives up chains itself and comes back to them in its time.
                   insert into jobs (kind, subject, due_at) select 'settle', named.id, now() from named
                   on conflict on constraint jobs_pkey do update set failures = 0, due_at =
                       case when (select named.state = 'creating' from named) then jobs.due_at else least(jobs.due_at, excluded.due_at) end),
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

    /// From now on a person is needed: no chain works and none can be made, or, for `user-rejected`, JFrog has refused the user
    /// `times` in a row and for at least `hours`. `false`: nothing of the kind, or a pair came since the token was seen.
    ///
    /// # Errors
    /// Postgres.
    pub async fn declare_lost(&self, seen: &TokenView, why: Lost) -> Result<bool> {
        let (kind, detail, rejected) = why.told();
        let declared = sqlx::query_scalar!(
            r#"with held as (
                   select t.id, t.team_id, t.name, t.generation from tokens t
                   -- The generation stands in the row that is locked: who waited for it finds what was committed meanwhile.
                   where (select in_team($1)) and t.id = $2 and t.generation = $7
                     and (not exists (select 1 from chains c where c.token_id = t.id and c.state = 'active')
                          or t.rejections >= $5 and t.rejected_since <= now() - make_interval(hours => $6))
                     and not exists (select 1 from attempts a where a.token_id = t.id)
                     -- Said once, whichever of the two it was.
                     and coalesce(t.last_error_kind, '') not in ('lost', 'user-rejected')
                   for no key update),
               moved as (
                   update chains c set state = 'lost' from held where (select in_team($1)) and c.token_id = held.id),
               named as (
                   update tokens t set last_error_at = now(), last_error_kind = $4, last_error_detail = $3
                   from held where (select in_team($1)) and t.id = held.id),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation)
                   select held.team_id, 'system', '{}', 'token.lost', 'failed', $3, held.id, held.name, held.generation from held)
               select pg_notify('token_broker', held.id::text)::text from held"#,
            seen.team_id,
            seen.id,
            detail,
            kind,
            rejected.map(|(times, _)| times),
            rejected.map(|(_, hours)| hours),
            seen.generation
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(declared.is_some())
    }

    /// JFrog's ids of what was handed out and may work still, as the audit has them.
    ///
    /// # Errors
    /// Postgres.
    pub async fn handed_out_ids(&self, team: Uuid, token: Uuid) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(
            r#"select distinct jfrog_token_id as "id!" from audit_events
               where (select in_team($1)) and team_id = $1 and token_id = $2 and action = 'token.hand_out' and jfrog_token_id is not null
                     and at > now() - coalesce((select max(c.expires_at - c.refreshed_at) from chains c
                                                where (select in_team($1)) and c.token_id = $2), interval '100 years')"#,
            team,
            token
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// What was replaced is not protected any longer: the sweep is due at once. The audit says what was revoked, and what not.
    ///
    /// # Errors
    /// Postgres.
    pub async fn end_protection(
        &self,
        team: Uuid,
        token: Uuid,
        (revoked, not_revocable, unreached): (&[String], &[String], &[String]),
        actor: &Actor,
    ) -> Result<()> {
        sqlx::query!(
            "with held as (select t.id, t.team_id, t.name, t.generation from tokens t where (select in_team($1)) and t.id = $2),
             unprotected as (
                 update chains c set sweep_after = least(c.sweep_after, now()) from held
                 where (select in_team($1)) and c.token_id = held.id),
             scheduled as (
                 insert into jobs (kind, subject, due_at) select 'sweep', held.id, now() from held
                 on conflict on constraint jobs_pkey do update set due_at = now(), failures = 0)
             insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, generation, request_id,
                                       address, detail)
             select held.team_id, $3::jsonb->>'name', $3->'recognised_by', 'token.revoke_handed_out',
                    case when cardinality($6::text[]) = 0 then 'done' else 'failed' end,
                    case when cardinality($6) > 0 then 'JFrog could not be told of all' end, held.id, held.name, held.generation,
                    $3->>'request_id', $3->>'address',
                    jsonb_build_object('revoked', $4::text[], 'not_revocable', $5::text[], 'unreached', $6)
             from held",
            team,
            token,
            Json(actor) as _,
            revoked,
            not_revocable,
            unreached
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes down what a probe of one of the token's bearers said: JFrog refuses it, or knows it.
    ///
    /// # Errors
    /// Postgres.
    pub async fn note_probe(&self, team: Uuid, token: Uuid, refused: bool) -> Result<()> {
        sqlx::query!(
            "update tokens set rejected_since = case when $3 then coalesce(rejected_since, now()) end,
                    rejections = case when $3 then rejections + 1 else 0 end,
                    last_error_at = case when $3 then now() else last_error_at end,
                    last_error_kind = case when $3 then 'jfrog-unauthenticated' else last_error_kind end,
                    last_error_detail = case when $3 then 'JFrog does not know an access token of this token any more'
                                        else last_error_detail end
             where (select in_team($1)) and id = $2
                   -- Of a token that was declared lost meanwhile, a refusal says nothing new.
                   and not ($3 and coalesce(last_error_kind, '') in ('lost', 'user-rejected'))",
            team,
            token,
            refused
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
