//! What is known beforehand about an issuer's tokens: their claims, and which of them say whose job it is.

/// Whose tokens an issuer signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IssuerKind {
    /// GitHub Actions.
    Github,
    /// GitLab CI ID tokens.
    Gitlab,
    /// Service accounts of a Kubernetes cluster.
    Kubernetes,
    /// Any other: plain claims.
    Plain,
}

impl IssuerKind {
    /// As it is written in the configuration and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Kubernetes => "kubernetes",
            Self::Plain => "plain",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Github, Self::Gitlab, Self::Kubernetes, Self::Plain].into_iter().find(|kind| kind.as_str() == text)
    }
}
