//! Every reqwest client is built here: no redirects (they would carry a refresh token away), no retries (a refresh is not
//! idempotent), no proxy from the environment.

mod courier;
mod destination;

use std::time::Duration;

use anyhow::Context;

pub use courier::{AllowedOrigin, Courier};
pub use destination::Destination;

/// What an operator may say about the way out.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// A certificate authority to trust besides the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// An explicit proxy.
    pub proxy: Option<String>,
}

/// What went wrong with a call, without its URL, which may hold a secret.
pub fn why(error: &reqwest::Error) -> String {
    let what = match () {
        () if error.is_timeout() => "it did not answer in time",
        () if error.is_connect() => "it could not be connected to",
        () => "the connection broke off",
    };
    what.to_owned()
}

/// The certificates of a PEM file.
///
/// # Errors
/// One of them is none.
pub fn authorities(pem: &[u8]) -> anyhow::Result<Vec<reqwest::Certificate>> {
    reqwest::Certificate::from_pem_bundle(pem).context("reading the certificate authority")
}

/// A proxy for every call.
///
/// # Errors
/// It is no URL.
pub fn proxy(address: &str) -> anyhow::Result<reqwest::Proxy> {
    reqwest::Proxy::all(address).context("reading the proxy's address")
}

/// A client for calls that must not share a connection: a stale keep-alive socket would make an outcome unknown.
///
/// # Errors
/// The CA or the proxy cannot be read.
pub fn client(route: &Route, timeout: Duration) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("token-broker/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .timeout(timeout)
        .no_proxy();
    if let Some(pem) = &route.ca_pem {
        builder = builder.tls_certs_merge(authorities(pem)?);
    }
    if let Some(proxy) = &route.proxy {
        builder = builder.proxy(self::proxy(proxy)?);
    }
    builder.build().context("building the HTTP client")
}
