//! The state file: the whole ledger as JSON, replaced at each change.

use super::ledger::Ledger;
use anyhow::Context;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The ledger of the file, `None` when there is no file yet.
pub(super) fn load(file: &Path) -> anyhow::Result<Option<Ledger>> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("reading {}", file.display())),
    };
    let mut ledger: Ledger =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no state of the simulator", file.display()))?;
    ledger.index_all();
    Ok(Some(ledger))
}

/// Whole or not at all: written beside the file, then renamed. It holds secrets, hence 0600.
pub(super) fn save(ledger: &Ledger, file: &Path) -> anyhow::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    // A leftover of a crash may have another mode, and `mode` applies only to a file that is made.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let bytes = serde_json::to_vec(ledger)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?.write_all(&bytes)?;
    fs::rename(&beside, file)?;
    Ok(())
}
