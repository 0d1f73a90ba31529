//! The directories of temporary clusters, and of all clusters' sockets.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::account::Account;
use super::lock;

const DIRECTORY_VARIABLE: &str = "TOKEN_BROKER_TEST_DIR";
const CLUSTER_PREFIX: &str = "token-broker-test-";
const SOCKETS_PREFIX: &str = "token-broker-pg-";

/// Linux allows 107 bytes for a socket's path, macOS 103.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// Younger ones may be about to be locked.
const ABANDONED_AFTER: Duration = Duration::from_secs(120);

/// A fresh directory for a temporary cluster.
pub(super) fn create() -> anyhow::Result<PathBuf> {
    let account = Account::of_the_server()?;
    let given = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
    let base = std::path::absolute(given.unwrap_or_else(std::env::temp_dir))?;
    // The watchdog, of the same account, removes the directory from it.
    anyhow::ensure!(
        account.writes(&base),
        "Postgres runs as account {}, which cannot write to {}: set {DIRECTORY_VARIABLE} to a \
         directory where it can",
        account.name,
        base.display()
    );
    sweep(&base, &account);
    private(&base, CLUSTER_PREFIX, &account)
}

/// A fresh directory for a server's socket, its path short enough for one.
pub(super) fn create_for_socket(account: &Account) -> anyhow::Result<PathBuf> {
    let usual = std::env::temp_dir();
    // The server's setting is a comma-separated list of quotable names.
    let plain = |base: &str| base.starts_with('/') && !base.contains([',', '"', '\'']);
    let short = |base: &str| base.len() + "/token-broker-pg-0123456789abcdef/.s.PGSQL.5432.lock".len() <= MAX_SOCKET_PATH_BYTES;
    let usable = |base: &Path| base.to_str().is_some_and(|base| plain(base) && short(base)) && account.writes(base);
    let base = if usable(&usual) { &usual } else { Path::new("/tmp") };
    private(base, SOCKETS_PREFIX, account)
}

/// Whether `dir` is one of [`create_for_socket`]'s.
pub(super) fn is_for_socket(dir: &Path, account: &Account) -> bool {
    named(dir, SOCKETS_PREFIX) && dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == account.uid)
}

fn private(base: &Path, prefix: &str, account: &Account) -> anyhow::Result<PathBuf> {
    let dir = base.join(format!("{prefix}{}", hex::encode(rand::random::<[u8; 8]>())));
    DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    account.give(&dir)?;
    Ok(dir)
}

/// Removes clusters whose process and watchdog were both killed, or which were never finished.
fn sweep(base: &Path, account: &Account) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        if named(&dir, CLUSTER_PREFIX)
            && metadata.is_dir()
            && metadata.uid() == account.uid
            && age.is_some_and(|age| age > ABANDONED_AFTER)
            && lock::abandoned(&dir)
        {
            std::fs::remove_dir_all(&dir).ok();
        }
    }
}

fn named(dir: &Path, prefix: &str) -> bool {
    dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}
