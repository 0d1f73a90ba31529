//! Posting to servers that users name, within what the operator allows: without that, whoever may name a URL could reach whatever
//! this service can reach.

use std::{str::FromStr, sync::Arc, time::Duration};

use reqwest::Url;

use super::{Route, client, why};

/// A server that does not take a post in this time did not take it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Servers that may be posted to: `https://host[:port]`, where the host may begin with `*.`; `http://` only where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin {
    scheme: String,
    host: String,
    /// Whatever stands in the place of `*`.
    below: bool,
    port: u16,
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not = || format!("{text:?} is not of the form https://host[:port], with a host that may begin with `*.`");
        let (scheme, rest) = text.split_once("://").ok_or_else(not)?;
        let (below, plain) = rest.strip_prefix("*.").map_or((false, rest), |parent| (true, parent));
        let url = Url::parse(&format!("{scheme}://{plain}")).map_err(|_| not())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let host = url.host_str().filter(|host| bare && !host.contains('*')).ok_or_else(not)?;
        // `*.com` would be everybody.
        if below && !host.contains('.') {
            return Err(not());
        }
        match (url.scheme(), url.port_or_known_default()) {
            ("https" | "http", Some(port)) => Ok(Self { scheme: url.scheme().to_owned(), host: host.to_owned(), below, port }),
            _ => Err(not()),
        }
    }
}

impl AllowedOrigin {
    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host_fits = match host.strip_suffix(&self.host) {
            Some("") => !self.below,
            Some(front) => self.below && front.len() > 1 && front.ends_with('.'),
            None => false,
        };
        host_fits && url.scheme() == self.scheme && url.port_or_known_default() == Some(self.port)
    }
}

/// Posts to allowed servers.
#[derive(Clone, Debug)]
pub struct Courier {
    /// None where nobody may be posted to: the system's certificates are not read for it.
    client: Option<reqwest::Client>,
    allowed: Arc<[AllowedOrigin]>,
}

impl Courier {
    /// To these servers alone.
    ///
    /// # Errors
    /// The route's CA or proxy cannot be read.
    pub fn new(allowed: Vec<AllowedOrigin>, route: &Route) -> anyhow::Result<Self> {
        let client = (!allowed.is_empty()).then(|| client(route, TIMEOUT)).transpose()?;
        Ok(Self { client, allowed: allowed.into() })
    }

    /// The origin of a URL that may be posted to.
    ///
    /// # Errors
    /// Why it may not, as the rest of a sentence.
    pub fn origin(&self, url: &str) -> Result<String, String> {
        let url = Url::parse(url).map_err(|_| "must be a URL".to_owned())?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("must have neither credentials nor a fragment".to_owned());
        }
        if !self.allowed.iter().any(|allowed| allowed.covers(&url)) {
            return Err(
                "is not at a server that this service may post to: an operator sets TOKEN_BROKER_WEBHOOK_HOSTS".to_owned()
            );
        }
        Ok(url.origin().ascii_serialization())
    }

    /// Posts JSON once.
    ///
    /// # Errors
    /// It may not, or the server did not take it: why, for admins.
    pub async fn post(&self, url: &str, headers: &[(&'static str, String)], body: String) -> Result<(), String> {
        self.origin(url).map_err(|why| format!("its URL {why}"))?;
        let Some(client) = &self.client else { return Err("there is no server that may be posted to".to_owned()) };
        let mut request = client.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status().as_u16())),
            Err(error) => Err(why(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_may_be_posted_to() {
        let allowed = ["https://hooks.example", "https://*.acme.internal:8443", "http://127.0.0.1:9"];
        let allowed = allowed.map(|origin| origin.parse().expect("an origin")).to_vec();
        let courier = Courier::new(allowed, &Route::default()).expect("a courier");
        for good in [
            "https://hooks.example/T0/x",
            "https://HOOKS.example:443/?a=b",
            "https://a.acme.internal:8443/",
            "https://b.a.acme.internal:8443/x",
            "http://127.0.0.1:9/x",
            // A backslash is a slash, here and for who sends: it goes to the server that is allowed.
            "https://hooks.example\\@evil.test/",
        ] {
            assert!(courier.origin(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "hooks.example",
            "http://hooks.example/",
            "https://hooks.example:8443/",
            "https://hooks.example.evil.test/",
            "https://evil-hooks.example/",
            "https://x.hooks.example/",
            "https://acme.internal:8443/",
            "https://.acme.internal:8443/",
            "https://evilacme.internal:8443/",
            "https://a.acme.internal/",
            "https://user@hooks.example/",
            "https://hooks.example@evil.test/",
            "https://hooks.example/#x",
            "http://127.0.0.2:9/",
            "http://2130706433:10/",
            "file:///etc/passwd",
            "gopher://hooks.example/",
        ] {
            assert!(courier.origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["", "*", "hooks.example", "https://", "https://*", "https://*.com", "https://a*.b", "https://a/b", "ftp://a"]
        {
            assert!(bad.parse::<AllowedOrigin>().is_err(), "{bad}");
        }
    }
}
