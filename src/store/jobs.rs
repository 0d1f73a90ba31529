//! What the background worker takes.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum JobKind {
    /// Find out what became of an attempt, and mend the token.
    Settle,
    /// Delete what an attempt in the dark may have left at JFrog.
    Sweep,
    /// Rotate long before anything expires, and notice a user who was disabled.
    KeepAlive,
    /// Tell JFrog of child tokens that were given up.
    Revoke,
    /// Make both chains anew, for a lockdown, and revoke what was handed out.
    Renew,
    /// Tell a webhook. The subject is the notice.
    Webhook,
    /// Close what was written to the audit since. The subject is nil: there is one such job.
    CloseAudit,
    /// Rotate a data key and seal its rows anew. The subject is the team; nil: wrap all keys by another master key.
    Reseal,
}

impl JobKind {
    /// As it is stored. Sent as text: the type of an enum is looked up by each connection first.
    fn as_str(self) -> &'static str {
        match self {
            Self::Settle => "settle",
            Self::Sweep => "sweep",
            Self::KeepAlive => "keep-alive",
            Self::Revoke => "revoke",
            Self::Renew => "renew",
            Self::Webhook => "webhook",
            Self::CloseAudit => "close-audit",
            Self::Reseal => "reseal",
        }
    }
}

/// Which places of the worker a job takes: ten thousand errands must not stand before one token in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What keeps tokens alive. The subject is a token.
    Tokens,
    /// What tells webhooks: others' servers, which may hang.
    Notices,
    /// Everything else.
    Errands,
}

impl Lane {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Notices => "notices",
            Self::Errands => "errands",
        }
    }
}

/// A job taken: nobody else takes it before `held_until`.
#[derive(Clone, Debug)]
pub struct Job {
    /// What.
    pub kind: JobKind,
    /// With what: a token, for the lane of tokens.
    pub subject: Uuid,
    /// The token's team; `None`: the token is gone, or the subject is none.
    pub team_id: Option<Uuid>,
    /// How often in a row it could not be done.
    pub failures: i32,
    /// When it becomes due again by itself.
    pub held_until: OffsetDateTime,
}

/// A job that is to be tried again.
#[derive(Clone, Debug)]
pub(super) struct Postponed {
    job: Job,
    delay: Duration,
    failures: i32,
}

impl Store {
    /// Takes up to `limit` due jobs of a lane, each for `hold`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn take_jobs(&self, lane: Lane, limit: i64, hold: Duration) -> Result<Vec<Job>> {
        Ok(sqlx::query_as!(
            Job,
            r#"with due as (
                   select kind, subject from jobs
                   where due_at <= now() and case when kind in ('settle', 'sweep', 'keep-alive') then 'tokens'
                                                  when kind = 'webhook' then 'notices' else 'errands' end = $3
                   order by due_at limit $1 for update skip locked)
               update jobs set due_at = now() + make_interval(secs => $2)
               from due where jobs.kind = due.kind and jobs.subject = due.subject
               returning jobs.kind as "kind!: JobKind", jobs.subject, team_of_token(jobs.subject) as team_id,
                         jobs.failures, jobs.due_at as held_until"#,
            limit,
            hold.as_secs_f64(),
            lane.as_str()
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The job is done, unless someone has scheduled it anew meanwhile.
    ///
    /// # Errors
    /// Postgres.
    pub async fn finish_job(&self, job: &Job) -> Result<()> {
        sqlx::query!(
            "delete from jobs where kind = $1 and subject = $2 and due_at = $3",
            job.kind.as_str(),
            job.subject,
            job.held_until
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The job is tried again after `delay`, having failed so often, unless someone has scheduled it anew meanwhile. Together with
    /// those that are postponed meanwhile.
    ///
    /// # Errors
    /// Postgres.
    pub async fn postpone_job(&self, job: &Job, delay: Duration, failures: i32) -> Result<()> {
        let (postponed, pool) = (Postponed { job: job.clone(), delay, failures }, self.pool.clone());
        self.postponed.ask(Uuid::nil(), postponed, move |all| postpone_all(pool.clone(), all)).await
    }

    /// Makes a job due after `delay`, or at the earlier time it already has; a sweep at the later: it must not come too soon.
    ///
    /// # Errors
    /// Postgres.
    pub async fn schedule(&self, kind: JobKind, subject: Uuid, delay: Duration) -> Result<()> {
        sqlx::query!(
            "insert into jobs (kind, subject, due_at) values ($1, $2, now() + make_interval(secs => $3))
             on conflict on constraint jobs_pkey do update set failures = 0, due_at = case when jobs.kind = 'sweep'
                 then greatest(jobs.due_at, excluded.due_at) else least(jobs.due_at, excluded.due_at) end",
            kind.as_str(),
            subject,
            delay.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

async fn postpone_all(pool: PgPool, all: Vec<Postponed>) -> Result<Vec<()>> {
    let done = vec![(); all.len()];
    let kinds: Vec<&str> = all.iter().map(|one| one.job.kind.as_str()).collect();
    let subjects: Vec<Uuid> = all.iter().map(|one| one.job.subject).collect();
    let held: Vec<OffsetDateTime> = all.iter().map(|one| one.job.held_until).collect();
    let delays: Vec<f64> = all.iter().map(|one| one.delay.as_secs_f64()).collect();
    let failures: Vec<i32> = all.iter().map(|one| one.failures).collect();
    sqlx::query!(
        "with held as (
             select j.kind, j.subject, postponed.delay, postponed.failures
             from unnest($1::text[], $2::uuid[], $3::timestamptz[], $4::float8[], $5::int4[])
                  as postponed (kind, subject, held_until, delay, failures),
                  lateral (select kind, subject from jobs
                           where kind = postponed.kind and subject = postponed.subject and due_at = postponed.held_until
                           -- Whoever has it schedules it anew, or removes it. It waits for nobody, so nobody can wait for it in a circle.
                           for update skip locked) j)
         update jobs set due_at = now() + make_interval(secs => held.delay), failures = held.failures
         from held where jobs.kind = held.kind and jobs.subject = held.subject",
        &kinds as _,
        &subjects,
        &held,
        &delays,
        &failures
    )
    .execute(&pool)
    .await?;
    Ok(done)
}
