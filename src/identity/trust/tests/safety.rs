//! What all of this is for: whatever rule was accepted, no other repository, project or account fulfils it.

use proptest::prelude::*;

use super::*;
use IssuerKind::{Github, Gitlab, Kubernetes};

/// A rule that was accepted.
struct Accepted {
    conditions: Conditions,
    whole: bool,
    /// What was pinned at its first use by its own job, which it may let in.
    pins: Option<BTreeMap<String, String>>,
}

impl Accepted {
    fn judge(kind: IssuerKind, rule: &BTreeMap<String, String>, whole: bool, own: &[Map<String, Value>]) -> Option<Self> {
        let conditions = Conditions::judge(kind, rule, whole).ok()?;
        let first = own.iter().find(|own| conditions.check(own, &none()).is_ok());
        let pins = first.map(|own| conditions.to_pin(own, &none()));
        Some(Self { conditions, whole, pins })
    }
}

/// For each claim none or one of these patterns: all such rules that are accepted.
fn accepted(kind: IssuerKind, claims: &[(&str, &[&str])], own: &[Map<String, Value>]) -> Vec<Accepted> {
    let mut rules = vec![BTreeMap::new()];
    for (name, patterns) in claims {
        for rule in rules.clone() {
            rules.extend(patterns.iter().map(|pattern| {
                let mut rule: BTreeMap<String, String> = rule.clone();
                rule.insert((*name).to_owned(), (*pattern).to_owned());
                rule
            }));
        }
    }
    let both = rules.iter().flat_map(|rule| [false, true].map(|whole| (rule, whole)));
    both.filter_map(|(rule, whole)| Accepted::judge(kind, rule, whole, own)).collect()
}

fn github_rules() -> Vec<Accepted> {
    let claims: &[(&str, &[&str])] = &[
        ("repository", &["org/name", "org/n*e", "*/name", "*/*"]),
        ("repository_id", &["2", "*"]),
        ("repository_owner", &["org", "o*"]),
        ("repository_owner_id", &["1"]),
        (
            "sub",
            &[
                "repo:org/name:ref:refs/heads/main",
                "repo:org/name:*:*",
                "repo:org/*:*:refs/heads/*",
                "repo:*/name:ref:refs/heads/main",
                "repo:org@1/name@2:ref:refs/heads/main",
                "repo:org@*/name@*:ref:*/*/*",
                "repo:org@1/*@*:ref:refs/heads/main",
                "repo:*@*/*@*:*:*/*/*",
            ],
        ),
    ];
    accepted(Github, claims, &both_shapes("org", "1", "name", "2"))
}

/// Names that try to be taken for another.
const HOSTILE: [&str; 22] = [
    "name:x",
    "name/other",
    "NAME",
    "Name",
    "name ",
    " name",
    "name2",
    "nam",
    "*",
    "n*e",
    "n*",
    "nаme",
    "ｎａｍｅ",
    "name\u{200b}",
    "name\u{202e}",
    "name@2",
    "name:ref:refs/heads/main",
    "name%2F",
    "name|x",
    "other|name",
    "",
    "../org/name",
];

/// Both shapes of a token's sub.
fn both_shapes(owner: &str, owner_id: &str, name: &str, id: &str) -> [Map<String, Value>; 2] {
    let token = github_of(owner, owner_id, name, id);
    let sub = format!("repo:{owner}@{owner_id}/{name}@{id}:ref:refs/heads/main");
    [token.clone(), with(token, json!({"sub": sub}))]
}

/// This other job is let in by none of the rules, neither first nor after their own job was.
fn never(rules: &[Accepted], other: &Map<String, Value>, same_owner: bool) {
    for Accepted { conditions, pins, .. } in rules.iter().filter(|rule| !(rule.whole && same_owner)) {
        assert!(conditions.check(other, &none()).is_err(), "{conditions:?} lets in {other:?}");
        let pinned = pins.as_ref().is_none_or(|pins| conditions.check(other, pins).is_err());
        assert!(pinned, "{conditions:?} with {pins:?} lets in {other:?}");
    }
}

#[test]
fn no_accepted_rule_lets_in_a_repository_of_a_hostile_name() {
    let rules = github_rules();
    let of_use = rules.iter().filter(|rule| rule.pins.is_some()).count();
    assert!(rules.len() > 500 && of_use > 300, "{} {of_use}", rules.len());
    for name in HOSTILE {
        for other in both_shapes("org", "1", name, "99") {
            never(&rules, &other, true);
        }
        let owner = name.replace("name", "org").replace('n', "o");
        for repository in ["name", name] {
            for other in both_shapes(&owner, "98", repository, "99") {
                never(&rules, &other, false);
            }
        }
    }
}

#[test]
fn no_accepted_rule_lets_in_what_took_over_a_name_after_its_first_use() {
    for (owner_id, same_owner) in [("1", true), ("98", false)] {
        for other in both_shapes("org", owner_id, "name", "99") {
            for Accepted { conditions, pins, .. } in github_rules().iter().filter(|rule| !(rule.whole && same_owner)) {
                let pinned = pins.as_ref().is_none_or(|pins| conditions.check(&other, pins).is_err());
                assert!(pinned, "{conditions:?} with {pins:?} lets in {other:?}");
            }
        }
    }
}

#[test]
fn no_accepted_rule_lets_in_another_project_or_account() {
    let rules = accepted(
        Gitlab,
        &[
            ("project_path", &["group/project", "group/*", "*/project", "group/p*t", "*/*", "*"]),
            ("project_id", &["20", "2*", "*"]),
            ("namespace_path", &["group", "gr*", "*"]),
            ("namespace_id", &["72", "*"]),
            (
                "sub",
                &[
                    "project_path:group/project:ref_type:branch:ref:main",
                    "project_path:group/*:*:*:*:*",
                    "project_path:*/*:*:*:*:*",
                ],
            ),
        ],
        &[gitlab()],
    );
    assert!(rules.len() > 200, "{}", rules.len());
    for name in HOSTILE.map(|name| name.replace("name", "project")) {
        never(&rules, &gitlab_of("group", "72", &name, "99"), true);
        never(&rules, &gitlab_of(&name.replace("project", "group"), "98", "project", "99"), false);
        never(&rules, &gitlab_of(&format!("group/{name}"), "98", "project", "99"), false);
    }
    let rules = accepted(
        Kubernetes,
        &[
            ("kubernetes.io/namespace", &["ci", "c*", "*"]),
            ("kubernetes.io/serviceaccount/name", &["runner", "run*", "*"]),
            ("sub", &["system:serviceaccount:ci:runner", "system:serviceaccount:ci:*", "system:serviceaccount:*:*", "*"]),
        ],
        &[kubernetes()],
    );
    assert!(rules.len() > 20, "{}", rules.len());
    for name in HOSTILE.map(|name| name.replace("name", "runner")) {
        never(&rules, &kubernetes_of("ci", &name), true);
        never(&rules, &kubernetes_of(&name.replace("runner", "ci"), "runner"), false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_rule_by_name_lets_in_another_repository(
        owner in "[a-zA-Z0-9-]{1,6}", name in "[a-zA-Z0-9._-]{1,6}", other in "[a-z*@:/._ао-]{1,8}", tail in "[a-z*@:/|]{0,4}", reference in "[a-z*/]{1,6}",
    ) {
        let rules = [
            one(Github, &[("repository", &format!("{owner}/{name}"))]),
            one(Github, &[("sub", &format!("repo:{owner}/{name}:ref:refs/heads/{reference}"))]),
            one(Github, &[("sub", &format!("repo:{owner}@1/{name}@2:ref:refs/heads/{reference}"))]),
            whole(Github, &[("repository_owner", &owner)]),
            whole(Github, &[("repository", &format!("{owner}/*"))]),
        ];
        let rules = rules.map(|conditions| Accepted { conditions, whole: false, pins: None });
        for foreign in [&other, &format!("{owner}{tail}{other}"), &format!("{other}{tail}{owner}")] {
            for repository in [&name, &format!("{name}{tail}"), &other] {
                for token in both_shapes(foreign, "98", repository, "99") {
                    prop_assume!(foreign != &owner);
                    never(&rules, &token, false);
                }
            }
        }
    }
}
