//! What a rule asks of a token.

use std::collections::BTreeMap;

use super::{
    claim,
    pattern::ClaimPattern,
    pins,
    tokens::{self, Reach},
};
use crate::identity::IssuerKind;

/// The claims that a rule names, and the patterns it gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named(pub(super) BTreeMap<String, ClaimPattern>);

impl Named {
    /// The pattern of this claim, as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(ClaimPattern::as_str)
    }

    /// All patterns, as text.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(ClaimPattern::as_str)
    }

    /// Whether this claim is given as one id.
    pub(super) fn number(&self, name: &str) -> bool {
        self.text(name).is_some_and(claim::is_number)
    }

    /// Those of the claims that are given as one id.
    pub(super) fn numbers(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.number(name)).collect()
    }
}

/// What a rule asks of a token: compiled when it is written, by [`Conditions::judge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    pub(super) kind: IssuerKind,
    pub(super) named: Named,
    /// The ids that a token must have besides, pinned or to be pinned.
    pub(super) promised: Vec<&'static str>,
    /// How many of the claims say whose job it is; `None`: they alone bind nobody.
    about: Option<usize>,
}

impl Conditions {
    /// Of claims that were judged.
    pub(super) fn new(kind: IssuerKind, named: Named, reach: Reach) -> Self {
        let promised = pins::promised(kind, &named, reach);
        let known = tokens::of(kind);
        let whose: BTreeMap<_, _> =
            named.0.clone().into_iter().filter(|(name, _)| known.first.contains(&name.as_str())).collect();
        let about = Some(whose.len()).filter(|_| (known.reach)(&Named(whose)) != Reach::Unbound);
        Self { kind, named, promised, about }
    }

    /// Whether a token that fulfils so many of the conditions is of those whose job the rule says it is, and fails for other reasons.
    pub fn is_about(&self, fulfilled: usize) -> bool {
        self.about.is_some_and(|named| fulfilled >= named)
    }

    /// The claims in the order in which they are checked: what says whose job it is, then the others by name.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, &ClaimPattern)> {
        let first = tokens::of(self.kind).first;
        let others = self.named.0.iter().filter(|(name, _)| !first.contains(&name.as_str()));
        first
            .iter()
            .filter_map(|name| self.named.0.get_key_value(*name))
            .chain(others)
            .map(|(name, pattern)| (name.as_str(), pattern))
    }
}
