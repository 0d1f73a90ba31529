//! The directory a cluster is kept in, and making the cluster whole.
//!
//! `data/` holds `pgdata/` and its `password`. Both are made in `data.new/`, which is then
//! renamed: a cluster exists whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::SecretString;

use super::Durability;
use super::account::Account;
use super::find::Programs;
use super::lock::Locks;

/// A cluster's directory, as an absolute path without links, and the account its server runs as.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) account: Account,
}

impl Home {
    /// Creates the directory if needed, checks that the server will be at home in it and takes it.
    pub(super) async fn open(dir: &Path, account: Account) -> anyhow::Result<(Self, Locks)> {
        create(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot use {}", dir.display()))?;
        let owner = dir.metadata()?.uid();
        // In a place open to all, such as /var/tmp, someone else may have made it, for us to trust.
        anyhow::ensure!(
            owner == nix::unistd::Uid::effective().as_raw() || owner == account.uid,
            "{} belongs to another account (uid {owner}): use another directory",
            dir.display()
        );
        anyhow::ensure!(
            account.reaches(&dir),
            "Postgres runs as account {}, which cannot enter {}: use a directory it can reach, \
             for example below /var/tmp",
            account.name,
            dir.display()
        );
        let home = Self { dir, account };
        let locks = Locks::take(&home.dir, &home.pgdata(), &home.account).await?;
        Ok((home, locks))
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.dir.join("data/pgdata")
    }

    /// Makes the cluster unless it is there, clears what an unclean end left behind, and returns
    /// the password. `server_lock` is held: nothing else runs here.
    pub(super) fn make_whole(
        &self,
        programs: &Programs,
        durability: Durability,
        server_lock: &File,
    ) -> anyhow::Result<SecretString> {
        let data = self.dir.join("data");
        if data.exists() {
            let owner = data.metadata()?.uid();
            anyhow::ensure!(
                owner == self.account.uid,
                "{} was made for another account (uid {owner}) than the one Postgres runs as now \
                 ({}): remove it, or start as before",
                data.display(),
                self.account.name
            );
            // Nobody runs here, whatever process now has the id in it; Postgres would believe it.
            remove(&self.pgdata().join("postmaster.pid"))?;
        } else {
            eprintln!("making a private Postgres in {} (first start) …", self.dir.display());
            self.make(&data, programs, durability, server_lock)?;
        }
        let password = data.join("password");
        std::fs::read_to_string(&password).map(SecretString::from).with_context(|| format!("cannot read {}", password.display()))
    }

    fn make(&self, data: &Path, programs: &Programs, durability: Durability, server_lock: &File) -> anyhow::Result<()> {
        let unfinished = self.dir.join("data.new");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
        }
        DirBuilder::new().mode(0o700).create(&unfinished)?;
        self.account.give(&unfinished)?;
        let password = unfinished.join("password");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&password)?;
        file.write_all(hex::encode(rand::random::<[u8; 16]>()).as_bytes())?;
        self.account.give(&password)?;

        let mut initdb = self.account.command(&programs.initdb);
        initdb.arg("--pgdata").arg(unfinished.join("pgdata"));
        initdb.arg("--pwfile").arg(&password);
        initdb.args(["--username=postgres", "--auth=scram-sha-256"]);
        // The same everywhere, and there is no system without it.
        initdb.args(["--locale=C", "--encoding=UTF8"]);
        if durability == Durability::Fast {
            initdb.arg("--no-sync");
        } else {
            file.sync_all()?;
        }
        // If we are killed, the next start waits for this initdb instead of meeting it.
        initdb.stdin(server_lock.try_clone()?);
        let output = initdb.output().with_context(|| {
            let initdb = programs.initdb.display();
            format!("cannot run {initdb} as account {}", self.account.name)
        })?;
        anyhow::ensure!(
            output.status.success(),
            "initdb failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        std::fs::rename(&unfinished, data)?;
        if durability == Durability::Durable {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Creates the directory, open for passing through to the account Postgres runs as.
fn create(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    // Whatever the umask says; what is in it and secret is closed by itself.
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
