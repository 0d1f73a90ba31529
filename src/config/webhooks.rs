//! Settings about what is posted to others: teams' webhooks, and the audit's checkpoints. The way there is the same.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::{route, secret};
use crate::outbound::{AllowedOrigin, Destination, Route};

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
    /// A file that holds it.
    #[arg(long, env = "TOKEN_BROKER_WEBHOOK_PROXY_FILE", value_name = "FILE")]
    webhook_proxy_file: Option<PathBuf>,
    /// Where each checkpoint of the audit is posted, as JSON; default: they are logged only.
    #[arg(long, env = "TOKEN_BROKER_AUDIT_CHECKPOINT_URL", hide_env_values = true, value_name = "URL")]
    audit_checkpoint_url: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "TOKEN_BROKER_AUDIT_CHECKPOINT_URL_FILE", value_name = "FILE")]
    audit_checkpoint_url_file: Option<PathBuf>,
}

impl WebhookOptions {
    /// Servers that may be told.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) fn hosts(&self) -> anyhow::Result<Vec<AllowedOrigin>> {
        let entries = self.webhook_hosts.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
        let allowed: Result<Vec<AllowedOrigin>, String> = entries.map(str::parse).collect();
        allowed.map_err(|why| anyhow!("TOKEN_BROKER_WEBHOOK_HOSTS: {why}"))
    }

    /// Where checkpoints of the audit are posted.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) fn checkpoints(&self) -> anyhow::Result<Option<Destination>> {
        let name = "TOKEN_BROKER_AUDIT_CHECKPOINT_URL";
        let url = secret(name, self.audit_checkpoint_url.as_deref(), self.audit_checkpoint_url_file.as_ref())?;
        let Some(url) = url else { return Ok(None) };
        let route = self.route()?;
        Ok(Some(Destination::new(url, &route).map_err(|why| anyhow!("{name} {why}"))?))
    }

    /// The way to them.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub(super) fn route(&self) -> anyhow::Result<Route> {
        let proxy = (self.webhook_proxy.as_deref(), self.webhook_proxy_file.as_ref());
        route("TOKEN_BROKER_WEBHOOK", self.webhook_ca.as_ref(), proxy.0, proxy.1)
    }
}
