//! Asking an issuer for its keys: discovery, then the JWKS it names. Both are small, quick, and where they say they are.

use std::time::Duration;

use reqwest::{Client, Url};
use serde::Deserialize;

use super::{
    keys::KeySet,
    refusal::quoted,
    settings::{IssuerSettings, is_loopback},
};

/// For both answers together.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const LONGEST: usize = 100 * 1024;

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// The issuer's keys as they are now. The error is for logs.
pub(super) async fn fetch(client: &Client, issuer: &IssuerSettings) -> Result<KeySet, String> {
    let both = async {
        let base = issuer.url.strip_suffix('/').unwrap_or(&issuer.url);
        let discovery = get(client, &format!("{base}/.well-known/openid-configuration")).await?;
        let jwks = jwks_address(&discovery, issuer)?;
        KeySet::parse(&get(client, jwks.as_str()).await?)
    };
    let fetched = tokio::time::timeout(TIMEOUT, both).await;
    let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())));
    // A parser's error may repeat the whole text it did not like.
    fetched.map_err(|why| quoted(&why))
}

/// Where the keys are, if the document is this issuer's own. Any host will do (GitLab's and GKE's differ), but not in the clear.
fn jwks_address(discovery: &[u8], issuer: &IssuerSettings) -> Result<Url, String> {
    let discovery: Discovery = serde_json::from_slice(discovery).map_err(|error| format!("no discovery document: {error}"))?;
    if discovery.issuer != issuer.url {
        return Err(format!("the discovery document is of {:?}", quoted(&discovery.issuer)));
    }
    let address = Url::parse(&discovery.jwks_uri).map_err(|error| format!("jwks_uri is not a URL: {error}"))?;
    let in_the_clear = address.scheme() == "http" && issuer.url.starts_with("http://") && is_loopback(&address);
    if address.scheme() != "https" && !in_the_clear {
        return Err("jwks_uri is not https".to_owned());
    }
    Ok(address)
}

async fn get(client: &Client, address: &str) -> Result<Vec<u8>, String> {
    let request = client.get(address).header(reqwest::header::ACCEPT, "application/json, application/jwk-set+json");
    let mut answer = request.send().await.map_err(|error| format!("{address}: {}", innermost(&error)))?;
    if answer.status() != 200 {
        // A redirect too: it is not followed, whoever could place one would choose the keys.
        return Err(format!("{address} answered {}", answer.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| format!("{address}: {}", innermost(&error)))? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("{address} answered more than {LONGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What really happened: the outer errors only say that a request failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_fetched_in_the_clear() {
        let address = |issuer: &str, jwks: &str| {
            let settings: IssuerSettings = issuer.parse().expect("an issuer");
            let document = serde_json::json!({"issuer": issuer, "jwks_uri": jwks}).to_string();
            jwks_address(document.as_bytes(), &settings).map(|_| ())
        };
        assert_eq!(address("https://idp", "https://keys.elsewhere/jwks"), Ok(()));
        assert_eq!(address("http://127.0.0.1:1", "http://127.0.0.1:2/jwks"), Ok(()));
        assert_eq!(address("http://127.0.0.1:1", "https://keys.elsewhere/jwks"), Ok(()));
        for (issuer, jwks) in [
            ("https://idp", "http://idp/jwks"),
            ("https://idp", "http://127.0.0.1/jwks"),
            ("http://127.0.0.1:1", "http://keys.elsewhere/jwks"),
            ("https://idp", "file:///etc/passwd"),
            ("https://idp", "/jwks"),
            ("https://idp", ""),
        ] {
            assert!(address(issuer, jwks).is_err(), "{issuer} {jwks}");
        }
    }

    #[test]
    fn a_document_of_another_issuer_is_not_taken() {
        let settings: IssuerSettings = "https://idp".parse().expect("an issuer");
        for issuer in ["https://idp/", "https://IDP", "https://idp.evil", ""] {
            let document = serde_json::json!({"issuer": issuer, "jwks_uri": "https://idp/jwks"}).to_string();
            assert!(jwks_address(document.as_bytes(), &settings).is_err(), "{issuer}");
        }
        let twice = br#"{"issuer":"https://evil","issuer":"https://idp","jwks_uri":"https://idp/jwks"}"#;
        assert!(jwks_address(twice, &settings).is_err());
    }
}
