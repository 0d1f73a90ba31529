//! What is known beforehand of each kind's tokens.

use super::{
    github, gitlab, kubernetes,
    pattern::{ClaimPattern, is_full},
    rule::Named,
};
use crate::identity::IssuerKind;

/// How far a rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// One repository, project or service account.
    One,
    /// All of one owner, group or namespace.
    Whole,
    /// Whoever the issuer signs for.
    Unbound,
}

/// What is known of the tokens of one kind of issuer.
pub(super) struct Tokens {
    /// The claims that a rule may name; one that ends in `*` stands for all that begin so. Empty: any.
    pub(super) claims: &'static [&'static str],
    /// Those that say whose job it is, in the order in which they are checked and a mismatch is told.
    pub(super) first: &'static [&'static str],
    /// The claim that says what started the job, and those of its values with which strangers may have: refused unless the rule
    /// says exactly that.
    pub(super) trigger: Option<(&'static str, &'static [&'static str])>,
    /// What the audit tells of a job: the name there, and the claim.
    pub(super) told: &'static [(&'static str, &'static str)],
    /// How far a rule of these claims reaches.
    pub(super) reach: fn(&Named) -> Reach,
    /// What a condition asks of other claims too, where the token has them.
    pub(super) implied: fn(&str, &ClaimPattern) -> Vec<(&'static str, ClaimPattern)>,
    /// What to write instead of a rule that is unbound, and of one that reaches further than it says.
    pub(super) advice: &'static str,
}

/// Any other issuer: nothing is known but that a rule must name something in full.
static PLAIN: Tokens = Tokens {
    claims: &[],
    first: &["sub"],
    trigger: None,
    told: &[],
    reach: |named| if named.texts().any(is_full) { Reach::One } else { Reach::Unbound },
    implied: |_, _| Vec::new(),
    advice: "give at least one claim in full, without `*`, e.g. `sub: build-agent-7`",
};

/// What is known of this kind's tokens.
pub(super) fn of(kind: IssuerKind) -> &'static Tokens {
    match kind {
        IssuerKind::Github => &github::TOKENS,
        IssuerKind::Gitlab => &gitlab::TOKENS,
        IssuerKind::Kubernetes => &kubernetes::TOKENS,
        IssuerKind::Plain => &PLAIN,
    }
}
