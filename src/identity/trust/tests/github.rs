//! GitHub's tokens.

use super::*;
use IssuerKind::Github;

const BY_SUB: Rule<'static> = &[("sub", "repo:org/name:ref:refs/heads/main")];
const BY_NAME: Rule<'static> = &[("repository", "org/name")];

fn numbered(sub: &str) -> Map<String, Value> {
    with(github(), json!({"sub": sub}))
}

#[test]
fn the_job_that_a_rule_names_is_let_in() {
    for rule in [
        BY_NAME,
        BY_SUB,
        &[("repository_id", "2")],
        &[("repository", "org/name"), ("ref", "refs/heads/*"), ("event_name", "push")],
        &[("repository", "org/name"), ("workflow_ref", "org/name/.github/workflows/*@refs/heads/main")],
        &[("repository", "org/*"), ("repository_id", "2")],
        &[("sub", "repo:org/name:ref:refs/heads/*")],
    ] {
        accepts(&one(Github, rule), &github());
    }
    for rule in [
        &[("repository", "org/*")][..],
        &[("repository", "org/na*")],
        &[("repository_owner", "org")],
        &[("repository_owner_id", "1")],
        &[("sub", "repo:org/*:ref:refs/heads/main")],
    ] {
        accepts(&whole(Github, rule), &github());
    }
}

#[test]
fn another_job_is_not() {
    let rule = one(Github, &[("repository", "org/name"), ("ref", "refs/heads/main"), ("environment", "prod"), ("actor", "*")]);
    let good = with(github(), json!({"environment": "prod"}));
    accepts(&rule, &good);
    for (changes, claim) in [
        (json!({"repository": "org/other"}), "repository"),
        (json!({"repository": "ORG/name"}), "repository"),
        (json!({"repository": "org/name/x"}), "repository"),
        (json!({"repository": null}), "repository"),
        (json!({"repository": {"org/name": "org/name"}}), "repository"),
        (json!({"ref": "refs/heads/main2"}), "ref"),
        (json!({"ref": "refs/tags/main"}), "ref"),
        (json!({"environment": null}), "environment"),
        (json!({"environment": "prod/eu"}), "environment"),
        (json!({"actor": null}), "actor"),
        (json!({"repository_id": null}), "repository_id"),
        (json!({"repository_owner_id": null}), "repository_owner_id"),
        (json!({"repository_id": ""}), "repository_id"),
        (json!({"repository_id": ["2"]}), "repository_id"),
        (json!({"event_name": null}), "event_name"),
        (json!({"event_name": ["push", "pull_request"]}), "event_name"),
        (json!({"event_name": "pull_request"}), "event_name"),
    ] {
        assert_eq!(refused_at(&rule, &with(good.clone(), changes.clone())), claim, "{changes}");
    }
}

#[test]
fn a_rule_written_without_ids_accepts_both_shapes_of_sub_if_the_ids_are_the_tokens_own() {
    let rule = one(Github, BY_SUB);
    accepts(&rule, &numbered("repo:org@1/name@2:ref:refs/heads/main"));
    let without_ids =
        with(numbered("repo:org@1/name@2:ref:refs/heads/main"), json!({"repository_id": 2, "repository_owner_id": 1}));
    accepts(&rule, &without_ids);
    for sub in [
        "repo:org@1/name@3:ref:refs/heads/main",
        "repo:org@3/name@2:ref:refs/heads/main",
        "repo:org@2/name@1:ref:refs/heads/main",
        "repo:org@1/name:ref:refs/heads/main",
        "repo:org/name@2:ref:refs/heads/main",
        "repo:org@1@1/name@2:ref:refs/heads/main",
        "repo:org@/name@:ref:refs/heads/main",
        "repo:org@1/name@2/x:ref:refs/heads/main",
        "repo:org@1/name@2:ref:refs/heads/main2",
        "repo:org@1/other@2:ref:refs/heads/main",
        "repo:evil@1/name@2:ref:refs/heads/main",
        "repo:org@1/name@2",
        "org@1/name@2:ref:refs/heads/main",
        "xrepo:org/name:ref:refs/heads/main",
        "repo:org/name:x:ref:refs/heads/main",
    ] {
        assert_eq!(refused_at(&rule, &numbered(sub)), "sub", "{sub}");
    }
}

#[test]
fn a_rule_written_with_ids_accepts_that_shape_only_and_pins_nothing_more() {
    let rule = one(Github, &[("sub", "repo:org@1/name@2:ref:refs/heads/main")]);
    assert!(rule.has_immutable_ids());
    accepts(&rule, &numbered("repo:org@1/name@2:ref:refs/heads/main"));
    for sub in
        ["repo:org/name:ref:refs/heads/main", "repo:org@1/name@3:ref:refs/heads/main", "repo:org@12/name@2:ref:refs/heads/main"]
    {
        assert_eq!(refused_at(&rule, &numbered(sub)), "sub", "{sub}");
    }
    let others = with(numbered("repo:org@1/name@2:ref:refs/heads/main"), json!({"repository_id": "3"}));
    assert_eq!(refused_at(&rule, &others), "sub", "the ids in the sub are not the token's own");
    let open = one(Github, &[("sub", "repo:org@1/name@*:ref:refs/heads/main")]);
    assert!(!open.has_immutable_ids());
}

#[test]
fn a_sub_and_the_repository_of_another_are_refused() {
    assert_eq!(refused_at(&one(Github, BY_SUB), &with(github(), json!({"repository": "org/other"}))), "repository");
}

#[test]
fn jobs_that_strangers_may_start_are_refused_unless_the_rule_says_exactly_that() {
    for event in [
        "pull_request",
        "pull_request_target",
        "pull_request_review",
        "pull_request_review_comment",
        "workflow_run",
        "issue_comment",
        "issues",
        "discussion",
        "discussion_comment",
        "fork",
        "watch",
        "gollum",
    ] {
        let token = with(github(), json!({"event_name": event}));
        for wide in ["*", "pull_*", "*_*", "workflow_ru*", "issue_comment*"] {
            assert_eq!(
                refused_at(&one(Github, &[("repository", "org/name"), ("event_name", wide)]), &token),
                "event_name",
                "{event}"
            );
        }
        assert_eq!(refused_at(&one(Github, BY_NAME), &token), "event_name");
        assert_eq!(refused_at(&one(Github, &[("repository", "org/name"), ("event_name", "push")]), &token), "event_name");
        accepts(&one(Github, &[("repository", "org/name"), ("event_name", event)]), &token);
    }
    for event in ["push", "schedule", "workflow_dispatch", "release", "merge_group"] {
        accepts(&one(Github, BY_NAME), &with(github(), json!({"event_name": event})));
    }
}

#[test]
fn the_ids_behind_a_name_are_pinned_and_a_repository_made_anew_under_it_is_refused() {
    let rule = one(Github, BY_NAME);
    assert!(!rule.has_immutable_ids());
    let pins = rule.to_pin(&github(), &none());
    assert_eq!(pins, named(&[("repository_id", "2"), ("repository_owner_id", "1")]));
    let anew = github_of("org", "1", "name", "99");
    assert_eq!(rule.check(&anew, &pins), mismatch("repository_id", "2 (pinned on first use)", Some("99"), 1));
    let taken_over = github_of("org", "98", "name", "2");
    assert_eq!(rule.check(&taken_over, &pins), mismatch("repository_owner_id", "1 (pinned on first use)", Some("98"), 2));
    let without = with(github(), json!({"repository_id": null}));
    assert_eq!(rule.check(&without, &pins), mismatch("repository_id", "2 (pinned on first use)", None, 1));
    assert_eq!(rule.check(&with(github(), json!({"repository_id": 2})), &pins), Ok(()), "a number is as good as its text");
    assert_eq!(
        rule.check(&with(github(), json!({"repository_id": "02"})), &pins).expect_err("not the same").claim,
        "repository_id"
    );
}

#[test]
fn only_what_the_rule_does_not_name_by_id_is_pinned() {
    for (rule, pinned) in [
        (BY_NAME, &["repository_id", "repository_owner_id"][..]),
        (BY_SUB, &["repository_id", "repository_owner_id"]),
        (&[("repository", "org/name"), ("repository_id", "2")], &[]),
        (&[("repository_id", "2")], &[]),
        (&[("repository", "org/name"), ("repository_owner_id", "1")], &["repository_id"]),
        (&[("repository", "org/name"), ("repository_id", "*")], &["repository_id", "repository_owner_id"]),
    ] {
        let rule = one(Github, rule);
        assert_eq!(rule.to_pin(&github(), &none()).into_keys().collect::<Vec<_>>(), pinned);
        assert_eq!(rule.has_immutable_ids(), pinned.is_empty());
    }
    let organisation = whole(Github, &[("repository_owner", "org")]);
    assert_eq!(organisation.to_pin(&github(), &none()), named(&[("repository_owner_id", "1")]));
    let pinned = named(&[("repository_owner_id", "1")]);
    assert_eq!(organisation.check(&github_of("org", "1", "another", "77"), &pinned), Ok(()));
    assert!(organisation.check(&github_of("org", "5", "another", "77"), &pinned).is_err());
    assert!(whole(Github, &[("repository", "org/*"), ("repository_owner_id", "1")]).has_immutable_ids());
    let half = named(&[("repository_id", "2")]);
    assert_eq!(one(Github, BY_NAME).to_pin(&github(), &half), named(&[("repository_owner_id", "1")]), "the rest is pinned");
}

#[test]
fn pins_hold_even_where_the_rule_would_not_pin() {
    let rule = one(Github, &[("repository_id", "2")]);
    let pins = named(&[("repository_owner_id", "1")]);
    assert_eq!(rule.check(&github(), &pins), Ok(()));
    assert!(rule.check(&github_of("evil", "6", "name", "2"), &pins).is_err());
}

#[test]
fn the_first_mismatch_is_told_with_what_was_fulfilled_before() {
    let rule =
        one(Github, &[("actor", "me"), ("repository", "org/name"), ("ref", "refs/heads/main"), ("sub", "repo:org/name:*:*")]);
    let token = with(github(), json!({"sub": "repo:org/name:environment:prod", "actor": "me"}));
    accepts(&rule, &token);
    let check = |changes: Value| rule.check(&with(token.clone(), changes), &none());
    assert_eq!(check(json!({"repository": "org/x", "ref": "x"})), mismatch("repository", "org/name", Some("org/x"), 0));
    assert_eq!(check(json!({"sub": "x", "ref": "x"})), mismatch("sub", "repo:org/name:*:*", Some("x"), 1));
    assert_eq!(check(json!({"actor": null, "ref": "x"})), mismatch("actor", "me", None, 2));
    assert_eq!(check(json!({"ref": "x\r\ny"})), mismatch("ref", "refs/heads/main", Some("xy"), 3));
    let ids = "an id, which is pinned on first use";
    assert_eq!(check(json!({"repository_id": null, "event_name": null})), mismatch("repository_id", ids, None, 4));
    assert_eq!(check(json!({"event_name": null})), mismatch("event_name", "what started the job", None, 6));
    let told = check(json!({"event_name": "pull_request"})).expect_err("refused");
    assert!(told.expected.contains("`event_name: pull_request`"), "{told:?}");
    assert_eq!((told.got.as_deref(), told.fulfilled), (Some("pull_request"), 6));
    let long = check(json!({"ref": "x".repeat(5000)})).expect_err("refused");
    assert_eq!(long.got.expect("a value").len(), 256);
}
