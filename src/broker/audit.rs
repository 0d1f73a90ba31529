//! The audit, read.

use uuid::Uuid;

use super::{Broker, BrokerError};
use crate::{
    identity::{Action, Caller},
    names::TokenPattern,
    store::{AuditFilter, AuditRow},
};

impl Broker {
    /// A page of the audit of a team, the newest first: the caller's own, or the one it names. A platform admin who names none
    /// reads the platform's. An admin of some tokens reads what is about these; what is about no token is for admins of all.
    ///
    /// # Errors
    /// The caller may not, there is no such team, or Postgres.
    pub async fn audit_events(
        &self,
        caller: &Caller,
        team: Option<&str>,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditRow>, BrokerError> {
        if caller.is_platform_admin() && team.is_none() {
            return Ok(self.store.audit_events(Uuid::nil(), None, None, filter, limit).await?);
        }
        let team = self.team_for(caller, team).await?;
        caller.authorise(Action::ReadAudit, &team, None)?;
        let tokens = readable(caller);
        Ok(self.store.audit_events(team.id, Some(&team.name), tokens.as_deref(), filter, limit).await?)
    }
}

/// The tokens that the caller may read about, as `like` patterns; `None`: everything.
fn readable(caller: &Caller) -> Option<Vec<String>> {
    if caller.is_platform_admin() {
        return None;
    }
    let patterns = caller.membership().map(|own| own.grants.tokens_for(Action::ReadAudit)).unwrap_or_default();
    let all = patterns.iter().any(|pattern| TokenPattern::all().is_within(pattern));
    (!all).then(|| patterns.iter().map(TokenPattern::like).collect())
}
