//! Secrets that do not print, and sealed bytes: two kinds of type that cannot be mistaken for one another.
//!
//! Only `crypto` turns one into the other. Everything here is zeroized when dropped and says `[REDACTED]` in `Debug`.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SecretString);

        impl $name {
            /// Takes the text over.
            pub fn new(text: impl Into<String>) -> Self {
                Self(SecretString::from(text.into()))
            }

            /// The text itself, for the one place that must send, seal or hash it.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }
    };
}

secret!(
    /// JFrog's short-lived bearer credential: what callers are handed.
    AccessToken
);
secret!(
    /// JFrog's single-use credential that makes the next pair. Never leaves the service but towards JFrog.
    RefreshToken
);
secret!(
    /// JFrog's 64-character stand-in for an access token.
    ReferenceToken
);
secret!(
    /// A person's token from the JFrog UI, used for one registration and destroyed.
    IdentityToken
);
secret!(
    /// A credential for the broker itself, as the caller presented it: unverified.
    PresentedCredential
);

/// Bytes that mean nothing without their key and place. Safe to store, and all that `store` accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Bytes that were sealed once, read back.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A data key as it is stored.
#[derive(Clone, Debug)]
pub struct Wrapped {
    /// Which master key unwraps it.
    pub master_key_id: String,
    /// The key, sealed by that master key.
    pub sealed: Sealed,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let token = RefreshToken::new("correct horse");
        assert!(!format!("{token:?}").contains("horse"));
        assert_eq!(token.expose(), "correct horse");
    }
}
