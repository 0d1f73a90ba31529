//! What a key service is shown.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::CallError;

/// A secret that was given once, or that a file holds now: an agent may keep it fresh.
#[derive(Clone, Debug)]
pub enum Credential {
    /// This one.
    Given(SecretString),
    /// What this file holds.
    File(PathBuf),
}

impl Credential {
    /// As it is now.
    pub(super) async fn now(&self) -> Result<SecretString, CallError> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(file) => read(file).await,
        }
    }

    /// Whether it may be another one by now.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// What the file holds, without white space around it.
pub(super) async fn read(file: &Path) -> Result<SecretString, CallError> {
    let text = tokio::fs::read_to_string(file).await;
    let text = Zeroizing::new(text.map_err(|error| CallError::Unavailable(format!("reading {}: {error}", file.display())))?);
    Ok(SecretString::from(text.trim()))
}
