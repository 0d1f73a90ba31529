//! Why a JWT is not believed.

use std::time::Duration;

use super::json::Flaw;

/// Why a JWT is not believed. Precise, for logs and the audit; never the token itself, and what it quotes is short and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Over 16 KiB.
    #[error("the JWT is longer than 16 KiB")]
    TooLong,
    /// Two, four or five parts (an encrypted token has five).
    #[error("a JWT has three parts")]
    NotThreeParts,
    /// A part cannot be read in exactly one way.
    #[error("the JWT's {part} {flaw}")]
    Malformed {
        /// `header`, `payload` or `signature`.
        part: &'static str,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A header member that is not acceptable: it would have us take a key from the token, or is no short string.
    #[error("the JWT's header has an unacceptable `{0}`")]
    Header(&'static str),
    /// Symmetric, none, unknown, not among the issuer's, or not the key's.
    #[error("algorithm {0} is not acceptable here")]
    Algorithm(String),
    /// Not on the list.
    #[error("issuer {0:?} is not trusted")]
    UnknownIssuer(String),
    /// The issuer publishes no such key.
    #[error("issuer {issuer} publishes no usable key {kid:?}")]
    UnknownKey {
        /// Of the list.
        issuer: String,
        /// As the header names it.
        kid: Option<String>,
    },
    /// The key was not there when the issuer was asked last, and it may not be asked again yet, at strangers' bidding: a key with
    /// which it has just begun to sign looks the same.
    #[error("issuer {issuer} published no usable key {kid:?} when it was asked last, and can be asked again in {} s", .wait.as_secs() + 1)]
    UnaskedKey {
        /// Of the list.
        issuer: String,
        /// As the header names it.
        kid: Option<String>,
        /// Until it may be asked.
        wait: Duration,
    },
    /// Several keys could be meant: guessing would let one stand in for another.
    #[error("issuer {issuer} publishes several keys that could be {kid:?}")]
    AmbiguousKey {
        /// Of the list.
        issuer: String,
        /// As the header names it.
        kid: Option<String>,
    },
    /// The key is not among those at hand, and the issuer could not be asked.
    #[error("the keys of issuer {issuer} cannot be had: {why}")]
    KeysUnavailable {
        /// Of the list.
        issuer: String,
        /// What the last fetch met with.
        why: String,
    },
    /// Not signed with the issuer's key.
    #[error("the JWT's signature is wrong")]
    Signature,
    /// Absent, of the wrong type, or out of range.
    #[error("the JWT's claim `{claim}` {flaw}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What is wrong with it.
        flaw: ClaimFlaw,
    },
    /// For somebody else.
    #[error("the JWT is for another audience")]
    Audience,
    /// Over.
    #[error("the JWT has expired")]
    Expired,
    /// `iat` or `nbf` lies in the future.
    #[error("the JWT's `{0}` lies in the future")]
    NotYet(&'static str),
    /// `exp` is not after `iat`, or more than a day after it.
    #[error("the JWT's lifetime is not between 1 second and 24 hours")]
    Lifetime,
    /// What only the library found.
    #[error("the JWT cannot be verified: {0}")]
    Unverifiable(String),
}

/// What is wrong with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFlaw {
    /// Not there.
    #[error("is missing")]
    Missing,
    /// Another JSON type.
    #[error("has the wrong type")]
    WrongType,
    /// Empty, too long, negative, or too far away.
    #[error("is out of range")]
    OutOfRange,
}

/// The beginning of a text from outside, for a message.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(256).collect()
}
