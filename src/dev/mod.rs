//! What only `token-broker dev`, `token-broker simulator` and the tests need; unused by the service.

pub mod demo;
pub mod postgres;
pub mod simulator;

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// Writes a file that only its owner may read.
///
/// # Errors
/// It cannot be written.
pub fn keep_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
