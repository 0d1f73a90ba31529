//! Whether a rule may be written as it is.

use std::collections::BTreeMap;

use super::{
    claim,
    pattern::ClaimPattern,
    rule::{Conditions, Named},
    tokens::{self, Reach, Tokens},
};
use crate::identity::IssuerKind;

/// The most claims of one rule.
const MOST_CLAIMS: usize = 20;

/// The longest name of a claim, in bytes.
const LONGEST_NAME: usize = 256;

/// What the broker checks of every token itself.
const CHECKED_ANYWAY: [&str; 6] = ["aud", "exp", "iat", "iss", "jti", "nbf"];

impl Conditions {
    /// The conditions of a rule, judged when it is written. `whole_organisation`: a rule that lets in all of an owner, a group or a
    /// namespace is meant. Refused with all that is wrong, as (field, why and what to write), e.g. of the field `claims.repository`.
    pub fn judge(
        kind: IssuerKind,
        claims: &BTreeMap<String, String>,
        whole_organisation: bool,
    ) -> Result<Self, Vec<(String, String)>> {
        let known = tokens::of(kind);
        let mut named = Named::default();
        let mut wrong = Vec::new();
        // Whether some claim cannot be read: what it was meant to pin is not known then, and nothing is said about that.
        let mut unclear = claims.len() > MOST_CLAIMS;
        if unclear {
            wrong.push(("claims".to_owned(), format!("has {} claims; at most {MOST_CLAIMS} can be named", claims.len())));
        }
        for (name, text) in claims.iter().take(MOST_CLAIMS) {
            let field = format!("claims.{}", claim::short(name));
            wrong.extend(wrong_name(kind, name).map(|why| (field.clone(), why)));
            match ClaimPattern::parse(text) {
                Ok(pattern) => {
                    named.0.insert(name.clone(), pattern);
                }
                Err(why) => {
                    unclear |= known.first.contains(&name.as_str());
                    wrong.push((field, why.to_string()));
                }
            }
        }
        let reach = (known.reach)(&named);
        wrong.extend(wrong_reach(kind, claims, reach, whole_organisation).filter(|_| !unclear));
        if wrong.is_empty() { Ok(Self::new(kind, named, reach)) } else { Err(wrong) }
    }
}

/// Why a rule cannot name this claim.
fn wrong_name(kind: IssuerKind, name: &str) -> Option<String> {
    let Tokens { claims, first, .. } = tokens::of(kind);
    if CHECKED_ANYWAY.contains(&name) {
        return Some(format!("`{name}` is checked of every token anyway; leave it out and name e.g. `{}`", first[0]));
    }
    if !(1..=LONGEST_NAME).contains(&name.len()) || name.contains(char::is_control) {
        return Some(format!("the name of a claim is 1 to {LONGEST_NAME} bytes without control characters, e.g. `{}`", first[0]));
    }
    let is_known = |known: &&str| {
        known.strip_suffix('*').map_or(*known == name, |start| name.len() > start.len() && name.starts_with(start))
    };
    if claims.is_empty() || claims.iter().any(is_known) {
        return None;
    }
    let meant = match closest(name, claims) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("name e.g. `{}`", first[0]),
    };
    Some(format!("tokens of {} issuers have no such claim that a rule can name; {meant}", kind.as_str()))
}

/// Why a rule may not reach as far as this one does, or claims to.
fn wrong_reach(kind: IssuerKind, claims: &BTreeMap<String, String>, reach: Reach, whole: bool) -> Option<(String, String)> {
    let Tokens { first, advice, .. } = tokens::of(kind);
    let flag = |why: String| Some(("whole_organisation".to_owned(), why));
    match (kind, reach, whole) {
        (_, Reach::One, false) | (_, Reach::Whole, true) => None,
        (_, Reach::Unbound, _) => {
            let named = first.iter().find(|name| claims.contains_key(**name));
            let field = named.map_or("claims".to_owned(), |name| format!("claims.{name}"));
            Some((field, format!("any job of this issuer could fulfil this rule: {advice}")))
        }
        (_, Reach::Whole, false) => flag(format!(
            "this rule lets in a whole organisation, group or namespace: {advice}; or set `whole_organisation: true` if it is meant"
        )),
        (IssuerKind::Plain, Reach::One, true) => flag("is not known of plain issuers: leave it out".to_owned()),
        (_, Reach::One, true) => flag("is not needed: the rule lets in only what it names in full; leave it out".to_owned()),
    }
}

/// The claim that was probably meant: at most two letters away, or the end of a path.
fn closest<'a>(name: &str, claims: &[&'a str]) -> Option<&'a str> {
    let path = claims.iter().find(|known| known.ends_with(&format!("/{name}")));
    let near = || claims.iter().map(|known| (distance(name, known), known)).min().filter(|(distance, _)| *distance <= 2);
    path.or_else(|| near().map(|(_, known)| known)).copied()
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
