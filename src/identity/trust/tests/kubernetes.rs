//! Kubernetes' tokens, and those of issuers of which nothing is known.

use super::*;
use IssuerKind::{Kubernetes, Plain};

const NAMESPACE: &str = "kubernetes.io/namespace";
const NAME: &str = "kubernetes.io/serviceaccount/name";
const UID: &str = "kubernetes.io/serviceaccount/uid";

#[test]
fn the_service_account_that_a_rule_names_is_let_in() {
    for rule in [
        &[(NAMESPACE, "ci"), (NAME, "runner")][..],
        &[(NAMESPACE, "ci"), (UID, "e6a8680e")],
        &[("sub", "system:serviceaccount:ci:runner")],
        &[("sub", "system:serviceaccount:ci:runner"), ("kubernetes.io/pod/name", "pod-*")],
    ] {
        accepts(&one(Kubernetes, rule), &kubernetes());
    }
    for rule in [&[(NAMESPACE, "ci")][..], &[(NAMESPACE, "ci"), (NAME, "run*")], &[("sub", "system:serviceaccount:ci:*")]] {
        accepts(&whole(Kubernetes, rule), &kubernetes());
    }
}

#[test]
fn another_is_not() {
    let by_name = one(Kubernetes, &[(NAMESPACE, "ci"), (NAME, "runner")]);
    let by_sub = one(Kubernetes, &[("sub", "system:serviceaccount:ci:runner")]);
    for (namespace, account, claim) in
        [("ci2", "runner", NAMESPACE), ("ci", "runner2", NAME), ("default", "default", NAMESPACE), ("CI", "runner", NAMESPACE)]
    {
        assert_eq!(refused_at(&by_name, &kubernetes_of(namespace, account)), claim);
        assert_eq!(refused_at(&by_sub, &kubernetes_of(namespace, account)), "sub");
    }
    for (changes, claim) in [
        (json!({"kubernetes.io": null}), NAMESPACE),
        (json!({"kubernetes.io": "ci"}), NAMESPACE),
        (json!({"kubernetes.io": {"namespace": {"namespace": "ci"}}}), NAMESPACE),
        (json!({"kubernetes.io": {"namespace": "ci", "serviceaccount": "runner"}}), NAME),
    ] {
        assert_eq!(refused_at(&by_name, &with(kubernetes(), changes.clone())), claim, "{changes}");
    }
    let other = json!({"kubernetes.io": {"namespace": "other", "serviceaccount": {"name": "runner"}}});
    assert_eq!(refused_at(&by_sub, &with(kubernetes(), other)), NAMESPACE, "the sub of another");
    let uid = one(Kubernetes, &[(NAMESPACE, "ci"), (NAME, "runner"), (UID, "another")]);
    assert_eq!(refused_at(&uid, &kubernetes()), UID);
}

#[test]
fn a_service_account_made_anew_is_the_same() {
    let rule = one(Kubernetes, &[(NAMESPACE, "ci"), (NAME, "runner")]);
    assert!(rule.has_immutable_ids());
    assert_eq!(rule.to_pin(&kubernetes(), &none()), none());
}

#[test]
fn a_plain_token_is_let_in_by_its_claims_alone() {
    let rule =
        one(Plain, &[("sub", "agent-7"), ("https://idp.example/team", "a"), ("roles", "deploy"), ("level", "3"), ("ok", "true")]);
    assert!(rule.has_immutable_ids());
    let token = json!({"sub": "agent-7", "https://idp.example/team": "a", "roles": ["x", "deploy"], "level": 3, "ok": true});
    let token = with(Map::new(), token);
    accepts(&rule, &token);
    for (changes, claim) in [
        (json!({"sub": "agent-8"}), "sub"),
        (json!({"sub": null, "ok": false}), "sub"),
        (json!({"https://idp.example/team": ["b", ["a"]]}), "https://idp.example/team"),
        (json!({"roles": {"deploy": "deploy"}}), "roles"),
        (json!({"roles": []}), "roles"),
        (json!({"level": 3.5}), "level"),
        (json!({"ok": false}), "ok"),
    ] {
        assert_eq!(refused_at(&rule, &with(token.clone(), changes.clone())), claim, "{changes}");
    }
    let null = with(token, json!({}));
    let null: Map<String, Value> =
        null.into_iter().map(|(name, value)| if name == "ok" { (name, Value::Null) } else { (name, value) }).collect();
    assert_eq!(refused_at(&rule, &null), "ok", "null is no value");
    assert_eq!(
        refused_at(&one(Plain, &[("sub", "a"), ("x", "*")]), &with(Map::new(), json!({"sub": "a"}))),
        "x",
        "absent never matches"
    );
}
