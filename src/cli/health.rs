//! `token-broker health`: a health check for images without a shell.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;

use crate::outbound;

#[derive(Args, Debug)]
pub(super) struct HealthOptions {
    /// What to ask; absent: /health/ready on the operators' address.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The operators' address of the service.
    #[arg(long, env = "TOKEN_BROKER_OPS_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    ops_listen: SocketAddr,
}

/// Longer than the service takes to say that Postgres does not answer.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) async fn run(options: &HealthOptions) -> anyhow::Result<()> {
    let mut address = options.ops_listen;
    if address.ip().is_unspecified() {
        // The service listens everywhere; ask it here.
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let url = options.url.clone().unwrap_or_else(|| format!("http://{address}/health/ready"));
    let client = outbound::client(&outbound::Route::default(), PATIENCE)?;
    let answer = client.get(url).send().await.context("the service does not answer")?;
    let status = answer.status();
    ensure!(status.is_success(), "the service is not ready: {status} {}", answer.text().await.unwrap_or_default());
    Ok(())
}
