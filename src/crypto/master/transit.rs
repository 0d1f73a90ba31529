//! Master keys in the transit engine of OpenBao or HashiCorp Vault: the key never leaves it, wrapping and unwrapping are calls.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{CallError, SHORTEST, TIMEOUT, credential::read, is_private};
use crate::{
    crypto::seal::{Place, associated_data},
    outbound::{self, Route},
    secret::Sealed,
};

/// Where a pod finds its own token.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How this process shows who it is.
#[derive(Clone, Debug)]
pub enum TransitLogin {
    /// With this token.
    Token(SecretString),
    /// With the token that this file holds now: an agent may keep it fresh.
    TokenFile(PathBuf),
    /// With its pod's service account, through the Kubernetes auth method.
    Kubernetes {
        /// The auth method's role.
        role: String,
        /// Where the auth method is mounted.
        mount: String,
        /// The service account's token.
        token_file: PathBuf,
    },
}

/// One key of a transit engine.
#[derive(Debug)]
pub(super) struct Transit {
    client: reqwest::Client,
    /// `https://host/v1/`.
    api: Url,
    /// Where the engine is mounted.
    mount: String,
    /// Its key's name.
    name: String,
    login: TransitLogin,
    /// Held during a login: who needs one too waits for its outcome.
    session: Mutex<Session>,
}

/// What the last login came to.
#[derive(Debug, Default)]
struct Session {
    /// The token it gave, and until when it is good.
    good: Option<(SecretString, Instant)>,
    /// Why it failed, and when.
    failed: Option<(CallError, Instant)>,
}

/// So long a login that failed is everyone's: who waited for it does not try the same again, one after the other.
const FAILED_FOR: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretString,
    lease_duration: u64,
}

impl Transit {
    /// A key of the form `https://host[/v1]/MOUNT/keys/NAME`. The error is the rest of a sentence.
    pub(super) fn new(url: &str, login: TransitLogin, route: &Route) -> Result<Self, String> {
        let not = || "is not of the form transit:https://host/MOUNT/keys/NAME".to_owned();
        let mut api = Url::parse(url).map_err(|_| not())?;
        let plain = api.query().is_none() && api.fragment().is_none() && api.username().is_empty() && api.password().is_none();
        if !plain || !matches!(api.scheme(), "https" | "http") {
            return Err(not());
        }
        if !is_private(&api) {
            return Err(
                "is at an http:// address, which is taken on loopback only: it would send data keys in the clear".to_owned()
            );
        }
        let path = api.path().trim_matches('/').to_owned();
        let path = path.strip_prefix("v1/").unwrap_or(&path);
        let (mount, name) = path.rsplit_once("/keys/").ok_or_else(not)?;
        if mount.is_empty() || name.is_empty() || name.contains('/') {
            return Err(not());
        }
        let (mount, name) = (mount.to_owned(), name.to_owned());
        api.set_path("/v1/");
        let client = outbound::client(route, TIMEOUT).map_err(|error| format!("cannot be called: {error:#}"))?;
        Ok(Self { client, api, mount, name, login, session: Mutex::default() })
    }

    pub(super) async fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Sealed, CallError> {
        let plaintext = Zeroizing::new(STANDARD.encode(plain));
        let data = self.call("encrypt", place, ("plaintext", &plaintext)).await?;
        let ciphertext = data["ciphertext"].as_str().ok_or_else(|| unavailable("its answer holds no ciphertext"))?;
        Ok(Sealed::from_bytes(ciphertext.as_bytes().to_vec()))
    }

    pub(super) async fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let ciphertext = std::str::from_utf8(sealed.as_bytes()).ok().filter(|text| text.starts_with("vault:v"));
        let ciphertext = ciphertext.ok_or_else(|| CallError::Refused("it was not wrapped by a transit key".to_owned()))?;
        let data = self.call("decrypt", place, ("ciphertext", ciphertext)).await?;
        let plaintext = data["plaintext"].as_str().ok_or_else(|| unavailable("its answer holds no plaintext"))?;
        Ok(Zeroizing::new(STANDARD.decode(plaintext).map_err(|_| unavailable("its plaintext is not base64"))?))
    }

    /// The place is the associated data: what was wrapped for one team does not open for another.
    async fn call(&self, verb: &str, place: Place<'_>, (field, value): (&str, &str)) -> Result<Value, CallError> {
        let url = format!("{}{}/{verb}/{}", self.api, self.mount, self.name);
        let body = json!({field: value, "associated_data": STANDARD.encode(associated_data(b"transit", place))});
        let token = self.token(None).await?;
        match self.post(&url, Some(&token), &body).await {
            // A login may have been ended on the other side; a file may hold another token by now.
            Err(CallError::Forbidden(_)) if !matches!(self.login, TransitLogin::Token(_)) => {
                let token = self.token(Some(&token)).await?;
                self.post(&url, Some(&token), &body).await
            }
            other => other,
        }
        .map(|answer| answer["data"].clone())
    }

    /// The token to ask with: another one than the one that was just refused.
    async fn token(&self, refused: Option<&SecretString>) -> Result<SecretString, CallError> {
        let (role, mount, token_file) = match &self.login {
            TransitLogin::Token(token) => return Ok(token.clone()),
            TransitLogin::TokenFile(file) => return read(file).await,
            TransitLogin::Kubernetes { role, mount, token_file } => (role, mount, token_file),
        };
        let mut session = self.session.lock().await;
        // Another may have logged in since it was refused.
        session.good = session.good.take().filter(|(token, until)| {
            Instant::now() < *until && refused.is_none_or(|refused| refused.expose_secret() != token.expose_secret())
        });
        if let Some((token, _)) = &session.good {
            return Ok(token.clone());
        }
        if let Some((error, at)) = &session.failed
            && at.elapsed() < FAILED_FOR
        {
            return Err(error.clone());
        }
        let good = self.log_in(role, mount, token_file).await;
        session.failed = good.as_ref().err().map(|error| (error.clone(), Instant::now()));
        let (token, until) = good?;
        session.good = Some((token.clone(), until));
        Ok(token)
    }

    /// A new token, and until when it is good.
    async fn log_in(&self, role: &str, mount: &str, token_file: &Path) -> Result<(SecretString, Instant), CallError> {
        let body = json!({"role": role, "jwt": read(token_file).await?.expose_secret()});
        let answer = self.post(&format!("{}auth/{mount}/login", self.api), None, &body).await.map_err(|error| match error {
            // A login that is judged and found wanting says nothing of a key.
            CallError::Refused(why) => CallError::Forbidden(why),
            other => other,
        })?;
        let LoggedIn { auth } =
            serde_json::from_value(answer).map_err(|_| unavailable("its answer to the login holds no token"))?;
        // Two thirds: another login comes before this one is over.
        let until = Instant::now() + Duration::from_secs(auth.lease_duration) * 2 / 3;
        Ok((auth.client_token, until))
    }

    async fn post(&self, url: &str, token: Option<&SecretString>, body: &Value) -> Result<Value, CallError> {
        let mut request = self.client.post(url).json(body);
        if let Some(token) = token {
            request = request.header("x-vault-token", token.expose_secret());
        }
        let answer = request.send().await.map_err(|error| CallError::Unavailable(outbound::why(&error)))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| CallError::Unavailable(outbound::why(&error)))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| unavailable("its answer is not JSON")),
            StatusCode::BAD_REQUEST => Err(CallError::Refused(said(&body))),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Err(CallError::Forbidden(said(&body))),
            status => Err(CallError::Unavailable(format!("it answered {}: {}", status.as_u16(), said(&body)))),
        }
    }
}

/// Whether it has the form of a wrapped key: `vault:v1:` and base64.
pub(super) fn is_wrapped(sealed: &[u8]) -> bool {
    let text = std::str::from_utf8(sealed).ok().and_then(|text| text.strip_prefix("vault:v"));
    let Some((version, encoded)) = text.and_then(|text| text.split_once(':')) else { return false };
    version.parse::<u32>().is_ok() && STANDARD.decode(encoded).is_ok_and(|bytes| bytes.len() >= SHORTEST)
}

fn unavailable(what: &str) -> CallError {
    CallError::Unavailable(what.to_owned())
}

/// The service's own words, bounded: they are for the log.
fn said(body: &[u8]) -> String {
    let errors = serde_json::from_slice::<Value>(body).ok().and_then(|body| Some(body["errors"].as_array()?.clone()));
    let words: Vec<String> = errors.unwrap_or_default().iter().filter_map(|error| Some(error.as_str()?.to_owned())).collect();
    words.join("; ").chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_of_a_transit_key_is_one() {
        let login = || TransitLogin::Token(SecretString::from("x"));
        for (good, mount) in [
            ("https://bao.internal/transit/keys/broker", "transit"),
            ("https://bao.internal:8200/v1/team/a/transit/keys/broker", "team/a/transit"),
            ("http://127.0.0.1:8200/transit/keys/broker", "transit"),
        ] {
            let transit = Transit::new(good, login(), &Route::default()).expect(good);
            assert_eq!((transit.mount.as_str(), transit.name.as_str(), transit.api.path()), (mount, "broker", "/v1/"));
        }
        for bad in [
            "",
            "bao.internal/transit/keys/broker",
            "ftp://bao.internal/transit/keys/broker",
            "http://bao.internal/transit/keys/broker",
            "https://bao.internal/transit/broker",
            "https://bao.internal/keys/broker",
            "https://bao.internal/transit/keys/",
            "https://bao.internal/transit/keys/a/b",
            "https://user@bao.internal/transit/keys/broker",
            "https://bao.internal/transit/keys/broker?x=y",
        ] {
            assert!(Transit::new(bad, login(), &Route::default()).is_err(), "{bad}");
        }
    }
}
