//! `/tokens`.

pub(super) mod children;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod import;
pub(super) mod issue;
pub(super) mod list;
pub(super) mod lockdown;
pub(super) mod read;
pub(super) mod recreate;
pub(super) mod refresh;
pub(super) mod revoke_handed_out;
pub(super) mod update;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::validation::Validation;
use crate::{
    broker::TokenSettings,
    identity::{Caller, Role},
    names::Name,
    secret::{AccessToken, IdentityToken, RefreshToken},
    store::{ChainState, TokenState, TokenView},
};

/// Longest life of a token that JFrog is asked for, and longest `reuse_for`: ten years, seconds.
const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// A registration. Never a secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Token {
    /// The team it belongs to.
    #[schema(example = "payments")]
    team: String,
    /// Its name, unique in the team.
    #[schema(example = "deploy")]
    name: String,
    #[schema(example = "pushes images from the main branch")]
    description: String,
    /// Which configured JFrog.
    #[schema(example = "main")]
    instance: String,
    /// Granted by JFrog, or asked for while there is no pair yet.
    #[schema(example = "applied-permissions/user")]
    scope: Option<String>,
    /// Asked of JFrog; `null`: its default.
    #[schema(example = "*@*")]
    audience: Option<String>,
    /// JFrog's `sub` claim.
    #[schema(example = "jfac@01hzy/users/deployer")]
    subject: Option<String>,
    /// JFrog's id of the younger chain's access token.
    #[schema(example = "5f1c6c0e-2d6f-4e0e-9a6e-0f3f9d0c7b11")]
    token_id: Option<String>,
    /// First 16 hex digits of that access token's SHA-256.
    #[schema(example = "9f86d081884c7d65")]
    fingerprint: Option<String>,
    status: Status,
    /// Counts rotations of either chain, from 1.
    #[schema(example = 7)]
    generation: i64,
    /// Of the younger chain; `null`: never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// Of the younger chain.
    #[serde(with = "time::serde::rfc3339::option")]
    refreshed_at: Option<OffsetDateTime>,
    /// No rotation before: what was handed out must go on working until then.
    #[serde(with = "time::serde::rfc3339::option")]
    next_refresh_at: Option<OffsetDateTime>,
    /// Seconds, as configured.
    #[schema(example = 21_600)]
    reuse_for: i32,
    /// Seconds: `reuse_for`, bounded by what the younger chain's lifetime can keep: (lifetime − 60) / 2.
    #[schema(example = 21_600)]
    effective_reuse_for: i64,
    include_reference_token: bool,
    /// Longest life of a child token, seconds.
    #[schema(example = 21_600)]
    issue_max_expires_in: i32,
    /// What a child token may be given; `null`: the token's own scope.
    #[schema(example = json!(["applied-permissions/groups:readers"]))]
    issue_scopes: Option<Vec<String>>,
    chains: Vec<Chain>,
    last_error: Option<LastError>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[schema(example = "key:payments/admin")]
    created_by: String,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// Its chains are being made.
    Creating,
    /// A chain can be handed out.
    Active,
    /// A refresh was sent and its outcome is not known yet, and no chain can be handed out; the broker is finding out.
    Uncertain,
    /// Needs `recreate`; `last_error` says why.
    Lost,
    /// A delete that could not reach JFrog yet.
    Revoked,
}

/// One of the two independent lines of a token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Chain {
    /// a or b.
    #[schema(example = "a")]
    chain: &'static str,
    /// `active`, `uncertain` or `lost` (also: not made yet).
    #[schema(value_type = String, example = "active")]
    status: Status,
    token_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    refreshed_at: Option<OffsetDateTime>,
}

/// The last thing that went wrong; `null` again after a success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LastError {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// For programs.
    #[schema(example = "outcome-unknown")]
    kind: String,
    /// May quote JFrog; shown to admins only.
    #[schema(example = "JFrog did not answer in time")]
    detail: Option<String>,
}

impl Token {
    /// What `caller` may see of it.
    fn new(view: TokenView, team: &str, caller: &Caller) -> Self {
        let admin = caller.role_for(&view.name) >= Some(Role::Admin);
        let shown = view.younger().or_else(|| view.chains.iter().max_by_key(|chain| chain.refreshed_at)).cloned();
        let status = status(&view);
        let lifetime = shown.as_ref().and_then(|chain| Some((chain.expires_at? - chain.refreshed_at?).whole_seconds()));
        let reuse_for = i64::from(view.reuse_for);
        Self {
            team: team.to_owned(),
            status,
            effective_reuse_for: lifetime.map_or(reuse_for, |lifetime| reuse_for.min(((lifetime - 60) / 2).max(0))),
            next_refresh_at: (view.state == TokenState::Registered).then_some(view.rotatable_at),
            token_id: shown.as_ref().and_then(|chain| chain.jfrog_token_id.clone()),
            fingerprint: shown.as_ref().and_then(|chain| chain.fingerprint.clone()),
            expires_at: shown.as_ref().and_then(|chain| chain.expires_at),
            refreshed_at: shown.as_ref().and_then(|chain| chain.refreshed_at),
            scope: shown.and_then(|chain| chain.scope).or(view.scope),
            chains: view
                .chains
                .into_iter()
                .map(|chain| Chain {
                    chain: chain.letter.as_str(),
                    status: chain_status(chain.state),
                    token_id: chain.jfrog_token_id,
                    expires_at: chain.expires_at,
                    refreshed_at: chain.refreshed_at,
                })
                .collect(),
            last_error: view.last_error.map(|(at, kind, detail)| LastError { at, kind, detail: admin.then_some(detail) }),
            name: view.name,
            description: view.description,
            instance: view.instance,
            audience: view.audience,
            subject: view.subject,
            generation: view.generation,
            reuse_for: view.reuse_for,
            include_reference_token: view.include_reference_token,
            issue_max_expires_in: view.issue_max_expires_in,
            issue_scopes: view.issue_scopes,
            created_at: view.created_at,
            created_by: view.created_by,
        }
    }
}

fn status(view: &TokenView) -> Status {
    match view.state {
        TokenState::Creating => Status::Creating,
        TokenState::Revoked => Status::Revoked,
        TokenState::Registered if view.younger().is_some() => Status::Active,
        TokenState::Registered if view.chains.iter().any(|chain| chain.state == ChainState::Uncertain) => Status::Uncertain,
        TokenState::Registered => Status::Lost,
    }
}

fn chain_status(state: ChainState) -> Status {
    match state {
        ChainState::Active => Status::Active,
        ChainState::Uncertain => Status::Uncertain,
        ChainState::Lost => Status::Lost,
    }
}

// The credentials, of which each way takes its own, are read here too: serde's `flatten` would lose which field is wrong.
/// What both ways of registering say about the token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Unique in its team: `[a-z0-9][a-z0-9._-]{0,62}`, and not `import`.
    #[schema(value_type = String, example = "deploy")]
    pub name: Name,
    /// For people, here and at JFrog.
    #[schema(example = "pushes images from the main branch")]
    pub description: Option<String>,
    /// Asked of JFrog; absent: its default, everything the user may.
    #[schema(example = "applied-permissions/user")]
    pub scope: Option<String>,
    /// Asked of JFrog; absent: its default, `*@*`.
    #[schema(example = "*@*")]
    pub audience: Option<String>,
    /// Seconds; absent: JFrog's default (a year), 0: never expires.
    #[schema(example = 86_400)]
    pub expires_in: Option<i64>,
    /// Whether a reference token is wanted besides; absent: no.
    #[schema(example = false)]
    pub include_reference_token: Option<bool>,
    /// JFrog's project.
    #[schema(example = "pay")]
    pub project_key: Option<String>,
    /// Which configured JFrog; absent: the first.
    #[schema(example = "main")]
    pub instance: Option<String>,
    /// Seconds that a token which was handed out must go on working; absent: 21600, the longest common CI job.
    #[schema(example = 21_600)]
    pub reuse_for: Option<i64>,
    /// 2, or 1 with the weaker promise; absent: 2.
    #[schema(example = 2)]
    pub chains: Option<i64>,
    /// Longest life of a child token (`issue`), seconds; absent: 21600.
    #[schema(example = 21_600)]
    pub issue_max_expires_in: Option<i64>,
    /// What a child token may be given; absent: the token's own scope.
    #[schema(example = json!(["applied-permissions/groups:readers"]))]
    pub issue_scopes: Option<Vec<String>>,
    #[schema(ignore)]
    identity_token: Option<IdentityToken>,
    #[schema(ignore)]
    access_token: Option<AccessToken>,
    #[schema(ignore)]
    refresh_token: Option<RefreshToken>,
}

/// Serde's own words, for a credential that is missing or of the other way of registering.
fn missing(field: &str) -> String {
    format!("missing field `{field}`")
}

fn unknown(field: &str, given: bool) -> Result<(), String> {
    if given { Err(format!("unknown field `{field}`")) } else { Ok(()) }
}

impl Settings {
    fn check<'a>(&self, checks: &'a mut Validation) -> &'a mut Validation {
        let project = self.project_key.as_deref();
        checks
            .check("name", self.name.as_str() != "import", "must not be import: that is a path of this API")
            .text("description", self.description.as_deref(), 900)
            .words("scope", self.scope.as_deref(), 500)
            .words("audience", self.audience.as_deref(), 255)
            .words("project_key", project, 32)
            .check("project_key", project.is_none_or(|key| key.len() >= 2), "must have at least 2 characters")
            .seconds("expires_in", self.expires_in, 0..=TEN_YEARS)
            .seconds("reuse_for", self.reuse_for, 0..=TEN_YEARS)
            .check("chains", matches!(self.chains, None | Some(1 | 2)), "must be 1 or 2")
            .seconds("issue_max_expires_in", self.issue_max_expires_in, 1..=TEN_YEARS)
            .scopes("issue_scopes", self.issue_scopes.as_deref())
    }

    fn accepted(self) -> TokenSettings {
        TokenSettings {
            name: self.name,
            description: self.description.unwrap_or_default(),
            scope: self.scope,
            audience: self.audience,
            project_key: self.project_key,
            expires_in: self.expires_in,
            include_reference_token: self.include_reference_token.unwrap_or(false),
            instance: self.instance,
            // Both were checked to be small.
            reuse_for: self.reuse_for.and_then(|seconds| i32::try_from(seconds).ok()),
            chains: self.chains.and_then(|count| i16::try_from(count).ok()),
            issue_max_expires_in: self.issue_max_expires_in.and_then(|seconds| i32::try_from(seconds).ok()),
            issue_scopes: self.issue_scopes,
        }
    }
}

/// The path of a token, for `Location`.
fn location(name: &str, team: &str) -> String {
    format!("/tokens/{name}?team={team}")
}
