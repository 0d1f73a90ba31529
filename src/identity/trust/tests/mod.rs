//! Rules and tokens as they are written and signed.

mod github;
mod gitlab;
mod judging;
mod kubernetes;
mod safety;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Conditions, Mismatch};
use crate::identity::IssuerKind;

/// The claims of a rule.
type Rule<'a> = &'a [(&'a str, &'a str)];

fn named(rule: Rule<'_>) -> BTreeMap<String, String> {
    rule.iter().map(|(name, pattern)| ((*name).to_owned(), (*pattern).to_owned())).collect()
}

/// A rule for one repository, project or account.
fn one(kind: IssuerKind, rule: Rule<'_>) -> Conditions {
    Conditions::judge(kind, &named(rule), false).expect("a rule")
}

/// A rule for a whole organisation.
fn whole(kind: IssuerKind, rule: Rule<'_>) -> Conditions {
    Conditions::judge(kind, &named(rule), true).expect("a rule")
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// The claims, changed; null takes one away.
fn with(mut claims: Map<String, Value>, changes: Value) -> Map<String, Value> {
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            claims.remove(name);
        } else {
            claims.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// The claim at which the token is refused.
fn refused_at(conditions: &Conditions, claims: &Map<String, Value>) -> String {
    conditions.check(claims, &none()).expect_err("it is refused").claim
}

fn github() -> Map<String, Value> {
    github_of("org", "1", "name", "2")
}

/// The token of a push to the repository's main branch.
fn github_of(owner: &str, owner_id: &str, name: &str, id: &str) -> Map<String, Value> {
    with(
        Map::new(),
        json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": "broker", "jti": "j", "iat": 1, "nbf": 1, "exp": 2,
            "sub": format!("repo:{owner}/{name}:ref:refs/heads/main"), "repository": format!("{owner}/{name}"), "repository_id": id,
            "repository_owner": owner, "repository_owner_id": owner_id, "repository_visibility": "private", "ref": "refs/heads/main",
            "ref_type": "branch", "ref_protected": "true", "sha": "c0ffee", "event_name": "push", "actor": "someone", "actor_id": "3",
            "run_id": "4", "run_number": "5", "run_attempt": "1", "runner_environment": "github-hosted", "workflow": "deploy",
            "workflow_ref": format!("{owner}/{name}/.github/workflows/deploy.yml@refs/heads/main"), "workflow_sha": "c0ffee",
            "job_workflow_ref": format!("{owner}/{name}/.github/workflows/deploy.yml@refs/heads/main"), "head_ref": "", "base_ref": "",
        }),
    )
}

fn gitlab() -> Map<String, Value> {
    gitlab_of("group", "72", "project", "20")
}

/// The token of a push to the project's main branch.
fn gitlab_of(group: &str, group_id: &str, project: &str, id: &str) -> Map<String, Value> {
    let path = format!("{group}/{project}");
    with(
        Map::new(),
        json!({
            "iss": "https://gitlab.com", "aud": "broker", "jti": "j", "iat": 1, "nbf": 1, "exp": 2,
            "sub": format!("project_path:{path}:ref_type:branch:ref:main"), "namespace_id": group_id, "namespace_path": group,
            "project_id": id, "project_path": path, "job_namespace_id": group_id, "job_namespace_path": group, "job_project_id": id,
            "job_project_path": path, "user_id": "1", "user_login": "someone", "user_email": "someone@example.com", "pipeline_id": "574",
            "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main",
            "ref_protected": "true", "runner_id": 1, "runner_environment": "gitlab-hosted", "sha": "c0ffee",
            "groups_direct": ["group/sub", "other"], "project_visibility": "private",
        }),
    )
}

fn kubernetes() -> Map<String, Value> {
    kubernetes_of("ci", "runner")
}

/// The token of a pod.
fn kubernetes_of(namespace: &str, account: &str) -> Map<String, Value> {
    with(
        Map::new(),
        json!({
            "iss": "https://kubernetes.default.svc", "aud": ["broker"], "jti": "j", "iat": 1, "nbf": 1, "exp": 2,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {
                "namespace": namespace, "node": {"name": "node-1", "uid": "n"}, "pod": {"name": "pod-1", "uid": "p"},
                "serviceaccount": {"name": account, "uid": "e6a8680e"}, "warnafter": 1,
            },
        }),
    )
}

/// Checked without pins, as on first use, and then with those pinned at that.
fn accepts(conditions: &Conditions, claims: &Map<String, Value>) {
    assert_eq!(conditions.check(claims, &none()), Ok(()), "{conditions:?}");
    let pins = conditions.to_pin(claims, &none());
    assert_eq!(conditions.check(claims, &pins), Ok(()), "{conditions:?}");
    assert_eq!(conditions.to_pin(claims, &pins), none(), "all is pinned at once");
}

fn mismatch(claim: &str, expected: &str, got: Option<&str>, fulfilled: usize) -> Result<(), Mismatch> {
    Err(Mismatch { claim: claim.to_owned(), expected: expected.to_owned(), got: got.map(str::to_owned), fulfilled })
}
