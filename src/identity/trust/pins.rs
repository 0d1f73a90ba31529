//! Names are given up and taken over by others, ids are not: the ids behind the names in a rule are pinned when it is first used.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    check::Mismatch,
    claim, github, gitlab,
    rule::{Conditions, Named},
    tokens::Reach,
};
use crate::identity::IssuerKind;

/// The ids that hold a rule of these claims to what it named. None of Kubernetes: a service account is made anew by each ordinary
/// redeployment, so its uid says nothing about whose it is; and none of plain issuers: which claim is an id, nobody knows.
pub(super) fn promised(kind: IssuerKind, named: &Named, reach: Reach) -> Vec<&'static str> {
    let (ids, given) = match (kind, reach) {
        (_, Reach::Unbound) | (IssuerKind::Kubernetes | IssuerKind::Plain, _) => return Vec::new(),
        (IssuerKind::Github, Reach::One) => (vec!["repository_id", "repository_owner_id"], github::named_ids(named)),
        (IssuerKind::Github, Reach::Whole) => (vec!["repository_owner_id"], github::named_ids(named)),
        (IssuerKind::Gitlab, Reach::One) => (vec!["project_id"], named.numbers(&["project_id"])),
        (IssuerKind::Gitlab, Reach::Whole) => (vec!["namespace_id"], named.numbers(&["namespace_id"])),
    };
    // The one that is the narrowest says it all.
    if given.contains(&ids[0]) { Vec::new() } else { ids.into_iter().filter(|id| !given.contains(id)).collect() }
}

impl Conditions {
    /// What is to be pinned on first use, of claims that fulfil the conditions: the ids of what the rule names only by name, but for
    /// those that are in `pins`. Empty: nothing.
    pub fn to_pin(&self, claims: &Map<String, Value>, pins: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let missing = self.promised.iter().filter(|name| !pins.contains_key(**name));
        missing.filter_map(|name| Some(((*name).to_owned(), claim::id(claims, name)?))).collect()
    }

    /// Whether the rule itself gives the ids, or there are none to give: then nothing is pinned on first use.
    pub fn has_immutable_ids(&self) -> bool {
        self.promised.is_empty()
    }

    /// One step for each id that is pinned, or that will be.
    pub(super) fn check_ids<'a>(
        &'a self,
        claims: &'a Map<String, Value>,
        pins: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = Result<(), Mismatch>> + 'a {
        let names: BTreeSet<&str> = self.promised.iter().copied().chain(pins.keys().map(String::as_str)).collect();
        names.into_iter().map(|name| {
            let pinned = pins.get(name).map(String::as_str);
            // A name alone is never enough where the issuer promises ids.
            let got = claim::find(claims, name)
                .and_then(claim::text)
                .filter(|text| pinned.map_or(claim::is_number(text), |p| p == text));
            let Some(got) = got else {
                let expected =
                    pinned.map_or("an id, which is pinned on first use".to_owned(), |id| format!("{id} (pinned on first use)"));
                return Err(Mismatch::new(name, &expected, claims));
            };
            let job = gitlab::of_the_job(name).filter(|_| self.kind == IssuerKind::Gitlab);
            match job.filter(|job| claim::find(claims, job).is_some_and(|value| claim::text(value).as_ref() != Some(&got))) {
                Some(job) => Err(Mismatch::new(job, &format!("{got}, as {name}"), claims)),
                None => Ok(()),
            }
        })
    }
}
