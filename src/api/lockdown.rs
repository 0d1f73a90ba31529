//! Lockdowns as they are asked for and shown, for one token and for a whole team.

use axum::{
    Json as Answer,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{ApiState, caller::Authenticated, problem::Problem, validation::Validation};
use crate::{
    broker::{self, Scope},
    identity::Team,
};

/// Longest reason, characters.
const REASON: usize = 500;

/// Why, and how far; all of it may be absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LockDown {
    /// For people: in the audit and in webhooks.
    #[schema(example = "token in a public build log")]
    reason: Option<String>,
    /// Whether both chains are made anew and whatever was handed out before is revoked, in the background; absent: no.
    /// It breaks running jobs.
    #[schema(example = true)]
    renew: Option<bool>,
}

/// `?dry_run=`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DryRun {
    /// `true`: nothing is locked down; the answer says what would be hit.
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}

/// What a lockdown would hit, from a dry run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WouldHit {
    /// Always `true`: nothing was locked down.
    dry_run: bool,
    /// Tokens that would not be handed out.
    #[schema(example = 1)]
    tokens: i64,
    /// Child tokens that would be revoked.
    #[schema(example = 12)]
    children: i64,
    /// Keys that would be handed nothing, by name.
    #[schema(example = json!(["ci", "nightly"]))]
    keys: Vec<String>,
    /// Trust rules whose jobs would be handed nothing, by name.
    #[schema(example = json!(["deploy-main"]))]
    rules: Vec<String>,
    /// Sessions that would be handed nothing.
    #[schema(example = 3)]
    sessions: i64,
}

/// A lockdown as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lockdown {
    #[schema(example = "token in a public build log")]
    reason: String,
    /// Whether both chains are made anew.
    renew: bool,
    /// Begun by a platform admin, who alone ends it.
    by_platform: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[schema(example = "key:payments/admin")]
    created_by: String,
    /// Tokens whose chains are still to be made anew, by name; the first 200.
    #[schema(example = json!([]))]
    renewing: Vec<String>,
    /// Child tokens that JFrog has not confirmed to be gone; tried again until they are, or have expired.
    #[schema(example = 0)]
    unrevoked: i64,
    /// The newest 200 of these.
    children: Vec<Unrevoked>,
}

/// A child token that is not revoked yet.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unrevoked {
    /// JFrog's id; `null`: its answer was lost, it is looked for.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// Why the last try did not reach it; `null`: none yet.
    #[schema(example = json!(null))]
    last_error: Option<String>,
}

impl From<broker::Lockdown> for Lockdown {
    fn from(lockdown: broker::Lockdown) -> Self {
        let row = lockdown.row;
        let child = |child: crate::store::ChildRow| Unrevoked {
            token_id: child.jfrog_token_id,
            expires_at: child.expires_at,
            last_error: child.last_error,
        };
        Self {
            reason: row.reason,
            renew: row.renew,
            by_platform: row.by_platform,
            created_at: row.created_at,
            created_by: row.created_by,
            renewing: row.renewing,
            unrevoked: lockdown.unrevoked,
            children: lockdown.shown.into_iter().map(child).collect(),
        }
    }
}

/// Locks down, or says what that would hit.
pub(super) async fn lock_down(
    state: &ApiState,
    who: &Authenticated,
    (team, scope): (&Team, &Scope),
    dry_run: bool,
    asked: LockDown,
) -> Result<Response, Problem> {
    Validation::default().text("reason", asked.reason.as_deref(), REASON).done()?;
    if dry_run {
        let hit = state.broker.would_hit(&who.caller, team, scope).await?;
        let broker::Hit { tokens, children, keys, rules, sessions } = hit;
        return Ok(Answer(WouldHit { dry_run, tokens, children, keys, rules, sessions }).into_response());
    }
    let how = (asked.reason.unwrap_or_default(), asked.renew.unwrap_or(false));
    let lockdown = state.broker.lock_down(&who.caller, team, scope, how, &who.actor).await?;
    Ok((StatusCode::CREATED, Answer(Lockdown::from(lockdown))).into_response())
}
