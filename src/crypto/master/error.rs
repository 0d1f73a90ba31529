//! What can be wrong with a master key.

use crate::crypto::seal::OpenError;

/// Why there is no usable master key. Never quotes the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// The list is empty.
    #[error("no master key is given")]
    None,
    /// An entry has no id, or not one of our names.
    #[error("master key {0} of the list is not of the form id:base64, with an id of a-z, 0-9, '.', '_', '-'")]
    Form(usize),
    /// A key of a key service that cannot be used: why, as the rest of a sentence.
    #[error("master key {0} {1}")]
    Service(String, String),
    /// The key service cannot be asked now.
    #[error("master key {0} cannot be asked for: {1}")]
    Unavailable(String, String),
    /// A key of the wrong length, or not base64.
    #[error("master key {0} is not the base64 of 32 bytes")]
    Length(String),
    /// A key that is no key.
    #[error("master key {0} is all the same byte: make one with `openssl rand -base64 32`")]
    Constant(String),
    /// Two keys of one id.
    #[error("master key {0} is given twice")]
    Twice(String),
    /// Something is wrapped by a key that is not in the list.
    #[error("master key {0} is needed and is not in the list")]
    Missing(String),
    /// The canary or a data key does not open.
    #[error("master key {0} is not the key that was used under this id: {1}")]
    Wrong(String, OpenError),
    /// A wrapped key of ours that its master key does not open.
    #[error("data key {id} does not open with its master key {master}: {error}")]
    Damaged {
        /// Which.
        id: String,
        /// What wraps it.
        master: String,
        /// Why not.
        error: OpenError,
    },
    /// The first of the list was retired.
    #[error("master key {0} was retired, and nothing may be wrapped by it any more: put another one first")]
    Retired(String),
}

impl MasterKeyError {
    /// The key service of `id` is waited for no longer.
    pub fn late(id: &str) -> Self {
        Self::Unavailable(id.to_owned(), "the key service does not answer in time".to_owned())
    }
}
