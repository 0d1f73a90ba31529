//! Audit rows of what changed nothing: refusals. What changed something is audited by the statement that changed it.

use sqlx::types::Json;
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
}
