//! Grants: a role, and the tokens it is for. Pure.

use serde::{Deserialize, Serialize};

use crate::names::TokenPattern;

/// What a caller is, in its team. In the order of what they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// A pipeline: refreshes and reads the tokens it names.
    Ci,
    /// Everything in its team.
    Admin,
    /// Everything. Belongs to no team.
    PlatformAdmin,
}

impl Role {
    const ALL: [Self; 4] = [Self::Viewer, Self::Ci, Self::Admin, Self::PlatformAdmin];

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
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role may do this at all.
    pub fn allows(self, action: Action) -> bool {
        match action {
            Action::ReadToken => true,
            Action::Refresh => self != Self::Viewer,
            Action::ReadTeam | Action::ReadAudit | Action::ManageTokens | Action::ManageKeys => self >= Self::Admin,
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
    /// See who did what in the team, and why something was refused.
    ReadAudit,
    /// Make, list and delete the team's keys and trust rules.
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
    /// As it was stored. The columns have checks on exactly what this reads; what it does not know gives the least.
    pub fn stored(role: &str, tokens: Vec<String>) -> Self {
        Self {
            role: Role::parse(role).unwrap_or(Role::Viewer),
            tokens: tokens.into_iter().filter_map(|text| TokenPattern::try_from(text).ok()).collect(),
        }
    }

    /// Whether the token of this name is covered.
    pub fn covers(&self, token: &str) -> bool {
        self.tokens.iter().any(|pattern| pattern.matches(token))
    }
}

/// What a caller has: one grant by an API key, one for each rule that a CI identity matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Grant>);

impl Grants {
    /// The role for the token of this name; `None`: it is not covered.
    pub fn role_for(&self, token: &str) -> Option<Role> {
        self.0.iter().filter(|grant| grant.covers(token)).map(|grant| grant.role).max()
    }

    /// The strongest role, whatever tokens it is for.
    pub fn role(&self) -> Option<Role> {
        self.0.iter().map(|grant| grant.role).max()
    }

    /// Every token pattern, once.
    pub fn tokens(&self) -> Vec<TokenPattern> {
        Self::patterns(self.0.iter())
    }

    /// The patterns of the tokens with which this may be done: a role for one token is none for another.
    pub fn tokens_for(&self, action: Action) -> Vec<TokenPattern> {
        Self::patterns(self.0.iter().filter(|grant| grant.role.allows(action)))
    }

    fn patterns<'a>(grants: impl Iterator<Item = &'a Grant>) -> Vec<TokenPattern> {
        let mut tokens: Vec<TokenPattern> = Vec::new();
        for pattern in grants.flat_map(|grant| &grant.tokens) {
            if !tokens.contains(pattern) {
                tokens.push(pattern.clone());
            }
        }
        tokens
    }

    /// Whether `new` gives nothing that these do not have: what may be handed on, under a team. Sound, not complete: each of its
    /// patterns must be within one of ours.
    pub fn may_hand_on(&self, new: &Grant) -> bool {
        let within = |pattern: &TokenPattern| {
            self.0.iter().any(|own| own.role >= new.role && own.tokens.iter().any(|wider| pattern.is_within(wider)))
        };
        new.role != Role::PlatformAdmin && self.0.iter().any(|own| own.role >= new.role) && new.tokens.iter().all(within)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(role: Role, patterns: &[&str]) -> Grant {
        let tokens = patterns.iter().map(|text| TokenPattern::try_from((*text).to_owned()).expect("a pattern"));
        Grant { role, tokens: tokens.collect() }
    }

    fn grants(role: Role, patterns: &[&str]) -> Grants {
        Grants(vec![grant(role, patterns)])
    }

    #[test]
    fn a_grant_hands_on_no_more_than_it_has() {
        let admin = grants(Role::Admin, &["deploy-*"]);
        assert!(admin.may_hand_on(&grant(Role::Ci, &["deploy-a", "deploy-*-b"])));
        assert!(admin.may_hand_on(&grant(Role::Admin, &["deploy-*"])));
        assert!(!admin.may_hand_on(&grant(Role::Ci, &["*"])));
        assert!(!admin.may_hand_on(&grant(Role::Ci, &["deploy-a", "other"])));
        assert!(!admin.may_hand_on(&grant(Role::PlatformAdmin, &["deploy-a"])));
        assert!(!grants(Role::PlatformAdmin, &["*"]).may_hand_on(&grant(Role::PlatformAdmin, &["*"])), "not under a team");
        assert!(!grants(Role::Ci, &["*"]).may_hand_on(&grant(Role::Admin, &["deploy-a"])));
        assert!(!Grants::default().may_hand_on(&grant(Role::Viewer, &[])));
    }

    #[test]
    fn several_grants_are_not_mixed() {
        let both = Grants(vec![grant(Role::Ci, &["*"]), grant(Role::Admin, &["mine"])]);
        assert_eq!((both.role_for("mine"), both.role_for("other")), (Some(Role::Admin), Some(Role::Ci)));
        assert!(!both.may_hand_on(&grant(Role::Admin, &["other"])), "admin of one, ci of all: admin of no other");
        assert!(both.may_hand_on(&grant(Role::Ci, &["mine", "other-*"])));
    }

    #[test]
    fn an_admin_of_some_tokens_is_no_admin_of_those_it_only_uses() {
        let both = Grants(vec![grant(Role::Ci, &["*"]), grant(Role::Admin, &["mine"]), grant(Role::Viewer, &["seen"])]);
        let texts = |action| both.tokens_for(action).into_iter().map(String::from).collect::<Vec<_>>();
        assert_eq!(
            (texts(Action::ReadAudit), texts(Action::Refresh)),
            (vec!["mine".to_owned()], vec!["*".into(), "mine".into()])
        );
        assert_eq!(texts(Action::ReadToken).len(), 3);
    }

    #[test]
    fn no_pattern_covers_nothing() {
        assert!(!grant(Role::Admin, &[]).covers("x"));
        assert_eq!(Grants::default().role_for("x"), None);
    }

    fn any_grant() -> impl Strategy<Value = Grant> {
        let role = prop::sample::select(Role::ALL.to_vec());
        (role, prop::collection::vec("[ab*]{1,3}", 0..3)).prop_map(|(role, patterns)| {
            let tokens = patterns.into_iter().map(|text| TokenPattern::try_from(text).expect("a pattern")).collect();
            Grant { role, tokens }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// Keys and rules are made through `may_hand_on`. Sessions are not: what they give is what rules of their identity give (that it
        /// is no more, tests/api/identities/session_grants.rs shows).
        #[test]
        fn what_is_handed_on_never_exceeds_its_creator(
            creator in prop::collection::vec(any_grant(), 0..4), new in any_grant(), name in "[ab]{1,4}",
        ) {
            let creator = Grants(creator);
            // About a third may; to reject the others would end the test before its time.
            if !creator.may_hand_on(&new) {
                return Ok(());
            }
            let given = Grants(vec![new]).role_for(&name);
            prop_assert!(given <= creator.role_for(&name), "{:?} from {:?}", given, creator.role_for(&name));
            prop_assert!(given != Some(Role::PlatformAdmin));
        }
    }
}
