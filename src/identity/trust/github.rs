//! GitHub Actions' tokens (docs.github.com, "OpenID Connect reference").

use serde_json::{Map, Value};

use super::{
    claim,
    pattern::{ClaimPattern, is_full},
    rule::Named,
    tokens::{Reach, Tokens},
};

/// `owner/name` is compared exactly: people may write it in any case, the claim has the one spelling of GitHub's page.
pub(super) static TOKENS: Tokens = Tokens {
    claims: &[
        "actor",
        "actor_id",
        "base_ref",
        "check_run_id",
        "enterprise",
        "enterprise_id",
        "environment",
        "environment_node_id",
        "event_name",
        "head_ref",
        "issuer_scope",
        "job_workflow_ref",
        "job_workflow_sha",
        "ref",
        "ref_protected",
        "ref_type",
        "repo_property_*",
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "repository_visibility",
        "run_attempt",
        "run_id",
        "run_number",
        "runner_environment",
        "sha",
        "sub",
        "workflow",
        "workflow_ref",
        "workflow_sha",
    ],
    first: &["repository", "repository_id", "sub", "repository_owner", "repository_owner_id"],
    // A review of a pull request runs the same merged code as the pull request; whoever sees a repository may open an issue, begin a
    // discussion, fork or watch it, and write in its wiki unless that is forbidden.
    trigger: Some((
        "event_name",
        &[
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
        ],
    )),
    told: &[
        ("repository", "repository"),
        ("repository_id", "repository_id"),
        ("ref", "ref"),
        ("sha", "sha"),
        ("event_name", "event_name"),
        ("workflow_ref", "workflow_ref"),
        ("job_workflow_ref", "job_workflow_ref"),
        ("environment", "environment"),
        ("run_id", "run_id"),
        ("run_attempt", "run_attempt"),
        ("actor", "actor"),
    ],
    reach,
    implied,
    advice: "name one repository: `repository: owner/name` in full, or its `repository_id`; \
             a `*` in the owner's or the repository's name pins nothing",
};

/// The repository part of a `sub`, or of a pattern for one: `repo:owner/name…`, or `repo:owner@id/name@id…`.
struct Subject<'a> {
    owner: &'a str,
    owner_id: Option<&'a str>,
    name: &'a str,
    id: Option<&'a str>,
    /// What follows, with its colon.
    rest: &'a str,
}

impl<'a> Subject<'a> {
    /// Both names have an id, or none has.
    fn parse(sub: &'a str) -> Option<Self> {
        let sub = sub.strip_prefix("repo:")?;
        let (repository, rest) = sub.split_at(sub.find(':').unwrap_or(sub.len()));
        let (owner, name) = repository.split_once('/').filter(|(_, name)| !name.contains('/'))?;
        match (owner.split_once('@'), name.split_once('@')) {
            (None, None) => Some(Self { owner, owner_id: None, name, id: None, rest }),
            (Some((owner, owner_id)), Some((name, id))) if !owner_id.contains('@') && !id.contains('@') => {
                Some(Self { owner, owner_id: Some(owner_id), name, id: Some(id), rest })
            }
            _ => None,
        }
    }
}

/// Whether a rule's `sub` matches the token's. One that is written without ids accepts both shapes; one that is written with them only
/// that shape, as the separators do not line up otherwise. The ids in a token's `sub` must be those in its other claims.
pub(super) fn sub_matches(pattern: &ClaimPattern, sub: &str, claims: &Map<String, Value>) -> bool {
    let Some(Subject { owner, owner_id: Some(owner_id), name, id: Some(id), rest }) = Subject::parse(sub) else {
        return pattern.matches(sub);
    };
    let same = |name: &str, id: &str| {
        claim::is_number(id) && claim::find(claims, name).is_none_or(|v| claim::text(v).as_deref() == Some(id))
    };
    same("repository_owner_id", owner_id)
        && same("repository_id", id)
        && (pattern.matches(sub) || pattern.matches(&format!("repo:{owner}/{name}{rest}")))
}

/// The ids that the rule gives itself, in claims of their own or in its `sub`.
pub(super) fn named_ids(named: &Named) -> Vec<&'static str> {
    let (owner_id, id) = named.text("sub").and_then(Subject::parse).map_or((None, None), |sub| (sub.owner_id, sub.id));
    [("repository_id", id), ("repository_owner_id", owner_id)]
        .into_iter()
        .filter(|(name, of_sub)| named.number(name) || of_sub.is_some_and(claim::is_number))
        .map(|(name, _)| name)
        .collect()
}

fn reach(named: &Named) -> Reach {
    let subject = named.text("sub").and_then(Subject::parse).map(|s| (s.owner, s.name));
    let repository =
        named.text("repository").and_then(|text| text.split_once('/')).filter(|(_, name)| !name.contains(['/', ':', '@']));
    let both = || [repository, subject].into_iter().flatten();
    if named.number("repository_id") || both().any(|(owner, name)| is_full(owner) && is_full(name)) {
        return Reach::One;
    }
    let owner = named.text("repository_owner").is_some_and(is_full) || named.number("repository_owner_id");
    if owner || both().any(|(owner, name)| is_full(owner) && !name.is_empty()) { Reach::Whole } else { Reach::Unbound }
}

/// A `sub` is one long text: the repository in it must be the token's, so that no name reads like the beginning of another's `sub`.
fn implied(claim: &str, pattern: &ClaimPattern) -> Vec<(&'static str, ClaimPattern)> {
    let subject = (claim == "sub").then(|| Subject::parse(pattern.as_str())).flatten();
    subject.map(|s| ("repository", ClaimPattern::piece(&format!("{}/{}", s.owner, s.name)))).into_iter().collect()
}
