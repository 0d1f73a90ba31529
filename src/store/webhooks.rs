//! Webhooks, and the notices that they are still to be told. Notices are written by triggers (see the migration).

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::{actor::Actor, secret::Sealed};

/// A webhook to be kept.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Its row.
    pub id: Uuid,
    /// Unique in its team.
    pub name: String,
    /// Scheme, host and port of its URL.
    pub origin: String,
    /// Its URL and its signing secret.
    pub target: Sealed,
    /// What it is told.
    pub events: Vec<String>,
}

/// A webhook as it is listed.
#[derive(Clone, Debug)]
pub struct WebhookRow {
    /// Its name.
    pub name: String,
    /// Scheme, host and port of its URL.
    pub origin: String,
    /// What it is told.
    pub events: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
    /// When it last took a notice.
    pub told_at: Option<OffsetDateTime>,
    /// When it last did not.
    pub last_error_at: Option<OffsetDateTime>,
    /// Why not.
    pub last_error: Option<String>,
    /// Notices that it has not taken yet.
    pub waiting: i64,
}

/// Something that a webhook is to be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The same at each try.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Its team's name.
    pub team_name: String,
    /// Who is told.
    pub webhook_id: Uuid,
    /// What happened.
    pub event: String,
    /// To what.
    pub data: serde_json::Value,
    /// When.
    pub at: OffsetDateTime,
    /// Sealed.
    pub target: Sealed,
    /// Too old to be told any more.
    pub overdue: bool,
    /// Postgres' clock.
    pub now: OffsetDateTime,
}

impl Store {
    /// Keeps a webhook. `None`: the team has `most` already.
    ///
    /// # Errors
    /// `Taken("webhooks_name_key")`, or Postgres.
    pub async fn create_webhook(&self, team: Uuid, new: &NewWebhook, most: i64, actor: &Actor) -> Result<Option<WebhookRow>> {
        Ok(sqlx::query_as!(
            WebhookRow,
            r#"with made as (
                   insert into webhooks (id, team_id, name, origin, target, events, created_by)
                   select $2, $1, $3, $4, $5, $6, $7::jsonb->>'name'
                   where (select in_team($1)) and (select count(*) from webhooks where (select in_team($1))) < $8
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.team_id, $7->>'name', $7->'recognised_by', 'webhook.create', 'done', $7->>'request_id', $7->>'address',
                          jsonb_build_object('webhook', made.name, 'origin', made.origin, 'events', made.events)
                   from made)
               select name, origin, events, created_at, created_by, told_at, last_error_at, last_error, 0::bigint as "waiting!" from made"#,
            team,
            new.id,
            new.name,
            new.origin,
            new.target.as_bytes(),
            &new.events,
            Json(actor) as _,
            most
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The webhook of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn webhook(&self, team: Uuid, name: &str) -> Result<Option<WebhookRow>> {
        Ok(sqlx::query_as!(
            WebhookRow,
            r#"select name, origin, events, created_at, created_by, told_at, last_error_at, last_error,
                      (select count(*) from webhook_notices n where (select in_team($1)) and n.webhook_id = w.id) as "waiting!"
               from webhooks w where (select in_team($1)) and name = $2"#,
            team,
            name
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// A page of webhooks by name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_webhooks(&self, team: Uuid, after: &str, limit: i64) -> Result<Vec<WebhookRow>> {
        Ok(sqlx::query_as!(
            WebhookRow,
            r#"select name, origin, events, created_at, created_by, told_at, last_error_at, last_error,
                      (select count(*) from webhook_notices n where (select in_team($1)) and n.webhook_id = w.id) as "waiting!"
               from webhooks w where (select in_team($1)) and name > $2 order by name limit $3"#,
            team,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Deletes a webhook with what it was still to be told. `false`: there is none of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn delete_webhook(&self, team: Uuid, name: &str, actor: &Actor) -> Result<bool> {
        let deleted = sqlx::query_scalar!(
            r#"with gone as (
                   delete from webhooks where (select in_team($1)) and name = $2 returning id, team_id, name),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select gone.team_id, $3::jsonb->>'name', $3->'recognised_by', 'webhook.delete', 'done', $3->>'request_id',
                          $3->>'address', jsonb_build_object('webhook', gone.name)
                   from gone)
               select id from gone"#,
            team,
            name,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(deleted.is_some())
    }

    /// Writes a notice that is only a test, unless one is still to be told: notices wait for one another.
    ///
    /// # Errors
    /// Postgres.
    pub async fn test_webhook(&self, team: Uuid, name: &str, actor: &Actor) -> Result<()> {
        sqlx::query!(
            r#"with told as (
                   insert into webhook_notices (id, team_id, webhook_id, event, data)
                   select gen_random_uuid(), w.team_id, w.id, 'webhook.test', '{}' from webhooks w where (select in_team($1)) and w.name = $2
                     and not exists (select 1 from webhook_notices n where n.webhook_id = w.id and n.event = 'webhook.test')
                   returning id, team_id),
               scheduled as (insert into jobs (kind, subject, due_at) select 'webhook', told.id, now() from told),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select told.team_id, $3::jsonb->>'name', $3->'recognised_by', 'webhook.test', 'done', $3->>'request_id',
                          $3->>'address', jsonb_build_object('webhook', $2::text)
                   from told)
               select from told"#,
            team,
            name,
            Json(actor) as _
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The notice of a job. `None`: it was told, or its webhook is gone.
    ///
    /// # Errors
    /// Postgres.
    pub async fn webhook_notice(&self, id: Uuid) -> Result<Option<Notice>> {
        let row = sqlx::query!(
            r#"select id as "id!", team_id as "team_id!", team_name as "team_name!", webhook_id as "webhook_id!", event as "event!",
                      data as "data!", at as "at!", target as "target!", overdue as "overdue!", now as "now!"
               from webhook_notice($1)"#,
            id
        );
        Ok(row.fetch_optional(&self.pool).await?.map(|row| Notice {
            id: row.id,
            team_id: row.team_id,
            team_name: row.team_name,
            webhook_id: row.webhook_id,
            event: row.event,
            data: row.data,
            at: row.at,
            target: Sealed::from_bytes(row.target),
            overdue: row.overdue,
            now: row.now,
        }))
    }

    /// The webhook took the notice.
    ///
    /// # Errors
    /// Postgres: it is told once more.
    pub async fn notice_taken(&self, notice: &Notice) -> Result<()> {
        sqlx::query!(
            "with told as (delete from webhook_notices where (select in_team($1)) and id = $2)
             update webhooks set told_at = now(), last_error_at = null, last_error = null where (select in_team($1)) and id = $3",
            notice.team_id,
            notice.id,
            notice.webhook_id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The webhook did not take the notice; one that is overdue is given up, and the audit says so.
    ///
    /// # Errors
    /// Postgres.
    pub async fn notice_not_taken(&self, notice: &Notice, why: &str, actor: &Actor) -> Result<()> {
        sqlx::query!(
            "with given_up as (delete from webhook_notices where (select in_team($1)) and id = $2 and $5 returning team_id, event),
             noted as (
                 update webhooks set last_error_at = now(), last_error = $4 where (select in_team($1)) and id = $3 returning name)
             insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, detail)
             select given_up.team_id, $6::jsonb->>'name', $6->'recognised_by', 'webhook.tell', 'failed', $4,
                    jsonb_build_object('webhook', noted.name, 'event', given_up.event, 'notice', $2::uuid)
             from given_up, noted",
            notice.team_id,
            notice.id,
            notice.webhook_id,
            why,
            notice.overdue,
            Json(actor) as _
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Tells webhooks that the token's current generation is close to its expiry and could not be rotated; once for each.
    ///
    /// # Errors
    /// Postgres.
    pub async fn note_deadline(&self, team: Uuid, token: Uuid) -> Result<()> {
        sqlx::query!(
            "update tokens set deadline_told = generation where (select in_team($1)) and id = $2 and deadline_told <> generation",
            team,
            token
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
