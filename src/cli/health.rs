//! `token-broker health`: a health check for images without a shell.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;

use crate::outbound;

#[derive(Args, Debug)]
pub(super) struct HealthOptions {
    /// The operators' address of the service.
    #[arg(long, env = "TOKEN_BROKER_OPS_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    ops_listen: SocketAddr,
}

pub(super) async fn run(options: &HealthOptions) -> anyhow::Result<()> {
    let mut address = options.ops_listen;
    if address.ip().is_unspecified() {
        // The service listens everywhere; ask it here.
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let client = outbound::client(&outbound::Route::default(), Duration::from_secs(3))?;
    let answer = client.get(format!("http://{address}/health/ready")).send().await.context("the service does not answer")?;
    let status = answer.status();
    ensure!(status.is_success(), "the service is not ready: {status} {}", answer.text().await.unwrap_or_default());
    Ok(())
}
