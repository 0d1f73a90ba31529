//! Rules as admins write them.

use super::*;
use IssuerKind::{Github, Gitlab, Kubernetes, Plain};

/// The fields that are wrong, and all that is said about them.
fn wrong(kind: IssuerKind, rule: Rule<'_>, whole: bool) -> (Vec<String>, String) {
    let errors = Conditions::judge(kind, &named(rule), whole).expect_err("it is refused");
    let said = errors.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("\n");
    (errors.into_iter().map(|(field, _)| field).collect(), said)
}

#[track_caller]
fn refused(kind: IssuerKind, rule: Rule<'_>, whole: bool, field: &str) {
    assert_eq!(wrong(kind, rule, whole).0, [field], "{rule:?}");
}

#[test]
fn a_rule_that_pins_no_repository_is_refused() {
    for (rule, field) in [
        (&[][..], "claims"),
        (&[("ref", "refs/heads/main")], "claims"),
        (&[("actor", "someone"), ("environment", "prod")], "claims"),
        (&[("enterprise", "corp")], "claims"),
        (&[("repository", "*")], "claims.repository"),
        (&[("repository", "*/*")], "claims.repository"),
        (&[("repository", "*/name")], "claims.repository"),
        (&[("repository", "o*/name")], "claims.repository"),
        (&[("repository", "org")], "claims.repository"),
        (&[("repository", "org/")], "claims.repository"),
        (&[("repository", "/name")], "claims.repository"),
        (&[("repository", "org/name/x")], "claims.repository"),
        (&[("repository_id", "*")], "claims.repository_id"),
        (&[("repository_id", "12*")], "claims.repository_id"),
        (&[("repository_id", "org/name")], "claims.repository_id"),
        (&[("repository_owner", "*")], "claims.repository_owner"),
        (&[("repository_owner", "or*")], "claims.repository_owner"),
        (&[("repository_owner_id", "1*")], "claims.repository_owner_id"),
        (&[("sub", "*")], "claims.sub"),
        (&[("sub", "repo:*")], "claims.sub"),
        (&[("sub", "repo:*/*:*")], "claims.sub"),
        (&[("sub", "repo:o*/name:ref:refs/heads/main")], "claims.sub"),
        (&[("sub", "repo:org")], "claims.sub"),
        (&[("sub", "rep*:org/name:ref:refs/heads/main")], "claims.sub"),
        (&[("sub", "repo:org@1/name:ref:refs/heads/main")], "claims.sub"),
        (&[("sub", "repo:org/name/x:ref:refs/heads/main")], "claims.sub"),
        (&[("sub", "environment:prod")], "claims.sub"),
    ] {
        for whole in [false, true] {
            refused(Github, rule, whole, field);
        }
    }
    assert!(wrong(Github, &[], false).1.contains("`repository: owner/name`"), "it says what to write");
}

#[test]
fn a_rule_that_pins_no_project_is_refused() {
    for (rule, field) in [
        (&[][..], "claims"),
        (&[("user_login", "someone"), ("ref", "main")], "claims"),
        (&[("job_project_id", "20")], "claims"),
        (&[("job_project_path", "group/project")], "claims"),
        (&[("project_path", "*")], "claims.project_path"),
        (&[("project_path", "project")], "claims.project_path"),
        (&[("project_path", "*/project")], "claims.project_path"),
        (&[("project_path", "group/*/project")], "claims.project_path"),
        (&[("project_path", "gr*p/project")], "claims.project_path"),
        (&[("project_path", "group//project")], "claims.project_path"),
        (&[("project_id", "2*")], "claims.project_id"),
        (&[("namespace_path", "*")], "claims.namespace_path"),
        (&[("namespace_path", "group/*")], "claims.namespace_path"),
        (&[("namespace_id", "*")], "claims.namespace_id"),
        (&[("sub", "project_path:*/project:ref_type:branch:ref:main")], "claims.sub"),
        (&[("sub", "project_path:*")], "claims.sub"),
        (&[("sub", "group/project")], "claims.sub"),
    ] {
        for whole in [false, true] {
            refused(Gitlab, rule, whole, field);
        }
    }
}

#[test]
fn a_rule_that_pins_no_service_account_is_refused() {
    for (rule, field) in [
        (&[][..], "claims"),
        (&[("kubernetes.io/pod/name", "pod-1")], "claims"),
        (&[("kubernetes.io/namespace", "*")], "claims.kubernetes.io/namespace"),
        (&[("kubernetes.io/namespace", "c*"), ("kubernetes.io/serviceaccount/name", "runner")], "claims.kubernetes.io/namespace"),
        (&[("kubernetes.io/serviceaccount/name", "runner")], "claims.kubernetes.io/serviceaccount/name"),
        (&[("sub", "system:serviceaccount:*:runner")], "claims.sub"),
        (&[("sub", "system:serviceaccount:*:*")], "claims.sub"),
        (&[("sub", "system:serviceaccount:ci")], "claims.sub"),
        (&[("sub", "system:*:ci:runner")], "claims.sub"),
        (&[("sub", "ci:runner")], "claims.sub"),
    ] {
        for whole in [false, true] {
            refused(Kubernetes, rule, whole, field);
        }
    }
    refused(Plain, &[], false, "claims");
    refused(Plain, &[("sub", "agent-*"), ("team", "*")], false, "claims.sub");
    refused(Plain, &[("team", "*")], false, "claims");
}

#[test]
fn a_whole_organisation_is_let_in_only_where_the_rule_says_so() {
    for (kind, rule) in [
        (Github, &[("repository", "org/*")][..]),
        (Github, &[("repository", "org/svc-*")]),
        (Github, &[("repository_owner", "org"), ("repository", "*/name")]),
        (Github, &[("repository_owner_id", "1")]),
        (Github, &[("sub", "repo:org/*:ref:refs/heads/main")]),
        (Github, &[("sub", "repo:org@1/*@*:ref:refs/heads/main")]),
        (Gitlab, &[("project_path", "group/*")]),
        (Gitlab, &[("namespace_path", "group/sub")]),
        (Gitlab, &[("namespace_id", "72")]),
        (Gitlab, &[("sub", "project_path:group/*:ref_type:branch:ref:main")]),
        (Kubernetes, &[("kubernetes.io/namespace", "ci")]),
        (Kubernetes, &[("sub", "system:serviceaccount:ci:*")]),
    ] {
        refused(kind, rule, false, "whole_organisation");
        assert!(wrong(kind, rule, false).1.contains("`whole_organisation: true`"));
        assert!(Conditions::judge(kind, &named(rule), true).is_ok(), "{rule:?}");
    }
    for (kind, rule) in [
        (Github, &[("repository", "org/name")][..]),
        (Github, &[("repository", "org/*"), ("repository_id", "2")]),
        (Gitlab, &[("project_id", "20"), ("namespace_path", "group")]),
        (Kubernetes, &[("sub", "system:serviceaccount:ci:runner")]),
        (Plain, &[("sub", "agent-7")]),
    ] {
        refused(kind, rule, true, "whole_organisation");
        assert!(Conditions::judge(kind, &named(rule), false).is_ok(), "{rule:?}");
    }
}

#[test]
fn a_claim_that_such_tokens_do_not_have_is_refused_and_the_likely_one_told() {
    for (kind, name, told) in [
        (Github, "repositry", "did you mean `repository`?"),
        (Github, "repository-id", "did you mean `repository_id`?"),
        (Github, "Environment", "did you mean `environment`?"),
        (Github, "repo_property_", "did you mean `repo_property_*`?"),
        (Github, "project_path", "name e.g. `repository`"),
        (Github, "repository*", "did you mean `repository`?"),
        (Gitlab, "projectpath", "did you mean `project_path`?"),
        (Gitlab, "user_identities", "tokens of gitlab issuers have no such claim"),
        (Kubernetes, "namespace", "did you mean `kubernetes.io/namespace`?"),
        (Kubernetes, "kubernetes.io", "name e.g. `kubernetes.io/namespace`"),
    ] {
        let pinned = match kind {
            Github => ("repository_id", "2"),
            Gitlab => ("project_id", "20"),
            _ => ("sub", "system:serviceaccount:ci:runner"),
        };
        let (fields, said) = wrong(kind, &[pinned, (name, "x")], false);
        assert_eq!(fields, [format!("claims.{name}")]);
        assert!(said.contains(told), "{said}");
    }
    assert!(Conditions::judge(Github, &named(&[("repository", "o/n"), ("repo_property_team", "a")]), false).is_ok());
    for kind in [Github, Gitlab, Kubernetes, Plain] {
        for name in ["iss", "aud", "exp", "nbf", "iat", "jti"] {
            let (fields, said) = wrong(kind, &[(name, "x")], false);
            assert_eq!(fields[0], format!("claims.{name}"));
            assert!(said.contains("checked of every token anyway"));
        }
    }
    for name in ["", "a\nb", &"x".repeat(257)] {
        assert!(wrong(Plain, &[("sub", "a"), (name, "x")], false).1.contains("the name of a claim"), "{name:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let long = "x".repeat(513);
    let rule = [("ref", ""), ("actor", "a\nb"), ("environment", &*long), ("nonsense", "x"), ("repository", "*")];
    let fields = wrong(Github, &rule, false).0;
    assert_eq!(fields, ["claims.actor", "claims.environment", "claims.nonsense", "claims.ref", "claims.repository"]);
    assert_eq!(wrong(Github, &[("repository", "")], false).0, ["claims.repository"], "once");
}

#[test]
fn more_than_twenty_claims_are_refused() {
    let rule = |count: usize| (0..count).map(|n| (format!("claim-{n:02}"), "x".to_owned())).collect::<BTreeMap<_, _>>();
    assert!(Conditions::judge(Plain, &rule(20), false).is_ok());
    let errors = Conditions::judge(Plain, &rule(21), false).expect_err("too many");
    assert_eq!(errors, [("claims".to_owned(), "has 21 claims; at most 20 can be named".to_owned())]);
    assert_eq!(Conditions::judge(Github, &rule(10_000), false).expect_err("too many").len(), 21, "what is said is bounded");
}

/// Each `{"claim": "pattern"}` in the README's chapter on rules, with the issuer that stands before it.
#[test]
fn the_rules_that_the_readme_shows_are_rules() {
    let readme = include_str!("../../../../README.md");
    let chapter = readme.split("\n## ").find(|chapter| chapter.starts_with("With no stored secret")).expect("the chapter");
    let mut shown = Vec::new();
    for (at, _) in chapter.match_indices("laims\": {").chain(chapter.match_indices("claims: `{")) {
        let json = &chapter[at + chapter[at..].find('{').expect("found")..];
        let claims: BTreeMap<String, String> = serde_json::from_str(&json[..=json.find('}').expect("its end")]).expect("claims");
        let kind = if claims.contains_key("project_path") {
            Gitlab
        } else if claims.keys().any(|claim| claim.starts_with("kubernetes.io/")) {
            Kubernetes
        } else {
            Github
        };
        Conditions::judge(kind, &claims, false).unwrap_or_else(|errors| panic!("{claims:?}: {errors:?}"));
        shown.push(kind);
    }
    assert_eq!(shown, [Github, Github, Gitlab, Kubernetes]);
}
