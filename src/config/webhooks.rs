//! Settings about webhooks: where they may be, and the way there.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use crate::outbound::{AllowedOrigin, Courier, Route};

/// What `serve` needs to know about webhooks.
#[derive(Args, Clone)]
pub(super) struct WebhookOptions {
    /// Servers that teams' webhooks may be at: `https://host[:port]`, the host may begin with `*.`; comma separated. Default: none.
    #[arg(long, env = "TOKEN_BROKER_WEBHOOK_HOSTS", value_delimiter = ',', value_name = "ORIGINS")]
    webhook_hosts: Vec<String>,
    /// A private certificate authority of theirs, PEM.
    #[arg(long, env = "TOKEN_BROKER_WEBHOOK_CA", value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    /// A proxy on the way to them; never taken from the environment otherwise.
    #[arg(long, env = "TOKEN_BROKER_WEBHOOK_PROXY", hide_env_values = true, value_name = "URL")]
    webhook_proxy: Option<String>,
}

impl WebhookOptions {
    /// Reads and checks.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) fn read(&self) -> anyhow::Result<Courier> {
        let entries = self.webhook_hosts.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
        let allowed: Result<Vec<AllowedOrigin>, String> = entries.map(str::parse).collect();
        let allowed = allowed.map_err(|why| anyhow!("TOKEN_BROKER_WEBHOOK_HOSTS: {why}"))?;
        let ca_pem = match &self.webhook_ca {
            Some(path) => Some(fs::read(path).with_context(|| format!("TOKEN_BROKER_WEBHOOK_CA: reading {}", path.display()))?),
            None => None,
        };
        Courier::new(allowed, &Route { ca_pem, proxy: self.webhook_proxy.clone() })
            .context("TOKEN_BROKER_WEBHOOK_CA or _PROXY is not usable")
    }
}
