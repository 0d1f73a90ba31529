//! A Postgres of a test's own: it can be shut down in the middle of everything and started again at the same address.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use token_broker::dev::postgres::{Cluster, Durability};

use super::gate::Gate;
use crate::app::TestDatabase;

/// The database in it.
const DATABASE: &str = "broker";

pub(super) struct Own {
    /// Dropped before its directory is removed.
    server: Server,
    pub(super) gate: Gate,
    _dir: Option<TempDir>,
}

impl Own {
    /// With its data on the system's disk.
    pub(super) async fn start(durability: Durability) -> Self {
        let dir = directory();
        let mut own = Self::start_in(dir.path(), durability).await;
        own._dir = Some(dir);
        own
    }

    /// With its data in this directory, which the caller keeps.
    pub(super) async fn start_in(dir: &Path, durability: Durability) -> Self {
        let mut own = Self { server: Server::start(dir, durability).await, gate: Gate::new(), _dir: None };
        own.server.cluster().create_database(DATABASE, None).await.expect("a database");
        own.gate.lead_to(own.server.socket());
        own
    }

    /// Its database, through the gate.
    pub(super) fn database(&self) -> TestDatabase {
        let password = self.server.password();
        let host = self.gate.dir().display();
        TestDatabase::at(format!("postgres://postgres:{password}@localhost/{DATABASE}?host={host}&port=5432&sslmode=disable"))
    }

    /// Runs a statement on the server, past the gate and in another database.
    pub(super) async fn beside(&self, statement: &str) {
        let mut connection = self.server.connect().await.expect("connects");
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.expect("runs");
    }

    /// Fills the server's log until it has no room for it.
    pub(super) async fn write_until_it_fails(&self) {
        let mut connection = self.server.connect().await.expect("connects");
        let write = "select pg_logical_emit_message(false, 'x', repeat('x', 1000000))";
        while sqlx::raw_sql(write).execute(&mut connection).await.is_ok() {}
    }

    /// Immediate shutdown: every process of it ends at once, nothing is finished. Away until it is started again.
    pub(super) async fn crash(&mut self) {
        self.server.crash().await;
        self.gate.close();
    }

    pub(super) async fn start_again(&mut self) {
        self.server.start_again().await;
        self.gate.lead_to(self.server.socket());
    }
}

/// One server and its directory.
pub(super) struct Server {
    dir: PathBuf,
    durability: Durability,
    cluster: Option<Cluster>,
}

impl Server {
    pub(super) async fn start(dir: &Path, durability: Durability) -> Self {
        let mut server = Self { dir: dir.to_owned(), durability, cluster: None };
        server.start_again().await;
        server
    }

    pub(super) async fn start_again(&mut self) {
        let cluster = Cluster::start(&self.dir, self.durability).await;
        self.cluster = Some(cluster.expect("Postgres starts"));
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("it runs")
    }

    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.cluster().url("postgres")).await
    }

    pub(super) fn socket(&self) -> PathBuf {
        let url: PgConnectOptions = self.cluster().url(DATABASE).parse().expect("a URL");
        url.get_socket().expect("it listens on one").join(".s.PGSQL.5432")
    }

    pub(super) fn password(&self) -> String {
        let password = std::fs::read_to_string(self.dir.join("data/password"));
        password.expect("it has one")
    }

    /// Immediate shutdown.
    pub(super) async fn crash(&mut self) {
        let cluster = self.cluster.take().expect("it runs");
        quit(&cluster);
        cluster.stop().await.expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(cluster) = self.cluster.take() else { return };
        let postmaster = quit(&cluster);
        drop(cluster);
        for _ in 0..500 {
            if kill(postmaster, None).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn quit(cluster: &Cluster) -> Pid {
    let postmaster = Pid::from_raw(cluster.pid().cast_signed());
    kill(postmaster, Signal::SIGQUIT).ok();
    postmaster
}

/// A directory that the account Postgres runs as can enter.
pub(super) fn directory() -> TempDir {
    let base = std::env::var_os("TOKEN_BROKER_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut builder = tempfile::Builder::new();
    builder.prefix("token-broker-own-").permissions(Permissions::from_mode(0o711));
    builder.tempdir_in(base).expect("a directory")
}
