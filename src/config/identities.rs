//! Settings about who calls: trusted issuers, platform admins among their identities, and limits.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;

use super::route;
use crate::{
    api::Rates,
    identity::{Conditions, IssuerSettings, PlatformRule},
    outbound,
};

/// The `aud` of CI identities where nothing is said.
const AUDIENCE: &str = "token-broker";

/// What `serve` needs to know about callers.
#[derive(Args, Clone)]
pub(super) struct IdentityOptions {
    /// Trusted issuers of CI identities, comma separated: `[github|gitlab|kubernetes|plain=]URL[ ALGORITHM…]`.
    #[arg(long, env = "TOKEN_BROKER_OIDC_ISSUERS", value_name = "ISSUERS")]
    oidc_issuers: Option<String>,
    /// The `aud` a CI identity must carry.
    #[arg(long, env = "TOKEN_BROKER_OIDC_AUDIENCE", default_value = AUDIENCE, value_name = "AUDIENCE")]
    oidc_audience: String,
    /// A private certificate authority of the issuers', PEM.
    #[arg(long, env = "TOKEN_BROKER_OIDC_CA", value_name = "FILE")]
    oidc_ca: Option<PathBuf>,
    /// A proxy on the way to the issuers; never taken from the environment otherwise.
    #[arg(long, env = "TOKEN_BROKER_OIDC_PROXY", hide_env_values = true, value_name = "URL")]
    oidc_proxy: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "TOKEN_BROKER_OIDC_PROXY_FILE", value_name = "FILE")]
    oidc_proxy_file: Option<PathBuf>,
    /// Which CI identities are platform admins: `[{"issuer": "https://…", "claims": {"claim": "pattern"}}, …]`.
    #[arg(long, env = "TOKEN_BROKER_PLATFORM_ADMINS", value_name = "JSON")]
    platform_admins: Option<String>,
    /// Requests a minute with one credential.
    #[arg(long, env = "TOKEN_BROKER_RATE_PER_CREDENTIAL", default_value_t = Rates::default().per_credential, value_name = "N")]
    rate_per_credential: NonZeroU32,
    /// Requests a minute from one address (IPv6: from one /64).
    #[arg(long, env = "TOKEN_BROKER_RATE_PER_ADDRESS", default_value_t = Rates::default().per_address, value_name = "N")]
    rate_per_address: NonZeroU32,
    /// Requests a minute with wrong credentials, from one address or for one key.
    #[arg(long, env = "TOKEN_BROKER_RATE_OF_FAILURES", default_value_t = Rates::default().failures, value_name = "N")]
    rate_of_failures: NonZeroU32,
}

/// Whose identities are trusted.
#[derive(Clone, Debug)]
pub struct Identities {
    /// Where they come from.
    pub issuers: Vec<IssuerSettings>,
    /// The `aud` they must carry.
    pub audience: String,
    /// The way to their issuers.
    pub route: outbound::Route,
    /// Which of them are platform admins.
    pub platform_admins: Vec<PlatformRule>,
}

/// Nobody's.
impl Default for Identities {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            audience: AUDIENCE.to_owned(),
            route: outbound::Route::default(),
            platform_admins: Vec::new(),
        }
    }
}

/// A rule for platform admins, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminRule {
    issuer: String,
    claims: BTreeMap<String, String>,
}

impl IdentityOptions {
    /// Reads and checks.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) fn read(&self) -> anyhow::Result<Identities> {
        let issuers = issuers(self.oidc_issuers.as_deref().unwrap_or_default())?;
        let audience = self.oidc_audience.clone();
        ensure!(!audience.trim().is_empty(), "TOKEN_BROKER_OIDC_AUDIENCE is empty: then nothing would say that a JWT is for us");
        let route = route("TOKEN_BROKER_OIDC", self.oidc_ca.as_ref(), self.oidc_proxy.as_deref(), self.oidc_proxy_file.as_ref())?;
        let platform_admins = platform_admins(self.platform_admins.as_deref().unwrap_or_default(), &issuers)?;
        Ok(Identities { issuers, audience, route, platform_admins })
    }

    pub(super) fn rates(&self) -> Rates {
        Rates { per_credential: self.rate_per_credential, per_address: self.rate_per_address, failures: self.rate_of_failures }
    }
}

fn issuers(list: &str) -> anyhow::Result<Vec<IssuerSettings>> {
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let issuer: IssuerSettings = entry.parse().context("TOKEN_BROKER_OIDC_ISSUERS")?;
        ensure!(issuers.iter().all(|known| known.url != issuer.url), "TOKEN_BROKER_OIDC_ISSUERS: {} is given twice", issuer.url);
        issuers.push(issuer);
    }
    Ok(issuers)
}

fn platform_admins(json: &str, issuers: &[IssuerSettings]) -> anyhow::Result<Vec<PlatformRule>> {
    const NAME: &str = "TOKEN_BROKER_PLATFORM_ADMINS";
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let rules: Vec<AdminRule> = serde_json::from_str(json)
        .with_context(|| format!("{NAME} must be [{{\"issuer\": \"https://…\", \"claims\": {{\"claim\": \"pattern\"}}}}, …]"))?;
    let mut accepted = Vec::new();
    for AdminRule { issuer, claims } in rules {
        let known = issuers.iter().find(|known| known.url == issuer);
        let kind = known.with_context(|| format!("{NAME}: {issuer} is not among TOKEN_BROKER_OIDC_ISSUERS"))?.kind;
        let conditions = match Conditions::judge(kind, &claims, false) {
            Ok(conditions) => conditions,
            Err(errors) => {
                let said: Vec<String> = errors.into_iter().map(|(field, message)| format!("{field} {message}")).collect();
                bail!("{NAME}: a rule for {issuer}: {}", said.join("; "));
            }
        };
        ensure!(
            conditions.has_immutable_ids(),
            "{NAME}: a rule for {issuer} has only names, and whoever makes a repository or project anew under such a name would be \
             platform admin: give the ids that never change too (repository_id, project_id)"
        );
        accepted.push(PlatformRule { issuer, conditions });
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GITHUB: &str = "https://token.actions.githubusercontent.com";

    #[test]
    fn issuers_are_read_and_none_is_given_twice() {
        let read = issuers(" https://gitlab.com , kubernetes=https://k8s.corp RS256 ES256,").expect("reads");
        assert_eq!(read.iter().map(|issuer| issuer.url.as_str()).collect::<Vec<_>>(), ["https://gitlab.com", "https://k8s.corp"]);
        assert!(issuers("").expect("none").is_empty());
        for bad in ["https://a,https://a", "gitlab.com", "http://gitlab.corp", "https://a HS256", "x=https://a"] {
            let error = issuers(bad).expect_err(bad);
            assert!(error.to_string().contains("TOKEN_BROKER_OIDC_ISSUERS"), "{error:#}");
        }
    }

    #[test]
    fn a_platform_admins_rule_is_judged_and_needs_ids_that_never_change() {
        let known = issuers(GITHUB).expect("reads");
        let rule = |issuer: &str, claims: &str| format!(r#"[{{"issuer": "{issuer}", "claims": {claims}}}]"#);
        let good = rule(GITHUB, r#"{"repository_id": "1", "repository_owner_id": "2", "ref": "refs/heads/main"}"#);
        assert_eq!(platform_admins(&good, &known).expect("a rule").len(), 1);
        assert!(platform_admins("", &known).expect("none").is_empty());
        for (bad, why) in [
            (rule(GITHUB, r#"{"repository": "acme/infra"}"#), "ids that never change"),
            (rule(GITHUB, "{}"), "claims"),
            (rule(GITHUB, r#"{"ref": "refs/heads/main"}"#), "claims"),
            (rule(GITHUB, r#"{"repository_id": "*"}"#), "claims.repository_id"),
            (rule("https://gitlab.com", r#"{"project_id": "1"}"#), "not among TOKEN_BROKER_OIDC_ISSUERS"),
            (r#"{"issuer": "x", "claims": {}}"#.to_owned(), "must be"),
            (r#"[{"issuer": "x"}]"#.to_owned(), "must be"),
            (r#"[{"issuer": "x", "claims": {}, "role": "admin"}]"#.to_owned(), "must be"),
            ("repository_id=1".to_owned(), "must be"),
        ] {
            let error = format!("{:#}", platform_admins(&bad, &known).expect_err(&bad));
            assert!(error.contains("TOKEN_BROKER_PLATFORM_ADMINS") && error.contains(why), "{error}");
        }
    }
}
