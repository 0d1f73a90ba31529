//! Sessions: for jobs that outlive their own token.

use time::OffsetDateTime;

use super::{Broker, BrokerError};
use crate::{
    actor::Actor,
    identity::{Caller, Grant, Held, MatchedRule, Opaque, OpaqueKind, Refusal, Team},
    store::{GivenUp, NewSession},
};

/// A session that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The credential, in clear this once.
    pub credential: String,
    /// Seconds.
    pub expires_in: i32,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// What it gives, rule by rule.
    pub grants: Vec<Grant>,
}

impl Broker {
    /// Turns a CI identity into a session with what its rules in `team` give; those that allow no session give nothing.
    ///
    /// # Errors
    /// The caller is no CI identity, no rule of it allows a session, or Postgres.
    pub async fn begin_session(&self, caller: &Caller, team: &Team, actor: &Actor) -> Result<Begun, BrokerError> {
        let forbidden = |why: &str| BrokerError::Refused(Refusal::Forbidden(why.to_owned()));
        let (Held::Identity(_), Some(own)) = (caller.held(), caller.membership().filter(|own| own.team == *team)) else {
            return Err(forbidden("only a CI identity that a trust rule of the team lets in begins a session"));
        };
        let given = own.rules.iter().zip(&own.grants.0).filter(|(rule, _)| rule.session_max > 0);
        let (rules, grants): (Vec<&MatchedRule>, Vec<Grant>) = given.map(|(rule, grant)| (rule, grant.clone())).unzip();
        let Some(expires_in) = rules.iter().map(|rule| rule.session_max).min() else {
            return Err(forbidden("no trust rule that lets this identity in allows a session: see session_max"));
        };
        if self.store.team_is_locked_down(team.id).await? {
            return Err(BrokerError::LockedDown);
        }
        let (credential, made) = Opaque::generate(OpaqueKind::Session);
        let rules = rules.iter().map(|rule| rule.id).collect();
        let session = NewSession { public_id: made.public_id, sha256: made.sha256, rules, expires_in };
        let kept = self.store.create_session(team.id, &session, actor).await?;
        let expires_at = kept.ok_or(BrokerError::CredentialGone)?;
        Ok(Begun { credential, expires_in, expires_at, grants })
    }

    /// Ends the session that the caller holds; with `give_back` the child tokens that it was issued are revoked too.
    ///
    /// # Errors
    /// The caller holds none, or Postgres.
    pub async fn end_session(&self, caller: &Caller, give_back: bool, actor: &Actor) -> Result<(), BrokerError> {
        let (Held::Session(id), Some(team)) = (caller.held(), caller.team()) else {
            let why = "this credential is no session: there is nothing to end".to_owned();
            return Err(Refusal::Forbidden(why).into());
        };
        let own = GivenUp { credential: Some(caller.credential()), ..GivenUp::default() };
        if give_back {
            self.store.give_up_children(team.id, &own, actor).await?;
        }
        // Ended meanwhile is ended.
        self.store.delete_session(team.id, id, actor).await?;
        // Once more, for what was issued up to its end; not only now, because whoever must repeat it has no session any more.
        if give_back {
            self.store.give_up_children(team.id, &own, actor).await?;
        }
        Ok(())
    }
}
