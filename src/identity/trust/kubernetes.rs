//! Kubernetes' projected service-account tokens (kubernetes.io, "Managing Service Accounts").

use super::{
    pattern::{ClaimPattern, is_full},
    rule::Named,
    tokens::{Reach, Tokens},
};

const NAMESPACE: &str = "kubernetes.io/namespace";
const NAME: &str = "kubernetes.io/serviceaccount/name";
const UID: &str = "kubernetes.io/serviceaccount/uid";

pub(super) static TOKENS: Tokens = Tokens {
    claims: &[
        NAMESPACE,
        NAME,
        UID,
        "kubernetes.io/node/name",
        "kubernetes.io/node/uid",
        "kubernetes.io/pod/name",
        "kubernetes.io/pod/uid",
        "kubernetes.io/secret/name",
        "kubernetes.io/secret/uid",
        "sub",
    ],
    first: &[NAMESPACE, NAME, UID, "sub"],
    trigger: None,
    told: &[
        ("namespace", NAMESPACE),
        ("serviceaccount", NAME),
        ("serviceaccount_uid", UID),
        ("pod", "kubernetes.io/pod/name"),
        ("node", "kubernetes.io/node/name"),
    ],
    reach,
    implied,
    advice: "name one service account: `kubernetes.io/namespace` and `kubernetes.io/serviceaccount/name` in full, \
             or `sub: system:serviceaccount:namespace:name`",
};

/// Namespace and name in a `sub`, or in a pattern for one.
fn subject(sub: &str) -> Option<(&str, &str)> {
    sub.strip_prefix("system:serviceaccount:")?.split_once(':').filter(|(_, name)| !name.contains(':'))
}

fn reach(named: &Named) -> Reach {
    let subject = named.text("sub").and_then(subject).filter(|(namespace, _)| is_full(namespace));
    let namespace = named.text(NAMESPACE).is_some_and(is_full) || subject.is_some();
    let account = [named.text(NAME), named.text(UID), subject.map(|(_, name)| name)].into_iter().flatten().any(is_full);
    match (namespace, account) {
        (true, true) => Reach::One,
        (true, false) => Reach::Whole,
        (false, _) => Reach::Unbound,
    }
}

fn implied(claim: &str, pattern: &ClaimPattern) -> Vec<(&'static str, ClaimPattern)> {
    let subject = (claim == "sub").then(|| subject(pattern.as_str())).flatten();
    let both = |(namespace, name)| [(NAMESPACE, ClaimPattern::piece(namespace)), (NAME, ClaimPattern::piece(name))];
    subject.into_iter().flat_map(both).collect()
}
