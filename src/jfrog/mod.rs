//! JFrog's access token API over the wire (facts and their sources: JFROG.md), and what each answer means.

mod breaker;
mod outcome;
mod wire;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use breaker::{Breaker, Heard};
use reqwest::{Method, header};
use zeroize::Zeroizing;

pub use outcome::{Outcome, Reason, Rejection, Revoked, Vitality};
pub use wire::{ChildRequest, CreateRequest, Listed, Pair, UnusableAnswer, parse_pair};

use crate::{
    outbound,
    secret::{AccessToken, IdentityToken, RefreshToken},
};

/// An answer is read up to here; JFrog's have about 2 KiB.
const ANSWER_LIMIT: usize = 256 * 1024;

/// A configured JFrog deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What registrations call it.
    pub name: String,
    /// Its base address, without a trailing slash.
    pub url: String,
}

/// Whatever authorises a call at JFrog.
#[derive(Clone, Debug)]
pub enum Bearer {
    /// A chain's access token.
    Access(AccessToken),
    /// A person's identity token.
    Identity(IdentityToken),
}

impl Bearer {
    fn expose(&self) -> &str {
        match self {
            Self::Access(token) => token.expose(),
            Self::Identity(token) => token.expose(),
        }
    }
}

/// The client of all configured instances. Each call has a connection of its own and is sent once.
#[derive(Clone, Debug)]
pub struct Jfrog {
    instances: Vec<Instance>,
    client: reqwest::Client,
    breaker: Arc<Breaker>,
}

impl Jfrog {
    /// A client whose calls take at most `timeout` in all.
    ///
    /// # Errors
    /// The route's CA or proxy cannot be read.
    pub fn new(instances: Vec<Instance>, route: &outbound::Route, timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self { instances, client: outbound::client(route, timeout)?, breaker: Arc::default() })
    }

    /// All that are configured.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instance of this name, or the first for `None`.
    pub fn instance(&self, name: Option<&str>) -> Option<&Instance> {
        match name {
            None => self.instances.first(),
            Some(name) => self.instances.iter().find(|instance| instance.name == name),
        }
    }

    /// Creates a refreshable token for the bearer's user.
    pub async fn create(&self, instance: &Instance, bearer: &Bearer, request: &CreateRequest) -> Outcome {
        self.post_token(instance, bearer, Body::Form(&request.form()), &[bearer.expose()]).await
    }

    /// Creates an access token of its own for the bearer's user. Its value is nowhere else: what is lost is revoked and asked anew.
    pub async fn issue(&self, instance: &Instance, bearer: &Bearer, request: &ChildRequest) -> Outcome {
        self.post_token(instance, bearer, Body::Json(request.json()), &[bearer.expose()]).await
    }

    /// Spends `refresh_token`. Not idempotent: after anything but `NotSent` and `Rejected` it may be gone.
    pub async fn refresh(
        &self,
        instance: &Instance,
        bearer: &Bearer,
        refresh_token: &RefreshToken,
        include_reference_token: bool,
    ) -> Outcome {
        let form = [
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", refresh_token.expose().to_owned()),
            // Not carried over by JFrog: asked for again each time.
            ("include_reference_token", include_reference_token.to_string()),
        ];
        self.post_token(instance, bearer, Body::Form(&form), &[bearer.expose(), refresh_token.expose()]).await
    }

    /// Whether the bearer is alive: the right probe, and one that spends nothing.
    pub async fn me(&self, instance: &Instance, bearer: &Bearer) -> Vitality {
        match self.send(instance, Method::GET, "/access/api/v1/tokens/me", Some(bearer), Body::None).await {
            Ok(answer) => outcome::vitality(answer.status, &answer.body),
            Err(_) => Vitality::Unknown,
        }
    }

    /// The tokens the bearer may see whose description begins with `prefix`. Never their values.
    ///
    /// # Errors
    /// JFrog could not be asked, or said no; the text is for admins.
    pub async fn list(&self, instance: &Instance, bearer: &Bearer, prefix: &str) -> Result<Vec<Listed>, String> {
        let path = format!("/access/api/v1/tokens?{}", wire::description_filter(prefix));
        let answer = self.send(instance, Method::GET, &path, Some(bearer), Body::None).await.map_err(|error| error.text)?;
        if answer.status != 200 {
            return Err(format!("JFrog answered the listing with {}", answer.status));
        }
        wire::parse_list(&answer.body).ok_or_else(|| "JFrog's listing cannot be read".to_owned())
    }

    /// Revokes the token `id`.
    pub async fn revoke(&self, instance: &Instance, bearer: &Bearer, id: &str) -> Revoked {
        // Ids come from JFrog's own answers; one with a slash would name another resource.
        if id.is_empty() || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Revoked::Refused("the id is not one of JFrog's".to_owned());
        }
        // No body and so no Content-Type: JFrog 7.117 answers 405 to a form here.
        match self.send(instance, Method::DELETE, &format!("/access/api/v1/tokens/{id}"), Some(bearer), Body::None).await {
            Ok(answer) => outcome::revoked(answer.status, &answer.body, &[bearer.expose()]),
            Err(error) => Revoked::Unreachable(error.text),
        }
    }

    /// Whether JFrog is there to answer: also where it asks to be left alone, for that refuses a call and leaves nothing in doubt. Asked
    /// without a credential: a bad one counts towards its lock.
    pub async fn answers(&self, instance: &Instance) -> bool {
        let ping = self.send(instance, Method::GET, "/access/api/v1/system/ping", None, Body::None).await;
        ping.is_ok_and(|answer| [200, 429].contains(&answer.status))
    }

    async fn post_token(&self, instance: &Instance, bearer: &Bearer, body: Body<'_>, secrets: &[&str]) -> Outcome {
        // Only calls that make pairs wait: what revokes and asks must go on, and there are few of them.
        if let Err(wait) = self.breaker.admit(&instance.name, Instant::now()) {
            return Outcome::NotSent(format!(
                "JFrog is left alone for {} s more, after failures or because it asked",
                wait.as_secs().max(1)
            ));
        }
        let sent = self.send(instance, Method::POST, "/access/api/v1/tokens", Some(bearer), body).await;
        self.breaker.record(&instance.name, heard(sent.as_ref().ok()), Instant::now());
        match sent {
            Ok(answer) => outcome::classify(answer.status, answer.retry_after.as_deref(), answer.body, secrets),
            Err(error) if error.certainly_not_sent => Outcome::NotSent(error.text),
            Err(error) => Outcome::Unknown(error.text),
        }
    }

    async fn send(
        &self,
        instance: &Instance,
        method: Method,
        path: &str,
        bearer: Option<&Bearer>,
        body: Body<'_>,
    ) -> Result<Answer, SendError> {
        let url = format!("{}{path}", instance.url);
        let mut request = self.client.request(method, url).header(header::ACCEPT, "application/json");
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer.expose());
        }
        request = match body {
            Body::None => request,
            Body::Form(form) => request.form(form),
            Body::Json(json) => request.header(header::CONTENT_TYPE, "application/json").body(json),
        };
        let mut response = request.send().await.map_err(SendError::from)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = Zeroizing::new(Vec::with_capacity(8 * 1024));
        // What came of a body that breaks off is kept: it may hold the refresh token.
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = ANSWER_LIMIT.saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Ok(Answer { status, retry_after, body })
    }
}

/// What a request carries.
enum Body<'a> {
    None,
    Form(&'a [(&'a str, String)]),
    Json(String),
}

fn heard(answer: Option<&Answer>) -> Heard {
    match answer {
        Some(Answer { status: 429 | 503, retry_after: Some(wait), .. }) => {
            outcome::parse_retry_after(wait).map_or(Heard::Failure, Heard::Wait)
        }
        Some(answer) if answer.status < 500 && answer.status != 429 => Heard::Answer,
        _ => Heard::Failure,
    }
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Zeroizing<Vec<u8>>,
}

struct SendError {
    certainly_not_sent: bool,
    text: String,
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        // No connection, no request: DNS, refused, TLS not agreed. Also what never became a request at all.
        let certainly_not_sent = error.is_connect() || error.is_builder();
        let kind = if error.is_connect() {
            "no connection to JFrog"
        } else if error.is_timeout() {
            "JFrog did not answer in time"
        } else {
            "the connection to JFrog broke off"
        };
        // `without_url`: nothing of the request is repeated; the innermost cause says what happened.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self { certainly_not_sent, text: format!("{kind}: {cause}") }
    }
}
