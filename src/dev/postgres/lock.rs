//! Who uses a cluster's directory. The kernel keeps the answer: a lock goes with the last process
//! that holds it, so neither a stale nor a reused process id can mislead.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::sleep;

use super::account::Account;
use super::pid_file::PidFile;

/// A process that was just killed may need a moment to let go.
const OWNER_GRACE: Duration = Duration::from_millis(500);
/// An orphaned server gets this long to shut down.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(10);

/// Both locks on a cluster's directory.
#[derive(Debug)]
pub(super) struct Locks {
    /// Held by us alone: a second start is refused.
    pub(super) ours: File,
    /// Inherited by initdb, the server and its watchdog: free once the last of them has ended.
    pub(super) server: File,
}

impl Locks {
    /// Takes the directory, stopping a server that a killed owner left in it.
    pub(super) async fn take(dir: &Path, pgdata: &Path, account: &Account) -> anyhow::Result<Self> {
        let ours = open(&dir.join("lock"))?;
        let deadline = Instant::now() + OWNER_GRACE;
        while !free(&ours)? {
            anyhow::ensure!(
                Instant::now() < deadline,
                "another token-broker is using {}: stop it first, or use another directory",
                dir.display()
            );
            sleep(POLL).await;
        }
        let server = open(&dir.join("server.lock"))?;
        // Read now: a server that shuts down well removes it, but not its socket's directory.
        let left_behind = PidFile::read(pgdata);
        let deadline = Instant::now() + ORPHAN_PATIENCE;
        loop {
            // Asked even when the lock is free: someone may have started a server by hand.
            let orphan = PidFile::read(pgdata);
            let stopping = match &orphan {
                Some(orphan) => orphan.stop_if_alive().await,
                None => false,
            };
            if !stopping && free(&server)? {
                if let Some(left_behind) = left_behind {
                    left_behind.remove_socket_dir(account);
                }
                return Ok(Self { ours, server });
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the Postgres that an earlier run left in {} does not stop{}",
                dir.display(),
                orphan.map(|orphan| format!(" (process {})", orphan.pid)).unwrap_or_default()
            );
            sleep(POLL).await;
        }
    }
}

/// Whether nobody uses `dir`. Not known counts as used.
pub(super) fn abandoned(dir: &Path) -> bool {
    ["lock", "server.lock"].iter().all(|name| match File::open(dir.join(name)) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    })
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn free(file: &File) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the directory"),
    }
}
