//! `token-broker serve`: wires the service and runs it until it is asked to stop.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    net::TcpSocket,
    signal::unix::{SignalKind, signal},
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    api::{ApiState, Listeners, Metrics, Routes},
    broker::{Broker, Keys, Others, recognise, report_journal},
    config::{Database, LogFormat, ServeOptions, Settings},
    identity::{Authentication, Issuers},
    jfrog::Jfrog,
    journal::Journal,
    outbound::Courier,
    store::{self, Store},
    telemetry,
};

/// Connections that wait to be accepted: thousands of jobs may come at once, and who finds no room tries again after a second or more.
const BACKLOG: u32 = 4096;

/// The service, running.
#[derive(Debug)]
pub struct Running {
    /// The API's address.
    pub listen: SocketAddr,
    /// The operators' address.
    pub ops_listen: SocketAddr,
    /// The flows.
    pub broker: Broker,
    listeners: Listeners,
    grace: Duration,
}

/// Runs the command.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub(super) async fn run(options: &ServeOptions) -> anyhow::Result<()> {
    telemetry::init(options.log_format == LogFormat::Json);
    let running = start(options.read()?, Some(spawn_blocking(Metrics::install))).await?;
    // Before anyone is told that it is ready: from then on it may be asked to stop.
    let asked = asked_to_stop();
    tracing::info!(listen = %running.listen, ops_listen = %running.ops_listen, "ready");
    asked.await;
    tracing::info!("stopping: what was begun is finished first");
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Until SIGTERM or SIGINT; they are listened for from this call on.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    let terminate = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async move {
        match terminate {
            Ok((mut terminate, mut interrupt)) => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            }
            // Without signals nobody can ask; SIGKILL is survived anyway.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The database, migrated and opened with its keys.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub(super) async fn open(database: Database) -> anyhow::Result<(Store, Keys)> {
    // Most starts find nothing to migrate.
    let store = match migrated_already(&database).await {
        Some(store) => store,
        None => {
            store::migrate(database.migrate).await.context("DATABASE_URL: the database cannot be reached or migrated")?;
            let connected = Store::connect(database.connect, database.connections);
            connected.await.context("DATABASE_URL: connecting as token_broker_app")?
        }
    };
    let keys =
        Keys::open(database.master_keys, &store, database.keys_kept).await.context("TOKEN_BROKER_MASTER_KEYS is not usable")?;
    Ok((store, keys))
}

/// The database, if there is nothing to migrate. Why it may not be had is found out by who migrates it.
async fn migrated_already(database: &Database) -> Option<Store> {
    let store = Store::connect(database.connect.clone(), database.connections).await.ok()?;
    if store.is_migrated().await.unwrap_or(false) {
        return Some(store);
    }
    store.close().await;
    None
}

/// Starts the service: ready when it returns.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub async fn start(settings: Settings, metrics: Option<JoinHandle<anyhow::Result<Metrics>>>) -> anyhow::Result<Running> {
    for instance in settings.instances.iter().filter(|instance| instance.url.starts_with("http:")) {
        tracing::warn!(instance = instance.name, "JFrog is spoken to without TLS");
    }
    if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
        tracing::warn!("the API is plain HTTP off loopback: put a TLS proxy in front, or set TOKEN_BROKER_TLS_CERT");
    }
    for issuer in &settings.identities.issuers {
        if let Some(kind) = issuer.suggested_kind() {
            let (issuer, meant) = (&issuer.url, format!("{}={}", kind.as_str(), issuer.url));
            tracing::warn!(
                issuer,
                meant,
                "an issuer is taken for a plain one: strangers' triggers are not refused, and no ids are pinned"
            );
        }
    }
    // Bound first: a port in use is found before anything is touched.
    let listener = bind("TOKEN_BROKER_LISTEN", settings.listen)?;
    let ops_listener = bind("TOKEN_BROKER_OPS_LISTEN", settings.ops_listen)?;
    let (listen, ops_listen) = (listener.local_addr()?, ops_listener.local_addr()?);

    // Reading the system's certificates and putting the document together take as long as all that Postgres is asked.
    let (instances, route, timeout, identities) =
        (settings.instances, settings.route, settings.timing.jfrog_timeout, settings.identities);
    let platform_admins = identities.platform_admins;
    let clients = spawn_blocking(move || {
        let issuers = Issuers::new(identities.issuers, identities.audience, &identities.route)?;
        let courier = Courier::new(settings.webhook_hosts, &settings.webhook_route)?;
        anyhow::Ok((Jfrog::new(instances, &route, timeout)?, issuers, courier))
    });
    let routes = spawn_blocking(Routes::documented);
    // Both are waited for: a journal whose start fails for another reason is closed again when that is told.
    let journal = spawn_blocking(move || Journal::open(&settings.journal_dir));
    let (opened, journal) = tokio::join!(open(settings.database), journal);
    let (store, keys) = opened?;
    let journal = journal?.context("TOKEN_BROKER_JOURNAL_DIR is not usable")?;
    let (reported, installation) = tokio::join!(report_journal(&keys, &store, &journal), store.installation());
    reported?;
    let installation = installation.context("reading which installation the database is")?;
    let recognised = recognise(&store, installation, &journal, settings.adopt).await?;
    let (jfrog, issuers, courier) = clients.await??;
    // It measures the processor's clock first, for milliseconds. Until it is there nothing is counted.
    let metrics = match metrics {
        Some(metrics) => Some(metrics.await??),
        None => None,
    };
    let authentication = Authentication::new(store.clone(), issuers, platform_admins);
    let others = Others { jfrog, courier, checkpoints: settings.checkpoints };
    let broker = Broker::new(authentication, store, others, keys, journal, recognised, settings.timing);
    broker.start().await.context("replaying the journal")?;

    let state = ApiState::new(broker.clone(), settings.trusted_proxies, settings.rates);
    let mut listeners = Listeners::new();
    listeners.serve_api(routes.await?, state.clone(), listener, settings.tls).await?;
    if let Some(metrics) = metrics {
        listeners.serve_ops(state, metrics, ops_listener).await?;
    }
    let grace = settings.timing.lease + Duration::from_secs(10);
    Ok(Running { listen, ops_listen, broker, listeners, grace })
}

impl Running {
    /// Stops accepting, begins nothing new, finishes what was begun.
    pub async fn stop(self) {
        self.broker.wind_down();
        // Callers who wait are answered first, and need Postgres for it.
        let deadline = Instant::now() + self.grace;
        self.listeners.stop(self.grace).await;
        self.broker.stop(deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))).await;
    }
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bound().with_context(|| format!("{setting}: {address} cannot be listened on"))
}
