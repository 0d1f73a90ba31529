//! The people and machines that have tokens.

use serde::{Deserialize, Serialize};

/// One user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) admin: bool,
    pub(super) groups: Vec<String>,
    pub(super) disabled: bool,
    pub(super) locked: bool,
    /// Refused bearers since the last good one.
    pub(super) bad_bearers: u32,
}

/// Why a scope is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScopeRefused {
    /// No such scope: 400.
    Unknown,
    /// More than the user may have: 403.
    TooWide,
}

impl User {
    /// Whether the user, with a bearer of scope `bearer`, may have a token of scope `asked`.
    pub(super) fn may_have(&self, asked: &str, bearer: &str) -> Result<(), ScopeRefused> {
        let admin = self.is_admin_with(bearer);
        for scope in asked.split_whitespace() {
            let (kind, rest) = scope.split_once(['/', ':']).ok_or(ScopeRefused::Unknown)?;
            let allowed = match (kind, rest) {
                ("applied-permissions", "user") => true,
                ("applied-permissions", "admin") => admin,
                ("applied-permissions", rest) if rest.starts_with("groups:") => {
                    admin || rest["groups:".len()..].split(',').all(|g| self.is_in(g))
                }
                ("applied-permissions", rest) if rest.starts_with("roles:") => admin,
                // A user's own permissions on paths are not modelled: any path may be asked for.
                ("artifact", _) => true,
                ("system", _) => admin,
                _ => return Err(ScopeRefused::Unknown),
            };
            if !allowed {
                return Err(ScopeRefused::TooWide);
            }
        }
        Ok(())
    }

    /// A token narrowed to groups is no administrator's, whoever its user is.
    pub(super) fn is_admin_with(&self, bearer: &str) -> bool {
        let scopes = ["applied-permissions/user", "applied-permissions/admin"];
        self.admin && bearer.split_whitespace().any(|s| scopes.contains(&s))
    }

    fn is_in(&self, group: &str) -> bool {
        let group = group.trim_matches('"');
        self.groups.iter().any(|own| own == group)
    }
}
