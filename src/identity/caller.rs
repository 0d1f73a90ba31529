//! The caller: made only by authentication, asked by the broker before every flow.

use time::OffsetDateTime;
use uuid::Uuid;

use super::grant::{Action, Grant, Role};
use crate::{actor::Actor, names::Name};

/// A team, as a caller belongs to it or has named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Internal id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// Who holds a credential that was verified. Private fields: nothing outside this module can make one up.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) name: String,
    pub(super) recognised_by: serde_json::Value,
    pub(super) team: Option<Team>,
    pub(super) grant: Grant,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) key_id: String,
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

    /// How the caller was recognised.
    pub fn recognised_by(&self) -> &serde_json::Value {
        &self.recognised_by
    }

    /// Its team; `None` for a platform admin.
    pub fn team(&self) -> Option<&Team> {
        self.team.as_ref()
    }

    /// Its grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// When its credential ends.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// Whether it is of the platform.
    pub fn is_platform_admin(&self) -> bool {
        self.grant.role == Role::PlatformAdmin
    }

    /// For the audit.
    pub fn actor(&self, request_id: Option<String>, address: Option<String>) -> Actor {
        Actor { name: self.name.clone(), recognised_by: self.recognised_by.clone(), request_id, address }
    }

    /// Whether the caller may do this in `team`, and with `token` where one is meant.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn authorise(&self, action: Action, team: &Team, token: Option<&Name>) -> Result<(), Refusal> {
        if self.is_platform_admin() {
            return Ok(());
        }
        if self.team.as_ref() != Some(team) {
            return Err(Refusal::Invisible(format!("{} does not belong to team {}", self.name, team.name)));
        }
        if let Some(token) = token.filter(|token| !self.grant.covers(token.as_str())) {
            return Err(Refusal::Invisible(format!("the grant of {} does not cover token {token}", self.name)));
        }
        self.require_role(action)
    }

    /// Whether the caller may do this to the platform.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn authorise_platform(&self) -> Result<(), Refusal> {
        self.require_role(Action::ManagePlatform)
    }

    fn require_role(&self, action: Action) -> Result<(), Refusal> {
        let role = self.grant.role;
        if role.allows(action) { Ok(()) } else { Err(Refusal::Forbidden(format!("role {} may not do this", role.as_str()))) }
    }
}
