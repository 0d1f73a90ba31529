//! A team's own server, as webhooks find it.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use token_broker::{crypto::hmac_sha256, outbound::AllowedOrigin};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::app::TestApp;

/// What came.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) path: String,
    pub(super) id: String,
    pub(super) timestamp: i64,
    pub(super) signature: String,
    pub(super) body: String,
}

impl Post {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// As a receiver checks it, with the secret it was given.
    pub(super) fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        self.signature == format!("v1,{}", STANDARD.encode(hmac_sha256(&key, signed.as_bytes())))
    }
}

#[derive(Default)]
struct Shared {
    posts: Vec<Post>,
    /// 0: 200.
    answers: u16,
}

/// A server that notes what is posted to it.
pub(super) struct Receiver {
    pub(super) url: String,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let routes = Router::new().fallback(any(take)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url, shared, server }
    }

    /// A broker that may post to it.
    pub(super) async fn allowed_by_a_broker() -> (Self, TestApp) {
        let receiver = Self::start().await;
        let origin: AllowedOrigin = receiver.url.parse().expect("an origin");
        (receiver, TestApp::start_changed(move |settings| settings.webhook_hosts = vec![origin.clone()]).await)
    }

    /// From now on it answers this.
    pub(super) fn answer(&self, status: u16) {
        self.shared().answers = status;
    }

    pub(super) fn posts(&self) -> Vec<Post> {
        self.shared().posts.clone()
    }

    /// Waits until something of this kind has come.
    pub(super) async fn told(&self, event: &str) -> Post {
        for _ in 0..100 {
            if let Some(post) = self.posts().into_iter().find(|post| post.json()["type"] == event) {
                return post;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("it was not told {event}, but {:?}", self.posts());
    }

    /// Makes a webhook of team payments that posts here; its secret.
    pub(super) async fn subscribe(&self, app: &TestApp, name: &str, events: &[&str]) -> String {
        let body = json!({"name": name, "url": format!("{}/{name}", self.url), "events": events});
        let made = app.admin.post("/teams/payments/webhooks", body).await.expect(201);
        made.json["secret"].as_str().expect("a secret").to_owned()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("not poisoned")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(shared): State<Arc<Mutex<Shared>>>, request: axum::extract::Request) -> Response {
    let path = request.uri().path().to_owned();
    let headers: HeaderMap = request.headers().clone();
    let body: Bytes = axum::body::to_bytes(request.into_body(), 64 * 1024).await.expect("a body");
    let header_of = |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("ASCII")).to_owned();
    assert_eq!(header_of("content-type"), "application/json");
    let mut shared = shared.lock().expect("not poisoned");
    shared.posts.push(Post {
        path,
        id: header_of("webhook-id"),
        timestamp: header_of("webhook-timestamp").parse().expect("a number"),
        signature: header_of("webhook-signature"),
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    });
    match shared.answers {
        0 => StatusCode::OK.into_response(),
        307 => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        status => StatusCode::from_u16(status).expect("a status").into_response(),
    }
}
