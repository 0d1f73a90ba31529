//! Posting to one URL that the operator names, whose path may be a secret.

use std::fmt;

use reqwest::Url;

use super::{AllowedOrigin, Courier, Route};

/// One URL that is posted to.
#[derive(Clone)]
pub struct Destination {
    courier: Courier,
    url: String,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Destination")
    }
}

impl Destination {
    /// At this URL, on this way.
    ///
    /// # Errors
    /// The URL is none that can be posted to, or the route cannot be read: the rest of a sentence, without the URL.
    pub fn new(url: String, route: &Route) -> Result<Self, String> {
        let not = || "must be a URL, https://host[:port]/…, without credentials".to_owned();
        let origin = Url::parse(&url).map_err(|_| not())?.origin().ascii_serialization();
        let allowed: AllowedOrigin = origin.parse().map_err(|_| not())?;
        let courier = Courier::new(vec![allowed], route).map_err(|error| format!("cannot be posted to: {error:#}"))?;
        courier.origin(&url).map_err(|_| not())?;
        Ok(Self { courier, url })
    }

    /// Posts JSON once.
    ///
    /// # Errors
    /// The server did not take it: why.
    pub async fn post(&self, body: String) -> Result<(), String> {
        self.courier.post(&self.url, &[], body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_posted_to_is_refused_without_quoting_it() {
        for good in ["https://log.example/x?y=z", "http://127.0.0.1:9/secret-path", "https://[::1]:8443/"] {
            let destination = Destination::new(good.to_owned(), &Route::default()).expect(good);
            assert!(!format!("{destination:?}").contains("secret-path"));
        }
        for bad in [
            "",
            "log.example/secret-path",
            "ftp://log.example/secret-path",
            "https://u:secret-path@log.example/",
            "file:///secret-path",
        ] {
            let why = Destination::new(bad.to_owned(), &Route::default()).expect_err(bad);
            assert!(!why.contains("secret-path"), "{why}");
        }
    }
}
