//! Why a credential lets nobody in.

use std::{cmp::Reverse, sync::Arc};

use super::{
    JwtError, Mismatch,
    caller::{Caller, Team},
};
use crate::store::StoreError;

/// Precisely why: for logs and the audit; the caller is told only that it is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// No form we know.
    #[error("the credential is no API key, session or JWT")]
    UnknownForm,
    /// Right prefix, wrong form or checksum.
    #[error("the credential is malformed or mistyped")]
    Malformed,
    /// No such id.
    #[error("there is no key or session {0}")]
    Unknown(String),
    /// The id exists, the secret is another.
    #[error("the secret of {0} is wrong")]
    WrongSecret(String),
    /// Past its time, or a session whose rule is gone.
    #[error("{0} has ended")]
    Expired(String),
    /// A JWT that is none of a trusted issuer's, or not for us, or not now.
    #[error("the JWT: {0}")]
    Jwt(JwtError),
    /// A good JWT that no rule lets in.
    #[error("no trust rule lets {} in", .0.who.name())]
    NoRule(Box<NoRule>),
    /// A good JWT that rules of other teams let in than the one it names, where it has no business.
    #[error("no trust rule of the team that is named lets {} in", .0.who.name())]
    OfOthers(Box<NoRule>),
    /// It could not be checked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A verified identity that no rule lets in.
#[derive(Clone, Debug)]
pub struct NoRule {
    /// Who it is; member of no team.
    pub who: Arc<Caller>,
    /// Each rule of its issuer, and why not.
    pub tried: Vec<Tried>,
}

/// A rule that an identity does not match.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Whose.
    pub team: Team,
    /// The rule's name.
    pub rule: String,
    /// Why not.
    pub why: Mismatch,
    /// Whether the job is one of those that the rule is about, all but for the rest of what it asks.
    pub meant: bool,
}

/// The team that should hear of an identity that no rule lets in.
#[derive(Clone, Debug)]
pub struct Concerned {
    /// Which.
    pub team: Team,
    /// What it should hear: why its rules do not let the identity in, the closest first.
    pub why: String,
    /// Whether one of its rules is about this job. Otherwise the job only named the team, as anyone can.
    pub meant: bool,
}

impl NoRule {
    /// The team that should hear of it, and what it should hear: the one that was named, else the one whose rules are about this job.
    /// Where rules of several teams are, nobody knows which is right, and none hears of it: anyone may write a rule that fits
    /// another team's jobs. Other teams' rules are not spoken of.
    pub fn concerns(&self, named: Option<&str>) -> Option<Concerned> {
        let about = |tried: &&Tried| named.map_or(tried.meant, |named| tried.team.name == named);
        let team = self.tried.iter().find(about)?;
        if self.tried.iter().filter(about).any(|tried| tried.team != team.team) {
            return None;
        }
        let mut own: Vec<&Tried> = self.tried.iter().filter(|tried| tried.team == team.team).collect();
        // The rule that was meant is among many that have nothing to do with the job, and not all that is said is kept.
        own.sort_by_key(|tried| Reverse(tried.why.fulfilled));
        let said: Vec<String> = own.iter().take(5).map(|tried| format!("rule {}: {}", tried.rule, tried.why)).collect();
        let meant = own.iter().any(|tried| tried.meant);
        Some(Concerned { team: team.team.clone(), why: said.join("; "), meant })
    }
}

impl Unauthenticated {
    /// The same for the next who waited for it.
    pub(super) fn told_again(&self) -> Self {
        match self {
            Self::UnknownForm => Self::UnknownForm,
            Self::Malformed => Self::Malformed,
            Self::Unknown(id) => Self::Unknown(id.clone()),
            Self::WrongSecret(id) => Self::WrongSecret(id.clone()),
            Self::Expired(id) => Self::Expired(id.clone()),
            Self::Jwt(error) => Self::Jwt(error.clone()),
            Self::NoRule(refused) => Self::NoRule(refused.clone()),
            Self::OfOthers(refused) => Self::OfOthers(refused.clone()),
            Self::Store(error) => Self::Store(error.told_again()),
        }
    }
}
