//! Issuers as the operator writes them: `[kind=]URL[ ALG…]`.

use std::{net::IpAddr, str::FromStr};

use jsonwebtoken::Algorithm;
use reqwest::Url;

use crate::identity::IssuerKind;

/// An issuer whose tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What its tokens must have as `iss`, byte for byte as it was written.
    pub url: String,
    /// What its claims mean.
    pub kind: IssuerKind,
    /// The only algorithms its tokens may be signed with. Asymmetric ones.
    pub algorithms: Vec<Algorithm>,
}

/// Why a text does not name an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("issuer `{entry}`: {reason}")]
pub struct InvalidIssuer {
    entry: String,
    reason: String,
}

impl IssuerSettings {
    /// The kind that its address suggests, where it is taken for one of which nothing is known.
    pub fn suggested_kind(&self) -> Option<IssuerKind> {
        let url = Url::parse(&self.url).ok().filter(|_| self.kind == IssuerKind::Plain)?;
        if url.path().contains("/_services/token") {
            Some(IssuerKind::Github)
        } else {
            url.host_str().is_some_and(|host| host.contains("gitlab")).then_some(IssuerKind::Gitlab)
        }
    }
}

impl FromStr for IssuerSettings {
    type Err = InvalidIssuer;

    fn from_str(entry: &str) -> Result<Self, InvalidIssuer> {
        parse(entry).map_err(|reason| InvalidIssuer { entry: entry.to_owned(), reason })
    }
}

fn parse(entry: &str) -> Result<IssuerSettings, String> {
    let mut words = entry.split_ascii_whitespace();
    let first = words.next().ok_or("a URL is missing")?;
    let (kind, url) = match first.split_once('=') {
        // An equals sign may stand in a URL's path too.
        Some((kind, url)) if !kind.contains(':') => {
            let kind = IssuerKind::parse(kind).ok_or("the kind must be github, gitlab, kubernetes or plain")?;
            (Some(kind), url)
        }
        _ => (None, first),
    };
    let parsed = check(url)?;
    let kind = kind.unwrap_or_else(|| known_kind(url, &parsed));
    let mut algorithms = words.map(asymmetric).collect::<Result<Vec<_>, _>>()?;
    if algorithms.is_empty() {
        algorithms = default_algorithms(kind);
    }
    Ok(IssuerSettings { url: url.to_owned(), kind, algorithms })
}

fn check(url: &str) -> Result<Url, String> {
    if !url.bytes().all(|c| c.is_ascii_graphic()) {
        return Err("the URL must be plain ASCII".to_owned());
    }
    let parsed = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
    match parsed.scheme() {
        "https" => {}
        "http" if is_loopback(&parsed) => {}
        _ => return Err("must be https (http only on a loopback address)".to_owned()),
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not name a user".to_owned());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("must have neither a query nor a fragment".to_owned());
    }
    Ok(parsed)
}

/// Whether the URL leads to this very machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn known_kind(url: &str, parsed: &Url) -> IssuerKind {
    const GITHUB: &str = "https://token.actions.githubusercontent.com";
    let host = parsed.host_str().unwrap_or_default();
    let eks = host.strip_prefix("oidc.eks.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    if url.strip_prefix(GITHUB).is_some_and(|path| path.is_empty() || path.starts_with('/')) {
        IssuerKind::Github
    } else if host == "gitlab.com" {
        IssuerKind::Gitlab
    } else if matches!(host, "kubernetes.default.svc" | "kubernetes.default.svc.cluster.local")
        || (eks.is_some_and(|region| !region.contains('.')) && parsed.path().starts_with("/id/"))
        || (host == "container.googleapis.com" && parsed.path().starts_with("/v1/projects/"))
    {
        IssuerKind::Kubernetes
    } else {
        IssuerKind::Plain
    }
}

/// The algorithm of this exact name, if a public key verifies it: with a shared secret, whoever verifies could also sign.
pub(super) fn asymmetric(name: &str) -> Result<Algorithm, String> {
    match Algorithm::from_str(name) {
        Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => {
            Err(format!("`{}` is no asymmetric algorithm that is known here", name.escape_debug()))
        }
        Ok(algorithm) => Ok(algorithm),
    }
}

fn default_algorithms(kind: IssuerKind) -> Vec<Algorithm> {
    match kind {
        IssuerKind::Github | IssuerKind::Gitlab => vec![Algorithm::RS256],
        IssuerKind::Kubernetes | IssuerKind::Plain => {
            vec![Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_written_or_known_by_the_url() {
        for (entry, url, kind) in [
            ("https://token.actions.githubusercontent.com", "https://token.actions.githubusercontent.com", "github"),
            ("https://token.actions.githubusercontent.com/acme", "https://token.actions.githubusercontent.com/acme", "github"),
            ("https://token.actions.githubusercontent.com.evil", "https://token.actions.githubusercontent.com.evil", "plain"),
            ("https://gitlab.com", "https://gitlab.com", "gitlab"),
            ("gitlab=https://gitlab.corp/", "https://gitlab.corp/", "gitlab"),
            ("plain=https://gitlab.com", "https://gitlab.com", "plain"),
            ("https://kubernetes.default.svc", "https://kubernetes.default.svc", "kubernetes"),
            ("https://kubernetes.default.svc.cluster.local", "https://kubernetes.default.svc.cluster.local", "kubernetes"),
            ("https://oidc.eks.eu-west-1.amazonaws.com/id/AB", "https://oidc.eks.eu-west-1.amazonaws.com/id/AB", "kubernetes"),
            ("https://oidc.eks.x.evil.amazonaws.com/id/AB", "https://oidc.eks.x.evil.amazonaws.com/id/AB", "plain"),
            (
                "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
                "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
                "kubernetes",
            ),
            ("https://idp.example/a=b", "https://idp.example/a=b", "plain"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "plain"),
            ("http://[::1]:8080", "http://[::1]:8080", "plain"),
        ] {
            let parsed: IssuerSettings = entry.parse().expect(entry);
            assert_eq!((parsed.url.as_str(), parsed.kind.as_str()), (url, kind), "{entry}");
        }
    }

    #[test]
    fn an_issuer_that_looks_like_another_kind_is_noticed() {
        for (entry, kind) in [
            ("https://github.corp/_services/token", Some(IssuerKind::Github)),
            ("https://tenant.ghe.com/_services/token/acme", Some(IssuerKind::Github)),
            ("https://gitlab.corp", Some(IssuerKind::Gitlab)),
            ("https://my-gitlab.example:8443/", Some(IssuerKind::Gitlab)),
            ("gitlab=https://gitlab.corp", None),
            ("github=https://github.corp/_services/token", None),
            ("https://gitlab.com", None),
            ("https://idp.example/gitlab", None),
        ] {
            assert_eq!(entry.parse::<IssuerSettings>().expect(entry).suggested_kind(), kind, "{entry}");
        }
    }

    #[test]
    fn algorithms_are_asymmetric_and_fixed() {
        let algorithms = |entry: &str| entry.parse::<IssuerSettings>().map(|issuer| issuer.algorithms);
        assert_eq!(algorithms("https://idp ES256 PS512"), Ok(vec![Algorithm::ES256, Algorithm::PS512]));
        assert_eq!(algorithms("https://gitlab.com"), Ok(vec![Algorithm::RS256]));
        assert_eq!(algorithms("https://idp").expect("parsed").len(), 4);
        for bad in ["HS256", "none", "rs256", "ES256K", "RS256,ES256"] {
            assert!(algorithms(&format!("https://idp {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for bad in [
            "",
            " ",
            "idp.example",
            "http://idp.example",
            "http://127.0.0.1.evil",
            "ftp://127.0.0.1",
            "https://user@idp",
            "https://u:p@idp",
            "https://idp?x",
            "https://idp#x",
            "jenkins=https://idp",
            "=https://idp",
            "https://",
            "https://idp\u{456}.example",
        ] {
            assert!(bad.parse::<IssuerSettings>().is_err(), "{bad}");
        }
    }
}
