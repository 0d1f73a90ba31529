//! `token-broker serve`: wires the service and runs it until it is asked to stop.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use axum_server::{Handle, Server, tls_rustls::RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    api::{self, ApiState, Metrics},
    broker::{Broker, Keys},
    config::{Database, ServeOptions, Settings},
    jfrog::Jfrog,
    journal::Journal,
    store::{self, Store},
    telemetry,
};

/// How long a connection may take to send its header.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Longest header.
const HEADER_LIMIT: usize = 16 * 1024;

/// The service, running.
#[derive(Debug)]
pub struct Running {
    /// The API's address.
    pub listen: SocketAddr,
    /// The operators' address.
    pub ops_listen: SocketAddr,
    /// The flows.
    pub broker: Broker,
    handle: Handle<SocketAddr>,
    servers: Vec<JoinHandle<io::Result<()>>>,
    grace: Duration,
}

/// Runs the command.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub(super) async fn run(options: &ServeOptions) -> anyhow::Result<()> {
    telemetry::init(options.log_format);
    let running = start(options.read()?, Some(Metrics::install()?)).await?;
    tracing::info!(listen = %running.listen, ops_listen = %running.ops_listen, "ready");
    asked_to_stop().await;
    tracing::info!("stopping: what was begun is finished first");
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Until SIGTERM or SIGINT.
pub async fn asked_to_stop() {
    let terminate = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    match terminate {
        Ok((mut terminate, mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        // Without signals nobody can ask; SIGKILL is survived anyway.
        Err(_) => std::future::pending().await,
    }
}

/// The database, migrated and opened with its keys.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub(super) async fn open(database: Database) -> anyhow::Result<(Store, Keys)> {
    store::migrate(database.migrate).await.context("DATABASE_URL: the database cannot be reached or migrated")?;
    let store =
        Store::connect(database.connect, database.connections).await.context("DATABASE_URL: connecting as token_broker_app")?;
    let keys = Keys::open(database.master_keys, &store).await.context("TOKEN_BROKER_MASTER_KEYS is not usable")?;
    Ok((store, keys))
}

/// Starts the service: ready when it returns.
///
/// # Errors
/// One sentence on what is missing or wrong.
pub async fn start(settings: Settings, metrics: Option<Metrics>) -> anyhow::Result<Running> {
    for instance in settings.instances.iter().filter(|instance| instance.url.starts_with("http:")) {
        tracing::warn!(instance = instance.name, "JFrog is spoken to without TLS");
    }
    if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
        tracing::warn!("the API is plain HTTP off loopback: put a TLS proxy in front, or set TOKEN_BROKER_TLS_CERT");
    }
    // Bound first: a port in use is found before anything is touched.
    let listener = bind("TOKEN_BROKER_LISTEN", settings.listen)?;
    let ops_listener = bind("TOKEN_BROKER_OPS_LISTEN", settings.ops_listen)?;
    let (listen, ops_listen) = (listener.local_addr()?, ops_listener.local_addr()?);

    let (store, keys) = open(settings.database).await?;
    let installation = store.installation_id().await?;
    let journal = Journal::open(&settings.journal_dir, installation).context("TOKEN_BROKER_JOURNAL_DIR is not usable")?;
    let jfrog = Jfrog::new(settings.instances, &settings.route, settings.timing.jfrog_timeout)?;
    let broker = Broker::new(store, jfrog, keys, journal, installation, settings.timing);
    broker.start().await.context("replaying the journal")?;

    let state = ApiState::new(broker.clone(), settings.trusted_proxies);
    let handle = Handle::new();
    let mut servers = vec![spawn(api::router(state.clone()), listener, settings.tls, &handle).await?];
    if let Some(metrics) = metrics {
        servers.push(spawn(api::ops_router(state, metrics), ops_listener, None, &handle).await?);
    }
    let grace = settings.timing.lease + Duration::from_secs(10);
    Ok(Running { listen, ops_listen, broker, handle, servers, grace })
}

impl Running {
    /// Stops accepting, begins nothing new, finishes what was begun.
    pub async fn stop(self) {
        self.handle.graceful_shutdown(Some(self.grace));
        self.broker.wind_down();
        // Callers who wait are answered first, and need Postgres for it.
        for server in self.servers {
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "a listener ended badly");
            }
        }
        self.broker.stop(self.grace).await;
    }
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("{setting}: {address} cannot be listened on"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn spawn(
    router: Router,
    listener: TcpListener,
    tls: Option<(PathBuf, PathBuf)>,
    handle: &Handle<SocketAddr>,
) -> anyhow::Result<JoinHandle<io::Result<()>>> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    Ok(match tls {
        None => {
            let server = bounded(axum_server::from_tcp(listener)?.handle(handle.clone()));
            tokio::spawn(server.serve(service))
        }
        Some((cert, key)) => {
            let config = RustlsConfig::from_pem_file(cert, key).await.context("TOKEN_BROKER_TLS_CERT or _KEY cannot be read")?;
            let server = bounded(axum_server::from_tcp_rustls(listener, config)?.handle(handle.clone()));
            tokio::spawn(server.serve(service))
        }
    })
}

/// Bounds that hyper sets only when asked.
fn bounded<A>(mut server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_LIMIT).unwrap_or(u32::MAX))
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(20));
    server
}
