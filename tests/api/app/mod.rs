//! A whole broker for a test: real Postgres (one server for all, a database each), real sockets, the simulated JFrog.

#![expect(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

mod client;
mod database;
pub mod fake_transit;
pub mod issuer;
pub mod jfrog;
pub mod journal;
pub mod process;
mod refused;

use std::{num::NonZeroU32, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use token_broker::{
    api::Rates,
    broker::Timing,
    cli::{create_admin_key, serve},
    config::{Database, Identities, KEYS_KEPT, Settings},
    crypto::{self, MasterKeys},
    dev::simulator::Simulator,
    identity::IssuerSettings,
    jfrog::Instance,
    outbound,
    store::Store,
};

pub use client::{Answer, Client};
pub use database::TestDatabase;

/// Short enough to wait for, and in the proportions of the real ones.
pub const TIMING: Timing =
    Timing { jfrog_timeout: Duration::from_secs(2), lease: Duration::from_secs(3), poll: Duration::from_millis(100) };

/// Where webhooks may be: nobody listens there.
pub const HOOKS: &str = "https://127.0.0.1:9";

/// A broker of its own for one test, with team `payments` and its keys.
pub struct TestApp {
    pub database: TestDatabase,
    pub simulator: Simulator,
    pub journal: TempDir,
    pub master_keys: String,
    /// Holds the key of a platform admin.
    pub platform: Client,
    /// Of team `payments`.
    pub admin: Client,
    pub ci: Client,
    pub viewer: Client,
    running: Option<serve::Running>,
    changed: Changed,
}

/// What a test wants otherwise, at each start.
type Changed = Box<dyn Fn(&mut Settings) + Send + Sync>;

impl TestApp {
    /// Starts everything, and makes the team.
    pub async fn start() -> Self {
        Self::start_on(TestDatabase::new().await).await
    }

    /// The same on this database.
    pub async fn start_on(database: TestDatabase) -> Self {
        Self::start_at(database, Simulator::start(any_port(), None).await.expect("the simulator starts")).await
    }

    /// The same at a JFrog that others use too.
    pub async fn start_at(database: TestDatabase, simulator: Simulator) -> Self {
        Self::start_with(database, simulator, |_| ()).await
    }

    /// The same, trusting these issuers, written as in the configuration.
    pub async fn start_trusting(issuers: &[String]) -> Self {
        Self::start_trusting_on(TestDatabase::new().await, issuers).await
    }

    /// The same on this database.
    pub async fn start_trusting_on(database: TestDatabase, issuers: &[String]) -> Self {
        let trusted: Vec<IssuerSettings> = issuers.iter().map(|entry| entry.parse().expect("an issuer")).collect();
        let simulator = Simulator::start(any_port(), None).await.expect("the simulator starts");
        Self::start_with(database, simulator, move |settings| settings.identities.issuers.clone_from(&trusted)).await
    }

    /// The same with other settings.
    pub async fn start_changed(changed: impl Fn(&mut Settings) + Send + Sync + 'static) -> Self {
        let simulator = Simulator::start(any_port(), None).await.expect("the simulator starts");
        Self::start_with(TestDatabase::new().await, simulator, changed).await
    }

    async fn start_with(
        database: TestDatabase,
        simulator: Simulator,
        changed: impl Fn(&mut Settings) + Send + Sync + 'static,
    ) -> Self {
        let master_keys = some_master_key("k1");
        let journal = tempfile::tempdir().expect("a directory");
        let mut settings = settings(&database, &simulator, &journal, &master_keys);
        changed(&mut settings);
        let running = serve::start(settings, None).await.expect("it starts");
        let platform = Client::new(&running, platform_key(&database, "root").await);
        let mut app = Self {
            admin: platform.clone(),
            ci: platform.clone(),
            viewer: platform.clone(),
            database,
            simulator,
            journal,
            master_keys,
            platform,
            running: Some(running),
            changed: Box::new(changed),
        };
        app.platform.post("/teams", json!({"name": "payments"})).await.expect(201);
        app.admin = app.team_key("payments", "admin", json!({"role": "admin"})).await;
        app.ci = app.team_key("payments", "ci", json!({"role": "ci"})).await;
        app.viewer = app.team_key("payments", "viewer", json!({"role": "viewer"})).await;
        app
    }

    /// Makes a key and a client that holds it.
    pub async fn team_key(&self, team: &str, name: &str, grant: Value) -> Client {
        let mut body = grant;
        body["name"] = json!(name);
        let answer = self.platform.post(&format!("/teams/{team}/keys"), body).await.expect(201);
        self.platform.with_key(answer.json["key"].as_str().expect("a key").to_owned())
    }

    /// Registers a token through the create flow, for a JFrog user of its own.
    pub async fn register(&self, name: &str) -> Value {
        self.register_with(name, json!({})).await.expect(201).json
    }

    /// The same with more fields.
    pub async fn register_with(&self, name: &str, more: Value) -> Answer {
        let mut body = json!({"name": name, "identity_token": self.simulator.add_user(&format!("user-of-{name}"), false)});
        for (field, value) in more.as_object().expect("fields") {
            body[field] = value.clone();
        }
        self.admin.post("/tokens", body).await
    }

    /// Ends the service as SIGTERM does.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts it again on the same database and journal; the clients go on with the new address.
    pub async fn start_again(&mut self) {
        self.start_again_with(false).await;
    }

    /// Other settings at its next starts.
    pub fn change(&mut self, changed: impl Fn(&mut Settings) + Send + Sync + 'static) {
        self.changed = Box::new(changed);
    }

    /// What it says instead of starting on the same database and journal.
    pub async fn refused_to_start(&self) -> String {
        let mut settings = settings(&self.database, &self.simulator, &self.journal, &self.master_keys);
        (self.changed)(&mut settings);
        format!("{:#}", serve::start(settings, None).await.expect_err("it must not start"))
    }

    /// The same with `--adopt`.
    pub async fn start_again_with(&mut self, adopt: bool) {
        let mut settings = settings(&self.database, &self.simulator, &self.journal, &self.master_keys);
        (self.changed)(&mut settings);
        let running = serve::start(Settings { adopt, ..settings }, None).await.expect("it starts again");
        for client in [&mut self.platform, &mut self.admin, &mut self.ci, &mut self.viewer] {
            *client = client.of(&running);
        }
        self.running = Some(running);
    }

    /// The id of its journal.
    pub fn journal_id(&self) -> String {
        std::fs::read_to_string(self.journal.path().join("id")).expect("a journal has an id")
    }

    /// Lets `seconds` pass for the token, in the database and at JFrog's.
    pub async fn let_pass(&self, seconds: i64) {
        self.database.shift_times(seconds).await;
        self.simulator.advance(Duration::from_secs(seconds.unsigned_abs()));
    }

    /// Asks until `wanted` holds for the token; a test that waits in vain fails with what it saw last.
    pub async fn token_until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        for _ in 0..200 {
            seen = self.admin.get(&format!("/tokens/{name}")).await.json;
            if wanted(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the token never was {what}: {seen:#}");
    }
}

/// Settings of a service on these parts, with ports of its own.
pub fn settings(database: &TestDatabase, simulator: &Simulator, journal: &TempDir, master_keys: &str) -> Settings {
    let connect: sqlx::postgres::PgConnectOptions = database.url().parse().expect("a URL");
    Settings {
        database: Database {
            migrate: connect.clone(),
            connect,
            connections: 10,
            master_keys: MasterKeys::parse(master_keys).expect("keys"),
            keys_kept: KEYS_KEPT,
        },
        listen: any_port(),
        ops_listen: any_port(),
        instances: vec![Instance { name: "main".into(), url: simulator.url() }],
        route: outbound::Route::default(),
        journal_dir: journal.path().to_owned(),
        timing: TIMING,
        tls: None,
        trusted_proxies: Vec::new(),
        identities: Identities::default(),
        webhook_hosts: vec![HOOKS.parse().expect("an origin")],
        webhook_route: outbound::Route::default(),
        checkpoints: None,
        rates: Rates { per_credential: NonZeroU32::MAX, per_address: NonZeroU32::MAX, failures: NonZeroU32::MAX },
        adopt: false,
    }
}

/// A master key that was never used before.
pub fn some_master_key(id: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("{id}:{}", STANDARD.encode(crypto::random_bytes::<32>()))
}

/// A platform key straight from the database.
pub async fn platform_key(database: &TestDatabase, name: &str) -> String {
    let store = Store::connect(database.url().parse().expect("a URL"), 2).await.expect("connects");
    let key = create_admin_key::make(&store, &name.parse().expect("a name"), None).await.expect("makes a key");
    store.close().await;
    key
}

pub fn any_port() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
