//! A caller: a key and an address.

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use token_broker::cli::serve::Running;

#[derive(Clone)]
pub struct Client {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Client {
    pub fn new(running: &Running, key: String) -> Self {
        Self::at(&format!("http://{}", running.listen), key)
    }

    pub fn at(base: &str, key: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { base: base.to_owned(), key: Some(key), http }
    }

    pub fn of(&self, running: &Running) -> Self {
        Self { base: format!("http://{}", running.listen), ..self.clone() }
    }

    pub fn with_key(&self, key: String) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    pub fn nobody(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    pub fn key(&self) -> &str {
        self.key.as_deref().expect("a key")
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to be changed further, with the key in it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body)).await
    }

    /// The main job.
    pub async fn refresh(&self, name: &str, body: Value) -> Answer {
        self.post(&format!("/tokens/{name}/refresh"), body).await
    }
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::try_of(request).await.expect("an answer")
    }

    /// The same where the other side may die meanwhile.
    pub async fn try_of(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self { status, headers, text, json })
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub fn access_token(&self) -> &str {
        self.json["access_token"].as_str().expect("an access token")
    }

    /// Status, the headers that matter, and the body without what differs each time: for snapshots.
    pub fn shown(&self) -> Value {
        let mut body = self.json.clone();
        let changing = [
            "request_id",
            "token_id",
            "fingerprint",
            "expires_at",
            "refreshed_at",
            "next_refresh_at",
            "created_at",
            "at",
            "access_token",
            "reference_token",
            "key",
            "id",
            "last_used_at",
            "subject",
            "expires_in",
        ];
        redact(&mut body, &changing);
        let mut shown = json!({"status": self.status, "type": self.header("content-type")});
        for name in ["location", "www-authenticate", "retry-after", "allow"] {
            if !self.header(name).is_empty() {
                shown[name] = json!(self.header(name));
            }
        }
        shown["body"] = body;
        shown
    }
}

fn redact(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(_) | Value::Number(_) if names.contains(&name.as_str()) => *field = json!(format!("[{name}]")),
                    other => redact(other, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, names)),
        _ => {}
    }
}
