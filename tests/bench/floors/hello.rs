//! A web server that does nothing, on the same parts as the service: axum over axum-server, the same bounds on headers, a process of
//! its own. It is this program itself, started once more.

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
};

use anyhow::Context;
use axum::{Router, routing::post};
use hyper_util::rt::TokioTimer;

use crate::process::Process;

const ASKED: &str = "TOKEN_BROKER_BENCH_HELLO";

pub struct Hello {
    pub address: SocketAddr,
    _process: Process,
}

impl Hello {
    pub async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let address = |line: &str| line.strip_prefix("hello at ")?.parse().ok();
        let (process, address) = Process::start(command.env(ASKED, "1"), address).await.context("the bare web server")?;
        Ok(Self { address, _process: process })
    }
}

/// Whether this process was started to be that server; then it serves until it is killed.
pub fn serve_if_asked() -> anyhow::Result<bool> {
    if std::env::var_os(ASKED).is_none() {
        return Ok(false);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        eprintln!("hello at {}", listener.local_addr()?);
        let mut server = axum_server::from_tcp(listener)?;
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(5));
        let routes = Router::new().route("/tokens/{name}/refresh", post(async || "hello"));
        anyhow::Ok(server.serve(routes.into_make_service()).await?)
    })?;
    Ok(true)
}
