//! A transit engine that fails in ways a real one does not on demand, and says how often it was asked.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use serde_json::{Value, json};
use token_broker::crypto::{KeyServices, MasterKeys, TransitLogin};
use tokio::{net::TcpListener, task::JoinHandle};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaving {
    Well,
    /// It answers 503.
    Away,
    /// It answers nothing.
    Silent,
    /// To each encryption it answers what it answered to the first one.
    Mixed,
}

/// A running one, with one key at `transit/keys/broker`.
pub struct FakeTransit {
    pub address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    behaving: Mutex<Behaving>,
    first: Mutex<Option<String>>,
    /// Numbers the logins; only the last one's token is let in, and one that was given out of hand.
    logins: AtomicUsize,
    encryptions: AtomicUsize,
}

impl FakeTransit {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared {
            behaving: Mutex::new(Behaving::Well),
            first: Mutex::default(),
            logins: AtomicUsize::new(0),
            encryptions: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .route("/v1/transit/{verb}/broker", post(answer))
            .route("/v1/auth/kubernetes/login", post(login))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self { address, shared, server }
    }

    pub fn behave(&self, behaving: Behaving) {
        *self.shared.behaving.lock().expect("no panic here") = behaving;
    }

    /// How often something was wrapped.
    pub fn encryptions(&self) -> usize {
        self.shared.encryptions.load(Ordering::SeqCst)
    }

    /// How often somebody logged in.
    pub fn logins(&self) -> usize {
        self.shared.logins.load(Ordering::SeqCst)
    }

    /// No login that was given is good any more.
    pub fn end_logins(&self) {
        self.shared.logins.fetch_add(1, Ordering::SeqCst);
    }

    /// Its key, as master key `id` of a list.
    pub fn entry(&self, id: &str) -> String {
        format!("{id}:transit:{}/transit/keys/broker", self.address)
    }
}

impl Drop for FakeTransit {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The list, whose transit keys are asked with a token that is always good.
pub fn listed(list: &str) -> MasterKeys {
    let services = KeyServices { transit: Some(TransitLogin::Token(SecretString::from("root"))), ..KeyServices::default() };
    MasterKeys::parse_with(list, &services).expect("keys")
}

type Answered = Result<Json<Value>, StatusCode>;

async fn login(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let number = shared.logins.fetch_add(1, Ordering::SeqCst) + 1;
    Json(json!({"auth": {"client_token": format!("login-{number}"), "lease_duration": 3600}}))
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(verb): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Answered {
    let behaving = *shared.behaving.lock().expect("no panic here");
    if behaving == Behaving::Away {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    if behaving == Behaving::Silent {
        return std::future::pending().await;
    }
    let good = format!("login-{}", shared.logins.load(Ordering::SeqCst));
    if !headers.get("x-vault-token").is_some_and(|token| token == "root" || token == good.as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    if verb == "encrypt" {
        // Long enough for a burst to meet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        shared.encryptions.fetch_add(1, Ordering::SeqCst);
        let own = format!("vault:v1:{}", STANDARD.encode(asked.to_string()));
        let first = shared.first.lock().expect("no panic here").get_or_insert_with(|| own.clone()).clone();
        return Ok(Json(json!({"data": {"ciphertext": if behaving == Behaving::Mixed { first } else { own }}})));
    }
    let ciphertext = asked["ciphertext"].as_str().and_then(|text| text.strip_prefix("vault:v1:"));
    let opened = ciphertext.and_then(|text| STANDARD.decode(text).ok()).ok_or(StatusCode::BAD_REQUEST)?;
    let opened: Value = serde_json::from_slice(&opened).map_err(|_| StatusCode::BAD_REQUEST)?;
    if opened["associated_data"] != asked["associated_data"] {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Json(json!({"data": {"plaintext": opened["plaintext"]}})))
}
