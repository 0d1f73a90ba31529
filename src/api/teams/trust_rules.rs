//! `/teams/{team}/trust-rules`.

use std::collections::BTreeMap;

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, Parameters, PathName, PathNames, each_once},
    page::{Page, PageParameters},
    problem::{Problem, ProblemBody},
    validation::Validation,
};
use crate::{
    broker::TrustRule,
    identity::Role,
    names::{Name, TokenPattern},
    store::TrustRuleRow,
};

/// Longest session, seconds.
const A_DAY: i64 = 86_400;
/// Where nothing is said: the longest common CI job.
const SESSION_MAX: i32 = 21_600;

/// A trust rule to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct WriteTrustRule {
    /// Unique in its team, and not `explain`. On `PUT` it may be left out: the path has it.
    #[schema(value_type = Option<String>, example = "deploy-main")]
    name: Option<Name>,
    /// One of the service's trusted issuers, exactly as configured.
    #[schema(example = "https://token.actions.githubusercontent.com")]
    issuer: String,
    /// Claim to pattern: literal text in which `*` stands for any run of characters but `/`, `:` and `@`. All must match.
    #[serde(deserialize_with = "each_once")]
    #[schema(example = json!({"repository": "acme/web", "ref": "refs/heads/main"}))]
    claims: BTreeMap<String, String>,
    /// `ci`, `viewer` or `admin`.
    #[schema(value_type = String, pattern = "^(ci|viewer|admin)$", example = "ci")]
    role: Role,
    /// Token names and `*` globs; absent: all of the team.
    #[schema(value_type = Option<Vec<String>>, example = json!(["deploy", "ci-*"]))]
    tokens: Option<Vec<TokenPattern>>,
    /// Longest session, seconds, at most 86400; 0: no sessions; absent: 21600.
    #[schema(example = 21_600)]
    session_max: Option<i64>,
    /// Whether the rule is meant for every repository or project of an owner; absent: no.
    #[schema(example = false)]
    whole_organisation: Option<bool>,
    /// Whether each JWT is good for one call only, by its `jti`; absent: no.
    #[schema(example = false)]
    single_use: Option<bool>,
}

/// A trust rule.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ShownTrustRule {
    #[schema(example = "deploy-main")]
    name: String,
    #[schema(example = "https://token.actions.githubusercontent.com")]
    issuer: String,
    /// Claim to pattern.
    #[schema(example = json!({"repository": "acme/web", "ref": "refs/heads/main"}))]
    claims: BTreeMap<String, String>,
    #[schema(example = "ci")]
    role: String,
    /// Token names and globs.
    #[schema(example = json!(["deploy", "ci-*"]))]
    tokens: Vec<String>,
    /// Seconds; 0: no sessions.
    #[schema(example = 21_600)]
    session_max: i32,
    whole_organisation: bool,
    single_use: bool,
    /// Ids that never change, learnt at the first use of a rule that has only names: a repository made anew under the same name has
    /// others, and is refused.
    #[schema(example = json!({"repository_id": "123456789", "repository_owner_id": "98765"}))]
    pins: BTreeMap<String, String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Who wrote it, or changed it last.
    #[schema(example = "key:payments/admin")]
    created_by: String,
    /// To the minute; `null`: not yet.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

impl From<TrustRuleRow> for ShownTrustRule {
    fn from(row: TrustRuleRow) -> Self {
        Self {
            name: row.name,
            issuer: row.issuer,
            claims: row.claims.0,
            role: row.role,
            tokens: row.token_patterns,
            session_max: row.session_max,
            whole_organisation: row.whole_organisation,
            single_use: row.single_use,
            pins: row.pins.0,
            created_at: row.created_at,
            created_by: row.created_by,
            last_used_at: row.last_used_at,
        }
    }
}

impl WriteTrustRule {
    fn accepted(self, name: Option<Name>) -> Result<TrustRule, Problem> {
        let tokens = self.tokens.unwrap_or_else(|| vec![TokenPattern::all()]);
        let mut checks = Validation::default();
        checks
            .check("name", name.is_some() || self.name.is_some(), "missing field `name`")
            .check("name", name.is_none() || self.name.is_none() || name == self.name, "must be the one of the path, or left out")
            .check(
                "role",
                self.role != Role::PlatformAdmin,
                "must be ci, viewer or admin: platform-admin is not granted under a team",
            )
            .check("tokens", (1..=50).contains(&tokens.len()), "must have 1 to 50 names or patterns")
            .seconds("session_max", self.session_max, 0..=A_DAY);
        let Some(name) = name.or(self.name) else { return Err(checks.done().expect_err("a name is missing")) };
        let explain = name.as_str() == "explain";
        checks.check("name", !explain, "must not be explain: that is a path of this API").done()?;
        Ok(TrustRule {
            name,
            issuer: self.issuer,
            claims: self.claims,
            whole_organisation: self.whole_organisation.unwrap_or(false),
            role: self.role,
            tokens,
            // It was checked to be small.
            session_max: self.session_max.and_then(|seconds| i32::try_from(seconds).ok()).unwrap_or(SESSION_MAX),
            single_use: self.single_use.unwrap_or(false),
        })
    }
}

/// Write a trust rule
///
/// Lets jobs in by the identity their CI gives them, so that they hold no secret. The rule is judged now: one that pins nothing, a
/// whole organisation without its flag, an unknown issuer or claim are refused, and the answer says why. It cannot give more than
/// its writer has.
#[utoipa::path(post, path = "/teams/{team}/trust-rules", tag = docs::TEAMS, security(("bearer" = [])), request_body = WriteTrustRule,
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 201, description = "The rule.", body = ShownTrustRule,
               headers(("Location" = String, description = "Its path."))),
              (status = 409, description = "`name-taken`.", body = inline(ProblemBody<'static>), content_type = "application/problem+json")))]
pub(in crate::api) async fn create_trust_rule(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Json(new): Json<WriteTrustRule>,
) -> Result<impl IntoResponse, Problem> {
    let row = state.broker.create_trust_rule(&who.caller, &team, new.accepted(None)?, &who.actor).await?;
    let location = format!("/teams/{team}/trust-rules/{}", row.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(ShownTrustRule::from(row))))
}

/// List a team's trust rules
///
/// With what they learnt, and when each was used last.
#[utoipa::path(get, path = "/teams/{team}/trust-rules", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name.", example = "demo"), PageParameters),
    responses((status = 200, description = "A page of rules.", body = Page<ShownTrustRule>)))]
pub(in crate::api) async fn list_trust_rules(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<ShownTrustRule>>, Problem> {
    let (after, limit) = page.read()?;
    let rules = state.broker.list_trust_rules(&who.caller, &team, &after, limit).await?;
    Ok(Answer(Page::new(rules.into_iter().map(ShownTrustRule::from).collect(), limit, |rule| &rule.name)))
}

/// Read a trust rule
#[utoipa::path(get, path = "/teams/{team}/trust-rules/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The rule's name.")),
    responses((status = 200, description = "The rule.", body = ShownTrustRule)))]
pub(in crate::api) async fn get_trust_rule(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<Answer<ShownTrustRule>, Problem> {
    Ok(Answer(state.broker.trust_rule(&who.caller, &team, &name).await?.into()))
}

/// Replace a trust rule
///
/// Felt within a second on every replica; sessions that came from the rule end. What it learnt stays where issuer and claims do.
#[utoipa::path(put, path = "/teams/{team}/trust-rules/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    request_body = WriteTrustRule,
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The rule's name.")),
    responses((status = 200, description = "The rule as it is now.", body = ShownTrustRule)))]
pub(in crate::api) async fn replace_trust_rule(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
    Json(new): Json<WriteTrustRule>,
) -> Result<Answer<ShownTrustRule>, Problem> {
    let rule = new.accepted(Some(name))?;
    Ok(Answer(state.broker.replace_trust_rule(&who.caller, &team, rule, &who.actor).await?.into()))
}

/// Delete a trust rule
///
/// Felt within a second on every replica; sessions that came from it end.
#[utoipa::path(delete, path = "/teams/{team}/trust-rules/{name}", tag = docs::TEAMS, security(("bearer" = [])),
    params(("team" = String, Path, description = "The team's name."),
           ("name" = String, Path, description = "The rule's name.")),
    responses((status = 204, description = "It is gone.")))]
pub(in crate::api) async fn delete_trust_rule(
    State(state): State<ApiState>,
    who: Authenticated,
    PathNames(team, name): PathNames,
) -> Result<StatusCode, Problem> {
    state.broker.delete_trust_rule(&who.caller, &team, &name, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
