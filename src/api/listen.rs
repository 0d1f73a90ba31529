//! Listening: bounds on slow and greedy connections, TLS, and an end that answers who waits.

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
use tokio::task::JoinHandle;

use super::{ApiState, Metrics, Routes};

/// How long a connection may take to send its header.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Longest header.
const HEADER_LIMIT: usize = 16 * 1024;

/// The service's listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    handle: Handle<SocketAddr>,
    servers: Vec<JoinHandle<io::Result<()>>>,
}

impl Listeners {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the API, over TLS where a certificate chain and key are given (PEM files).
    ///
    /// # Errors
    /// The certificate or key cannot be read.
    pub async fn serve_api(
        &mut self,
        routes: Routes,
        state: ApiState,
        on: TcpListener,
        tls: Option<(PathBuf, PathBuf)>,
    ) -> anyhow::Result<()> {
        self.serve(routes.over(state), on, tls).await
    }

    /// Serves `/metrics` and health.
    ///
    /// # Errors
    /// The listener is not usable.
    pub async fn serve_ops(&mut self, state: ApiState, metrics: Metrics, on: TcpListener) -> anyhow::Result<()> {
        self.serve(super::ops_router(state, metrics), on, None).await
    }

    /// Stops accepting; returns when every request under way was answered, or after `grace`.
    pub async fn stop(self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        for server in self.servers {
            if let Ok(Err(error)) = server.await {
                tracing::warn!(%error, "a listener ended badly");
            }
        }
    }

    async fn serve(&mut self, router: Router, on: TcpListener, tls: Option<(PathBuf, PathBuf)>) -> anyhow::Result<()> {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let handle = self.handle.clone();
        self.servers.push(match tls {
            None => tokio::spawn(bounded(axum_server::from_tcp(on)?.handle(handle)).serve(service)),
            Some((cert, key)) => {
                let config =
                    RustlsConfig::from_pem_file(cert, key).await.context("TOKEN_BROKER_TLS_CERT or _KEY cannot be read")?;
                tokio::spawn(bounded(axum_server::from_tcp_rustls(on, config)?.handle(handle)).serve(service))
            }
        });
        Ok(())
    }
}

/// Bounds that hyper sets only when asked.
fn bounded<A>(server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    // A connection that says nothing at all is in neither protocol's hands yet.
    let mut server = server.first_request_timeout(HEADER_TIME);
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
