//! GitLab CI's ID tokens (docs.gitlab.com, "OpenID Connect (OIDC) authentication using ID tokens").

use super::{
    pattern::{ClaimPattern, is_full},
    rule::Named,
    tokens::{Reach, Tokens},
};

pub(super) static TOKENS: Tokens = Tokens {
    claims: &[
        "ci_config_ref_uri",
        "ci_config_sha",
        "deployment_tier",
        "environment",
        "environment_action",
        "environment_protected",
        "groups_direct",
        "job_config/sha",
        "job_config/url",
        "job_id",
        "job_namespace_id",
        "job_namespace_path",
        "job_project_id",
        "job_project_path",
        "job_source",
        "namespace_id",
        "namespace_path",
        "pipeline_id",
        "pipeline_source",
        "project_id",
        "project_path",
        "project_visibility",
        "ref",
        "ref_path",
        "ref_protected",
        "ref_type",
        "runner_environment",
        "runner_id",
        "sha",
        "sub",
        "user_access_level",
        "user_email",
        "user_id",
        "user_login",
    ],
    first: &["project_path", "project_id", "sub", "namespace_path", "namespace_id"],
    // The child of a merge request's pipeline says only that it has a parent: whoever wants children names them.
    trigger: Some(("pipeline_source", &["merge_request_event", "external_pull_request_event", "parent_pipeline"])),
    told: &[
        ("project_path", "project_path"),
        ("project_id", "project_id"),
        ("job_project_path", "job_project_path"),
        ("ref", "ref"),
        ("ref_type", "ref_type"),
        ("sha", "sha"),
        ("pipeline_source", "pipeline_source"),
        ("pipeline_id", "pipeline_id"),
        ("job_id", "job_id"),
        ("environment", "environment"),
        ("user_login", "user_login"),
    ],
    reach,
    implied,
    advice: "name one project: `project_path: group/project` in full, or its `project_id`; \
             a `*` in the group's or the project's path pins nothing",
};

/// The claim with the same meaning for the project in which the job runs: in the pipeline of a fork's merge request that is another
/// project than `project_path` tells, which is the fork.
pub(super) fn of_the_job(claim: &str) -> Option<&'static str> {
    match claim {
        "project_id" => Some("job_project_id"),
        "project_path" => Some("job_project_path"),
        "namespace_id" => Some("job_namespace_id"),
        "namespace_path" => Some("job_namespace_path"),
        _ => None,
    }
}

/// The project in a `sub`, or in a pattern for one: `project_path:group/project:…`.
fn subject(sub: &str) -> Option<&str> {
    sub.strip_prefix("project_path:").and_then(|rest| rest.split(':').next())
}

/// The group, which may have groups of its own, and the project.
fn split(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/').filter(|(group, project)| is_group(group) && !project.is_empty() && !project.contains([':', '@']))
}

fn is_group(path: &str) -> bool {
    !path.contains([':', '@']) && path.split('/').all(is_full)
}

fn reach(named: &Named) -> Reach {
    let paths = || [named.text("project_path"), named.text("sub").and_then(subject)].into_iter().flatten().filter_map(split);
    if named.number("project_id") || paths().any(|(_, project)| is_full(project)) {
        return Reach::One;
    }
    let group = named.text("namespace_path").is_some_and(is_group) || named.number("namespace_id");
    if group || paths().next().is_some() { Reach::Whole } else { Reach::Unbound }
}

fn implied(claim: &str, pattern: &ClaimPattern) -> Vec<(&'static str, ClaimPattern)> {
    if claim == "sub" {
        let path = subject(pattern.as_str()).map(ClaimPattern::piece);
        return path.into_iter().flat_map(|path| [("project_path", path.clone()), ("job_project_path", path)]).collect();
    }
    of_the_job(claim).map(|job| (job, pattern.clone())).into_iter().collect()
}
