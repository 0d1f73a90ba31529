//! The caller: made only by authentication, asked by the broker before every flow.

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conditions, Identity,
    grant::{Action, Grants, Role},
};
use crate::{actor::Actor, crypto, names::Name, store::Claims};

/// A team, as a caller belongs to it or has named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Internal id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// What a caller is in one team.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The team.
    pub team: Team,
    /// What it gives.
    pub grants: Grants,
    /// The trust rules that a CI identity matches there; none of a key's.
    pub rules: Vec<MatchedRule>,
}

/// A trust rule that lets a CI identity in.
#[derive(Clone, Debug)]
pub struct MatchedRule {
    /// Its id at the time.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Longest session, seconds; 0: none.
    pub session_max: i32,
    /// Each JWT is good for one call.
    pub single_use: bool,
    /// Nobody was let in by it before, as far as is known: it learns from who comes.
    pub(super) first_use: Option<FirstUse>,
}

/// What a rule learns from the first who comes.
#[derive(Clone, Debug)]
pub(super) struct FirstUse {
    /// The rule's.
    pub conditions: Arc<Conditions>,
    /// Ids that never change.
    pub to_pin: Claims,
}

/// What was presented, so that it can be verified once more.
#[derive(Clone, Debug)]
pub enum Held {
    /// An API key, by its public id.
    Key(String),
    /// A session, by its public id.
    Session(String),
    /// A JWT of a trusted issuer.
    Identity(Arc<Identity>),
}

/// Who holds a credential that was verified. Private fields: nothing outside this module can make one up.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) name: String,
    pub(super) recognised_by: serde_json::Value,
    pub(super) memberships: Vec<Membership>,
    pub(super) platform_admin: bool,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) held: Held,
    pub(super) sha256: [u8; 32],
}

/// Why a verified caller may not. Precise: for the audit; the caller itself is told less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The thing is another team's, or not covered by the grant: to the caller it does not exist.
    #[error("{0}")]
    Invisible(String),
    /// The thing is visible, and the role may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The caller has several teams and named none.
    #[error("the caller belongs to no single team: name one with ?team=")]
    TeamRequired,
}

impl Caller {
    /// As the audit writes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the caller was recognised; of a CI identity with the rules that let it in.
    pub fn recognised_by(&self) -> serde_json::Value {
        let mut recognised = self.recognised_by.clone();
        if let (Some(membership), Held::Identity(_)) = (self.membership(), &self.held) {
            recognised["rules"] = membership.rules.iter().map(|rule| rule.name.as_str()).collect();
        }
        recognised
    }

    /// Its team; `None` for a platform admin, and for a CI identity with several that named none.
    pub fn team(&self) -> Option<&Team> {
        self.membership().map(|membership| &membership.team)
    }

    /// Everywhere it is let in.
    pub fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// What it is in its only team.
    pub fn membership(&self) -> Option<&Membership> {
        if let [only] = self.memberships.as_slice() { Some(only) } else { None }
    }

    /// The same caller in one of its teams; unchanged where that is none of them.
    #[must_use]
    pub fn in_team(&self, name: &str) -> Self {
        let mut caller = self.clone();
        if caller.may_be_about(name) {
            caller.memberships.retain(|membership| membership.team.name == name);
        }
        caller
    }

    /// Whether it is let in by the team of this name, or by all.
    pub(super) fn may_be_about(&self, team: &str) -> bool {
        self.platform_admin || self.memberships.iter().any(|membership| membership.team.name == team)
    }

    /// Its strongest role.
    pub fn role(&self) -> Option<Role> {
        if self.platform_admin { Some(Role::PlatformAdmin) } else { self.membership()?.grants.role() }
    }

    /// Its role for one token; `None`: not covered.
    pub fn role_for(&self, token: &str) -> Option<Role> {
        if self.platform_admin { Some(Role::PlatformAdmin) } else { self.membership()?.grants.role_for(token) }
    }

    /// When its credential ends.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// Whether it is of the platform.
    pub fn is_platform_admin(&self) -> bool {
        self.platform_admin
    }

    /// What was presented.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whose requests are counted together: a key's, or a job's, which may be given any number of JWTs and sessions.
    pub fn counted_as(&self) -> [u8; 32] {
        match self.held {
            Held::Key(_) => self.sha256,
            // The name alone may be that of another issuer's job.
            Held::Identity(_) => self.counted_by(&self.recognised_by["issuer"]),
            Held::Session(_) => self.counted_by(&self.recognised_by["begun_by"]["issuer"]),
        }
    }

    fn counted_by(&self, issuer: &serde_json::Value) -> [u8; 32] {
        crypto::sha256(format!("{issuer} {}", self.name).as_bytes())
    }

    /// Which credential it is, for what was issued to it: a key, a session, or a job with whatever JWT.
    pub fn credential(&self) -> String {
        match &self.held {
            Held::Key(id) => format!("key:{id}"),
            Held::Session(id) => format!("session:{id}"),
            Held::Identity(_) => {
                let mut job = self.recognised_by.clone();
                if let Some(claims) = job["claims"].as_object_mut() {
                    claims.remove("jti");
                }
                format!("job:{}", crypto::fingerprint(&format!("{} {job}", self.name)))
            }
        }
    }

    /// For the audit.
    pub fn actor(&self, request_id: Option<String>, address: Option<String>) -> Actor {
        Actor { name: self.name.clone(), recognised_by: self.recognised_by(), request_id, address }
    }

    /// Whether the caller may do this in `team`, and with `token` where one is meant.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn authorise(&self, action: Action, team: &Team, token: Option<&Name>) -> Result<(), Refusal> {
        if self.platform_admin {
            return Ok(());
        }
        if self.team() != Some(team) {
            return Err(Refusal::Invisible(format!("{} does not belong to team {}", self.name, team.name)));
        }
        let (role, why) = match token {
            None => (self.role(), format!("{} has no grant", self.name)),
            Some(token) => (self.role_for(token.as_str()), format!("the grant of {} does not cover token {token}", self.name)),
        };
        let role = role.ok_or(Refusal::Invisible(why))?;
        if role.allows(action) { Ok(()) } else { Err(Refusal::Forbidden(format!("role {} may not do this", role.as_str()))) }
    }

    /// Whether the caller may do this to the platform.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn authorise_platform(&self) -> Result<(), Refusal> {
        if self.platform_admin { Ok(()) } else { Err(Refusal::Forbidden(format!("{} is no platform admin", self.name))) }
    }
}
