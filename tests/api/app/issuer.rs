//! An issuer of CI identities for tests: discovery and JWKS on a real socket, and whatever can be wrong with them.

pub mod signing;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use signing::SigningKey;
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinHandle};

/// What one of the two addresses answers instead of the truth.
#[derive(Clone, Debug, Default)]
pub enum Answering {
    #[default]
    Honestly,
    /// The truth, this late.
    Late(Duration),
    Status(u16),
    RedirectTo(String),
    Text(String),
    /// An endless body, a piece at a time.
    Endlessly,
    /// A body that begins and goes on for ever without growing much.
    Dripping,
}

/// A running issuer. Its keys are its own, made at start.
pub struct Issuer {
    url: String,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

struct Shared {
    url: String,
    /// The last one signs.
    keys: Vec<Arc<SigningKey>>,
    /// What the JWKS lists.
    published: Vec<Value>,
    down: bool,
    discovery: Answering,
    jwks: Answering,
    fetches: usize,
    discoveries: usize,
}

impl Issuer {
    /// With one RS256 key.
    pub async fn start() -> Self {
        Self::start_with(SigningKey::generate("RS256")).await
    }

    /// With this key.
    pub async fn start_with(key: SigningKey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Mutex::new(Shared {
            url: url.clone(),
            published: vec![key.jwk()],
            keys: vec![Arc::new(key)],
            down: false,
            discovery: Answering::Honestly,
            jwks: Answering::Honestly,
            fetches: 0,
            discoveries: 0,
        }));
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(jwks))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url, shared, server }
    }

    /// What its tokens have as `iss`, and what is configured.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Claims of a good token for audience `token-broker`: issued now, good for five minutes, with an id of its own.
    pub fn claims(&self) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        json!({
            "iss": self.url, "aud": "token-broker", "sub": "job:1", "iat": now, "nbf": now, "exp": now + 300,
            "jti": uuid::Uuid::new_v4().to_string(),
        })
    }

    /// A token with these claims, signed with the newest key.
    pub fn sign(&self, claims: &Value) -> String {
        self.key().sign(claims)
    }

    /// The key that signs.
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(self.shared().keys.last().expect("it has one"))
    }

    /// Signs with a new key from now on; the old ones stay published.
    pub fn rotate_key(&self) {
        self.add_key(SigningKey::generate(self.key().algorithm));
    }

    /// The same with this key.
    pub fn add_key(&self, key: SigningKey) {
        let mut shared = self.shared();
        shared.published.push(key.jwk());
        shared.keys.push(Arc::new(key));
    }

    /// Publishes exactly these from now on.
    pub fn publish(&self, jwks: Vec<Value>) {
        self.shared().published = jwks;
    }

    /// How often the key set was asked for.
    pub fn fetches(&self) -> usize {
        self.shared().fetches
    }

    /// How often discovery was asked for.
    pub fn discoveries(&self) -> usize {
        self.shared().discoveries
    }

    /// Answers 503 from now on.
    pub fn down(&self) {
        self.shared().down = true;
    }

    /// Answers again.
    pub fn up(&self) {
        self.shared().down = false;
    }

    /// What discovery answers from now on.
    pub fn discovery_answers(&self, answering: Answering) {
        self.shared().discovery = answering;
    }

    /// What the key set's address answers from now on.
    pub fn jwks_answers(&self, answering: Answering) {
        self.shared().jwks = answering;
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nobody panicked")
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn discovery(State(shared): State<Arc<Mutex<Shared>>>) -> Response {
    let (answering, truth) = {
        let mut shared = shared.lock().expect("nobody panicked");
        shared.discoveries += 1;
        let answering = if shared.down { Answering::Status(503) } else { shared.discovery.clone() };
        (answering, json!({"issuer": shared.url, "jwks_uri": format!("{}/keys", shared.url)}))
    };
    answer(answering, truth).await
}

async fn jwks(State(shared): State<Arc<Mutex<Shared>>>) -> Response {
    let (answering, truth) = {
        let mut shared = shared.lock().expect("nobody panicked");
        shared.fetches += 1;
        let answering = if shared.down { Answering::Status(503) } else { shared.jwks.clone() };
        (answering, json!({"keys": shared.published}))
    };
    answer(answering, truth).await
}

async fn answer(answering: Answering, truth: Value) -> Response {
    let pieces = |piece: &'static [u8], pause| {
        let stream = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(piece)), ()))
        });
        Body::from_stream(stream).into_response()
    };
    match answering {
        Answering::Honestly => axum::Json(truth).into_response(),
        Answering::Late(delay) => {
            tokio::time::sleep(delay).await;
            axum::Json(truth).into_response()
        }
        Answering::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Answering::RedirectTo(address) => (StatusCode::FOUND, [(header::LOCATION, address)]).into_response(),
        Answering::Text(text) => text.into_response(),
        Answering::Endlessly => pieces(&[b' '; 4096], Duration::ZERO),
        Answering::Dripping => pieces(b" ", Duration::from_millis(100)),
    }
}
