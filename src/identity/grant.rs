//! Grants: a role, and the tokens it is for. Pure.

use serde::{Deserialize, Serialize};

use crate::names::TokenPattern;

/// What a caller is, in its team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A pipeline: refreshes and reads the tokens it names.
    Ci,
    /// Reads.
    Viewer,
    /// Everything in its team.
    Admin,
    /// Everything. Belongs to no team.
    PlatformAdmin,
}

impl Role {
    /// As it is written in requests, answers and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
            Self::PlatformAdmin => "platform-admin",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ci, Self::Viewer, Self::Admin, Self::PlatformAdmin].into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role may do this at all.
    pub fn allows(self, action: Action) -> bool {
        match action {
            Action::ReadToken => true,
            Action::Refresh => self != Self::Viewer,
            Action::ReadTeam | Action::ManageTokens | Action::ManageKeys => matches!(self, Self::Admin | Self::PlatformAdmin),
            Action::ManagePlatform => self == Self::PlatformAdmin,
        }
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// See a registration; never a secret.
    ReadToken,
    /// Be handed an access token.
    Refresh,
    /// Register, change, recreate, delete.
    ManageTokens,
    /// See the team itself.
    ReadTeam,
    /// Make, list and delete the team's keys.
    ManageKeys,
    /// Teams and platform keys.
    ManagePlatform,
}

/// A role with token patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Which tokens of the team: any of these.
    pub tokens: Vec<TokenPattern>,
}

impl Grant {
    /// Whether the token of this name is covered.
    pub fn covers(&self, token: &str) -> bool {
        self.tokens.iter().any(|pattern| pattern.matches(token))
    }

    /// Whether this grant gives nothing that `creator` does not have: what may be handed on.
    pub fn is_within(&self, creator: &Grant) -> bool {
        let role = match creator.role {
            Role::PlatformAdmin | Role::Admin => self.role != Role::PlatformAdmin,
            role => role == self.role,
        };
        role && self.tokens.iter().all(|own| creator.tokens.iter().any(|theirs| own.is_within(theirs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, patterns: &[&str]) -> Grant {
        let tokens = patterns.iter().map(|text| TokenPattern::try_from((*text).to_owned()).expect("a pattern"));
        Grant { role, tokens: tokens.collect() }
    }

    #[test]
    fn a_grant_hands_on_no_more_than_it_has() {
        let admin = grant(Role::Admin, &["deploy-*"]);
        assert!(grant(Role::Ci, &["deploy-a", "deploy-*-b"]).is_within(&admin));
        assert!(grant(Role::Admin, &["deploy-*"]).is_within(&admin));
        assert!(!grant(Role::Ci, &["*"]).is_within(&admin));
        assert!(!grant(Role::Ci, &["deploy-a", "other"]).is_within(&admin));
        assert!(!grant(Role::PlatformAdmin, &["deploy-a"]).is_within(&admin));
        assert!(!grant(Role::PlatformAdmin, &["*"]).is_within(&grant(Role::PlatformAdmin, &["*"])), "not under a team");
        assert!(!grant(Role::Admin, &["deploy-a"]).is_within(&grant(Role::Ci, &["*"])));
    }

    #[test]
    fn no_pattern_covers_nothing() {
        assert!(!grant(Role::Admin, &[]).covers("x"));
    }
}
