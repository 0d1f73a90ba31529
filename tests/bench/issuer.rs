//! A CI system that issues identities: keys over HTTP, and thousands of jobs' tokens signed beforehand.

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../api/app/issuer/signing.rs"]
mod signing;

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use serde_json::json;
use signing::SigningKey;
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinHandle};

pub struct Issuer {
    pub url: String,
    key: Arc<SigningKey>,
    server: JoinHandle<()>,
}

impl Issuer {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let key = Arc::new(SigningKey::generate("RS256"));
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let keys = json!({"keys": [key.jwk()]});
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(discovery)))
            .route("/keys", get(async move || Json(keys)));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the issuer ended: {error}");
            }
        });
        Ok(Self { url, key, server })
    }

    /// Tokens of so many jobs, each of its own.
    pub async fn jobs(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let signers = (0..2).map(|part| {
            let (key, issuer) = (Arc::clone(&self.key), self.url.clone());
            let sign = move |number: usize| {
                key.sign(&json!({"iss": issuer, "aud": "token-broker", "sub": format!("job:{number}"), "project": "bench",
                                 "iat": now, "nbf": now, "exp": now + 3_600, "jti": format!("{number}")}))
            };
            tokio::task::spawn_blocking(move || (0..count).filter(|number| number % 2 == part).map(sign).collect::<Vec<_>>())
        });
        let mut jobs = Vec::new();
        for signer in signers.collect::<Vec<_>>() {
            jobs.extend(signer.await?);
        }
        Ok(jobs)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}
