//! Whether a token's claims fulfil a rule.

use std::{collections::BTreeMap, fmt, iter};

use serde_json::{Map, Value};

use super::{claim, github, pattern::ClaimPattern, rule::Conditions, tokens};
use crate::identity::IssuerKind;

/// The first condition that is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The claim.
    pub claim: String,
    /// What the rule expects, in at most 256 characters.
    pub expected: String,
    /// What the token has, in at most 256 characters; `None`: not that claim.
    pub got: Option<String>,
    /// How many conditions were fulfilled before this one: the rule with the most was probably meant.
    pub fulfilled: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {} must be {}, ", self.claim, self.expected)?;
        match &self.got {
            Some(got) => write!(f, "and is {got}"),
            None => f.write_str("and is absent"),
        }
    }
}

impl Mismatch {
    pub(super) fn new(claim: &str, expected: &str, claims: &Map<String, Value>) -> Self {
        let got = claim::find(claims, claim).map(claim::shown);
        Self { claim: claim.to_owned(), expected: claim::short(expected), got, fulfilled: 0 }
    }
}

impl Conditions {
    /// Whether the verified claims of a token fulfil the conditions, and have the ids that were pinned earlier. What the rule says
    /// itself comes first, then the ids, and what started the job last: whoever is told of that has all else right.
    pub fn check(&self, claims: &Map<String, Value>, pins: &BTreeMap<String, String>) -> Result<(), Mismatch> {
        let own = self.in_order().map(|(name, pattern)| self.check_claim(name, pattern, claims));
        let steps = own.chain(self.check_ids(claims, pins)).chain(iter::once_with(|| self.check_trigger(claims)));
        for (fulfilled, step) in steps.enumerate() {
            step.map_err(|mismatch| Mismatch { fulfilled, ..mismatch })?;
        }
        Ok(())
    }

    /// One claim that the rule names, and those that must then be the same where the token has them.
    fn check_claim(&self, name: &str, pattern: &ClaimPattern, claims: &Map<String, Value>) -> Result<(), Mismatch> {
        let wanted = |text: &str| match (self.kind, name) {
            (IssuerKind::Github, "sub") => github::sub_matches(pattern, text, claims),
            _ => pattern.matches(text),
        };
        if !claim::find(claims, name).is_some_and(|value| claim::any(value, wanted)) {
            return Err(Mismatch::new(name, pattern.as_str(), claims));
        }
        for (other, pattern) in (tokens::of(self.kind).implied)(name, pattern) {
            if claim::find(claims, other).is_some_and(|value| !claim::any(value, |text| pattern.matches(text))) {
                return Err(Mismatch::new(other, pattern.as_str(), claims));
            }
        }
        Ok(())
    }

    /// Strangers can have a job started by a pull request or a comment: a rule says that it wants such jobs, with no `*` in it.
    fn check_trigger(&self, claims: &Map<String, Value>) -> Result<(), Mismatch> {
        let Some((name, dangerous)) = tokens::of(self.kind).trigger else { return Ok(()) };
        let expected = match claims.get(name).and_then(Value::as_str) {
            None => "what started the job".to_owned(),
            Some(value) if dangerous.contains(&value) && self.named.text(name) != Some(value) => {
                format!("another than {value}, which strangers may start: refused unless the rule says `{name}: {value}`")
            }
            Some(_) => return Ok(()),
        };
        Err(Mismatch::new(name, &expected, claims))
    }
}
