//! A private Postgres for `token-broker dev` and for the tests: found or installed, made,
//! started and stopped by us, reachable by nobody else, and never outliving us.

mod account;
mod address;
mod cluster;
mod find;
mod install;
mod lock;
mod pid_file;
mod process;
mod temporary;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use account::Account;
use address::Address;
use cluster::Home;
use process::Server;

/// How much the server does so that its data outlive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything Postgres does by default: for data that are kept.
    Durable,
    /// Neither `fsync` nor full-page writes: for tests. A crash of the machine ruins the data; a
    /// crash of the server or of this process does not.
    Fast,
}

/// A running private Postgres. Dropped, or when this process ends in whatever way, the server
/// stops by itself; [`Cluster::stop`] also waits for it. Bound to no async runtime.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: the server must be told to stop before the directory is given up.
    server: Server,
    dir: PathBuf,
    _ours: File,
}

impl Cluster {
    /// Starts the cluster kept in `dir`, first making it whole if needed.
    ///
    /// # Errors
    /// When Postgres is missing and can't be installed, when `dir` is in use, belongs to someone
    /// else or can't be reached by the account Postgres runs as, or when the server fails to
    /// start (then with the end of its log).
    pub async fn start(dir: &Path, durability: Durability) -> anyhow::Result<Self> {
        Self::launch(dir, durability, false).await
    }

    /// A fast cluster in a fresh directory below `$TOKEN_BROKER_TEST_DIR`, else below the
    /// system's temporary directory. The directory is removed once the server has stopped, also
    /// when this process was killed.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn temporary() -> anyhow::Result<Self> {
        // The account may come into being only with the installation of Postgres.
        blocking(find::programs).await?;
        let dir = blocking(temporary::create).await?;
        let cluster = Self::launch(&dir, Durability::Fast, true).await;
        if cluster.is_err() {
            // A watchdog that was started removes it as well; whoever is later finds nothing.
            std::fs::remove_dir_all(&dir).ok();
        }
        cluster
    }

    async fn launch(dir: &Path, durability: Durability, temporary: bool) -> anyhow::Result<Self> {
        let programs = blocking(find::programs).await?;
        let account = Account::of_the_server()?;
        let (home, locks) = Home::open(dir, account).await?;
        let server_lock = locks.server.try_clone()?;
        let (home, programs, password) = blocking(move || {
            let password = home.make_whole(&programs, durability, &server_lock)?;
            Ok((home, programs, password))
        })
        .await?;
        let server = Server::start(&home, &programs, durability, temporary, locks.server, password).await?;
        Ok(Self { server, dir: home.dir, _ours: locks.ours })
    }

    /// The connection URL of `database`, with the password, for sqlx and for psql.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.address().url(database)
    }

    /// The directory the cluster is kept in, as an absolute path; its log is `postgres.log` there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid
    }

    /// Creates the database `name`, as a copy of `template` if one is given.
    ///
    /// # Errors
    /// When it exists already, when `template` does not or is in use, or on a lost connection.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> anyhow::Result<()> {
        let mut statement = format!("create database {}", quoted(name));
        if let Some(template) = template {
            statement.push_str(&format!(" template {}", quoted(template)));
        }
        let mut connection = self.address().connect().await?;
        // Names can't be parameters; both are quoted.
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .with_context(|| format!("cannot create the database {name}"))?;
        Ok(connection.close().await?)
    }

    /// Whether the database `name` exists.
    ///
    /// # Errors
    /// On a lost connection.
    pub async fn has_database(&self, name: &str) -> anyhow::Result<bool> {
        let mut connection: PgConnection = self.address().connect().await?;
        let exists = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(exists)
    }

    /// Stops the server (fast shutdown: open connections are cut) and waits until it has ended.
    ///
    /// # Errors
    /// When it has not ended after half a minute.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await
    }

    fn address(&self) -> &Address {
        &self.server.address
    }
}

/// The directory `dev` keeps its data in by default: `.dev` in the current directory, or, when we
/// are root and the account Postgres runs as can't get there (say below `/root`),
/// `/var/tmp/token-broker-dev`.
#[must_use]
pub fn default_dev_dir() -> PathBuf {
    let here = PathBuf::from(".dev");
    let reached = if here.exists() { ".dev" } else { "." };
    match (std::path::absolute(reached), Account::of_the_server()) {
        (Ok(path), Ok(account)) if !account.reaches(&path) => "/var/tmp/token-broker-dev".into(),
        _ => here,
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs what waits for other programs off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a step of starting Postgres panicked")?
}
