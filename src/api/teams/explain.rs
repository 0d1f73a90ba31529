//! `POST /teams/{team}/trust-rules/explain`: why a job is let in, or is not.

use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Json, PathName},
    problem::Problem,
    validation::Validation,
};
use crate::{
    broker::{ExplainOf, Explained},
    identity::Mismatch,
    secret::PresentedCredential,
};

/// Claims, or a JWT: one of the two. No list in them has more than 200 values.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Explain {
    /// Claims as they stand in a JWT, `iss` included.
    #[schema(value_type = Option<BTreeMap<String, Value>>, example = json!({"iss": "https://token.actions.githubusercontent.com", "repository": "acme/web", "ref": "refs/heads/main", "event_name": "push"}))]
    claims: Option<Map<String, Value>>,
    /// A JWT: it is verified too, and not used up.
    #[schema(value_type = Option<String>, example = "eyJ…")]
    jwt: Option<PresentedCredential>,
}

/// What a team's rules say.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Explanation {
    /// Why the JWT is refused whatever the rules say; `null`: it is good, or claims were given.
    #[schema(example = json!(null))]
    jwt_refused: Option<String>,
    /// Every rule of the team.
    items: Vec<RuleExplained>,
}

/// What one rule says.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RuleExplained {
    #[schema(example = "deploy-main")]
    rule: String,
    matched: bool,
    /// The first claim that failed; `null`: none did.
    failed: Option<FailedClaim>,
}

/// A claim that is not what a rule asks for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct FailedClaim {
    #[schema(example = "ref")]
    claim: String,
    #[schema(example = "refs/heads/main")]
    expected: String,
    /// `null`: the claim is absent.
    #[schema(example = "refs/heads/feature")]
    got: Option<String>,
}

impl From<Mismatch> for FailedClaim {
    fn from(why: Mismatch) -> Self {
        Self { claim: why.claim, expected: why.expected, got: why.got }
    }
}

impl From<Explained> for RuleExplained {
    fn from(explained: Explained) -> Self {
        Self { rule: explained.rule, matched: explained.why_not.is_none(), failed: explained.why_not.map(FailedClaim::from) }
    }
}

/// Explain trust rules
///
/// For each rule of the team: whether it lets these claims or this JWT in, or the first claim that failed, with what was expected
/// and what was got. Nothing is learnt from it and no JWT is used up.
#[utoipa::path(post, path = "/teams/{team}/trust-rules/explain", tag = docs::TEAMS, security(("bearer" = [])), request_body = Explain,
    params(("team" = String, Path, description = "The team's name.", example = "demo")),
    responses((status = 200, description = "Rule by rule.", body = Explanation)))]
pub(in crate::api) async fn explain_trust_rules(
    State(state): State<ApiState>,
    who: Authenticated,
    PathName(team): PathName,
    Json(asked): Json<Explain>,
) -> Result<Answer<Explanation>, Problem> {
    let one = asked.claims.is_some() != asked.jwt.is_some();
    Validation::default().check("claims", one, "give claims or jwt: one of the two").done()?;
    let of = match asked.jwt {
        Some(jwt) => ExplainOf::Jwt(jwt),
        None => ExplainOf::Claims(asked.claims.unwrap_or_default()),
    };
    let explained = state.broker.explain(&who.caller, &team, of).await?;
    let items = explained.rules.into_iter().map(RuleExplained::from).collect();
    Ok(Answer(Explanation { jwt_refused: explained.jwt_refused, items }))
}
