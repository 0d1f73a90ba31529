//! CI identities from outside: rules, sessions, explanations, over a real issuer's tokens of each kind.

mod attacks;
mod audited;
mod new_keys;
mod platform_admins;
mod provider;
mod readme;
mod replicas;
mod rules;
mod session_grants;
mod sessions;
mod several_teams;
mod single_use;

use std::time::Duration;

use serde_json::{Value, json};
use token_broker::identity::{Conditions, IssuerSettings, PlatformRule};

use crate::app::{Answer, Client, TestApp, TestDatabase, issuer::Issuer};

/// A broker that trusts one issuer, taken for GitHub.
pub(crate) struct World {
    pub app: TestApp,
    pub issuer: Issuer,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_on(TestDatabase::new().await).await
    }

    /// The same on this database.
    pub(crate) async fn start_on(database: TestDatabase) -> Self {
        let issuer = Issuer::start().await;
        let app = TestApp::start_trusting_on(database, &[format!("github={}", issuer.url())]).await;
        Self { app, issuer }
    }

    /// The same where a job with these claims is a platform admin.
    pub(crate) async fn start_with_platform_admin(claims: &[(&str, &str)]) -> Self {
        let issuer = Issuer::start().await;
        let trusted: IssuerSettings = format!("github={}", issuer.url()).parse().expect("an issuer");
        let claims = claims.iter().map(|(claim, pattern)| ((*claim).to_owned(), (*pattern).to_owned())).collect();
        let conditions = Conditions::judge(trusted.kind, &claims, false).expect("a rule");
        assert!(conditions.has_immutable_ids());
        let rule = PlatformRule { issuer: issuer.url().to_owned(), conditions };
        let app = TestApp::start_changed(move |settings| {
            settings.identities.issuers = vec![trusted.clone()];
            settings.identities.platform_admins = vec![rule.clone()];
        })
        .await;
        Self { app, issuer }
    }

    /// A rule for jobs of the main branch of `acme/web`, with more fields.
    pub(crate) fn rule(&self, name: &str, more: Value) -> Value {
        let mut rule = json!({
            "name": name, "issuer": self.issuer.url(), "role": "ci",
            "claims": {"repository": "acme/web", "ref": "refs/heads/main"},
        });
        merge(&mut rule, more);
        rule
    }

    pub(crate) async fn write(&self, rule: Value) -> Answer {
        self.app.admin.post("/teams/payments/trust-rules", rule).await
    }

    /// A push to the main branch of `acme/web`, changed so.
    pub(crate) fn claims(&self, changes: Value) -> Value {
        let mut claims = self.issuer.claims();
        merge(
            &mut claims,
            json!({
                "sub": "repo:acme/web:ref:refs/heads/main", "repository": "acme/web", "repository_id": "1001",
                "repository_owner": "acme", "repository_owner_id": "11", "ref": "refs/heads/main", "event_name": "push",
                "run_id": "77", "actor": "someone",
            }),
        );
        merge(&mut claims, changes);
        claims
    }

    /// A change of rules or sessions is felt after a second at the latest.
    pub(crate) async fn felt(&self) {
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }

    /// A job with such a token.
    pub(crate) fn job(&self, changes: Value) -> Client {
        self.app.platform.with_key(self.issuer.sign(&self.claims(changes)))
    }
}

/// `null` takes a field away.
fn merge(into: &mut Value, changes: Value) {
    for (field, value) in changes.as_object().expect("fields").clone() {
        match value {
            Value::Null => drop(into.as_object_mut().expect("fields").remove(&field)),
            value => into[field] = value,
        }
    }
}
