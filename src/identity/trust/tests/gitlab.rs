//! GitLab's tokens.

use super::*;
use IssuerKind::Gitlab;

const BY_PATH: Rule<'static> = &[("project_path", "group/project")];
const BY_SUB: Rule<'static> = &[("sub", "project_path:group/project:ref_type:branch:ref:main")];

/// The pipeline of a merge request of this fork, running in `group/project`.
fn of_fork() -> Map<String, Value> {
    let job = json!({"job_project_id": "20", "job_project_path": "group/project", "job_namespace_id": "72", "job_namespace_path": "group",
        "pipeline_source": "merge_request_event"});
    with(gitlab_of("evil", "73", "project", "21"), job)
}

#[test]
fn the_job_that_a_rule_names_is_let_in() {
    for rule in [
        BY_PATH,
        BY_SUB,
        &[("project_id", "20")],
        &[("project_path", "group/project"), ("ref", "main"), ("ref_protected", "true"), ("runner_id", "1")],
        &[("project_path", "group/project"), ("groups_direct", "group/*")],
        &[("project_id", "20"), ("namespace_path", "*")],
    ] {
        accepts(&one(Gitlab, rule), &gitlab());
    }
    accepts(&one(Gitlab, &[("project_path", "group/sub/project")]), &gitlab_of("group/sub", "74", "project", "22"));
    for rule in [&[("namespace_path", "group")][..], &[("namespace_id", "72")], &[("project_path", "group/*")]] {
        accepts(&whole(Gitlab, rule), &gitlab());
    }
    accepts(&whole(Gitlab, &[("project_path", "group/sub/*")]), &gitlab_of("group/sub", "74", "project", "22"));
}

#[test]
fn another_job_is_not() {
    let rule = one(Gitlab, &[("project_path", "group/project"), ("ref_path", "refs/heads/main"), ("groups_direct", "group/*")]);
    accepts(&rule, &gitlab());
    for (changes, claim) in [
        (json!({"project_path": "group/other"}), "project_path"),
        (json!({"project_path": "group/sub/project"}), "project_path"),
        (json!({"project_path": "Group/project"}), "project_path"),
        (json!({"project_path": null}), "project_path"),
        (json!({"ref_path": "refs/tags/main"}), "ref_path"),
        (json!({"groups_direct": ["other", "group/a/b", "group"]}), "groups_direct"),
        (json!({"groups_direct": []}), "groups_direct"),
        (json!({"groups_direct": null}), "groups_direct"),
        (json!({"project_id": null}), "project_id"),
        (json!({"project_id": true}), "project_id"),
        (json!({"pipeline_source": null}), "pipeline_source"),
        (json!({"pipeline_source": "merge_request_event"}), "pipeline_source"),
        (json!({"job_project_path": "group/other"}), "job_project_path"),
        (json!({"job_project_path": {}}), "job_project_path"),
        (json!({"job_project_id": "21"}), "job_project_id"),
    ] {
        assert_eq!(refused_at(&rule, &with(gitlab(), changes.clone())), claim, "{changes}");
    }
    let whole = whole(Gitlab, &[("namespace_path", "group")]);
    assert_eq!(
        refused_at(&whole, &gitlab_of("group/sub", "74", "project", "22")),
        "namespace_path",
        "a subgroup is another group"
    );
    assert_eq!(refused_at(&whole, &with(gitlab(), json!({"job_namespace_id": "1"}))), "job_namespace_id");
}

#[test]
fn merge_requests_are_refused_unless_the_rule_says_exactly_that() {
    for source in ["merge_request_event", "external_pull_request_event", "parent_pipeline"] {
        let token = with(gitlab(), json!({"pipeline_source": source}));
        for wide in ["*", "*_event", "merge_*", "*pipeline"] {
            let rule = one(Gitlab, &[("project_path", "group/project"), ("pipeline_source", wide)]);
            assert_eq!(refused_at(&rule, &token), "pipeline_source", "{source}");
        }
        assert_eq!(refused_at(&one(Gitlab, BY_PATH), &token), "pipeline_source");
        assert_eq!(refused_at(&one(Gitlab, &[("project_id", "20")]), &token), "pipeline_source");
        accepts(&one(Gitlab, &[("project_path", "group/project"), ("pipeline_source", source)]), &token);
    }
    for source in ["push", "web", "schedule", "api", "trigger", "pipeline"] {
        accepts(&one(Gitlab, BY_PATH), &with(gitlab(), json!({"pipeline_source": source})));
    }
}

#[test]
fn the_merge_request_of_a_fork_is_neither_the_forks_job_nor_the_projects() {
    let event = ("pipeline_source", "merge_request_event");
    for (rule, claim) in [
        // The fork's rule: its code runs in a project that it does not control.
        (&[("project_path", "evil/project"), event][..], "job_project_path"),
        (&[("project_id", "21"), event], "job_project_id"),
        (&[("sub", "project_path:evil/project:ref_type:branch:ref:main"), event], "job_project_path"),
        (&[("project_id", "21"), ("namespace_path", "evil"), event], "job_project_id"),
        // The project's rule: a stranger's code runs there.
        (&[("project_path", "group/project"), event], "project_path"),
        (&[("project_id", "20"), event], "project_id"),
        (&[("sub", "project_path:group/project:ref_type:branch:ref:main"), event], "sub"),
        (&[("project_id", "20"), ("job_project_id", "20"), event], "project_id"),
    ] {
        assert_eq!(refused_at(&one(Gitlab, rule), &of_fork()), claim, "{rule:?}");
    }
    for (rule, claim) in [
        (&[("namespace_path", "evil"), event][..], "job_namespace_path"),
        (&[("namespace_id", "73"), event], "job_namespace_id"),
        (&[("project_path", "evil/*"), event], "job_project_path"),
        (&[("namespace_path", "group"), event], "namespace_path"),
    ] {
        assert_eq!(refused_at(&whole(Gitlab, rule), &of_fork()), claim, "{rule:?}");
    }
}

#[test]
fn an_older_gitlab_without_the_claims_of_the_job_is_let_in() {
    let older = with(
        gitlab(),
        json!({"job_project_id": null, "job_project_path": null, "job_namespace_id": null, "job_namespace_path": null}),
    );
    for rule in [BY_PATH, BY_SUB, &[("project_id", "20")]] {
        accepts(&one(Gitlab, rule), &older);
    }
}

#[test]
fn the_id_behind_a_path_is_pinned_and_holds_for_the_job_too() {
    let rule = one(Gitlab, BY_PATH);
    let pins = rule.to_pin(&gitlab(), &none());
    assert_eq!(pins, named(&[("project_id", "20")]));
    let anew = gitlab_of("group", "72", "project", "99");
    assert_eq!(rule.check(&anew, &pins), mismatch("project_id", "20 (pinned on first use)", Some("99"), 1));
    let elsewhere = with(gitlab(), json!({"job_project_id": "99"}));
    assert_eq!(rule.check(&elsewhere, &pins), mismatch("job_project_id", "20, as project_id", Some("99"), 1));
    assert!(one(Gitlab, &[("project_path", "group/project"), ("project_id", "20")]).has_immutable_ids());
    assert!(!one(Gitlab, &[("project_path", "group/project"), ("namespace_id", "72")]).has_immutable_ids());
    let group = whole(Gitlab, &[("namespace_path", "group")]);
    assert_eq!(group.to_pin(&gitlab(), &none()), named(&[("namespace_id", "72")]));
    assert_eq!(refused_at(&group, &with(gitlab(), json!({"namespace_id": null}))), "namespace_id");
    assert!(whole(Gitlab, &[("namespace_id", "72")]).has_immutable_ids());
}
