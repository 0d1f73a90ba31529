//! A Postgres of a test's own: it can be shut down in the middle of everything and started again at the same address.

use std::{
    fs::{OpenOptions, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use token_broker::dev::postgres::{Cluster, Durability};

use super::gate::{Gate, socket_of};
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
        TestDatabase::at(self.gate.url(&self.server.cluster().url(DATABASE)))
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

    /// An asynchronous standby.
    pub(super) async fn standby(&mut self) -> Standby {
        // A copy of a server that was shut down well is whole without any further ado.
        self.gate.close();
        self.server.stop().await;
        let dir = directory();
        let copied = Command::new("cp").arg("-a").arg(self.server.dir.join("data")).arg(dir.path()).status();
        assert!(copied.expect("cp runs").success());
        self.start_again().await;

        let socket = self.server.socket();
        let host = socket.parent().expect("a directory").display();
        let follow = format!("primary_conninfo = 'host={host} port=5432 user=postgres password={}'\n", self.server.password());
        let data = dir.path().join("data/pgdata");
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.auto.conf")).expect("settings");
        settings.write_all(follow.as_bytes()).expect("writes");
        std::fs::write(data.join("standby.signal"), "").expect("writes");
        let server = Server::start(dir.path(), self.server.durability).await;
        Standby { server, _dir: dir }
    }

    /// The standby has seen everything until now, and sees nothing more.
    pub(super) async fn cut_off(&self, standby: &mut Standby) {
        let written = self.server.number("select (pg_current_wal_lsn() - '0/0')::bigint").await;
        while standby.server.number("select (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0')::bigint").await < written {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        standby.server.crash().await;
    }

    /// This server is gone for good, with whatever the standby has not seen; the standby takes over at its address.
    pub(super) async fn fail_over_to(&mut self, mut standby: Standby) {
        self.crash().await;
        standby.server.start_again().await;
        assert_eq!(standby.server.number("select pg_promote()::int::bigint").await, 1);
        self.gate.lead_to(standby.server.socket());
        self.server = standby.server;
        self._dir = Some(standby._dir);
    }
}

/// A server that follows another.
pub(super) struct Standby {
    server: Server,
    _dir: TempDir,
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
        socket_of(&self.cluster().url(DATABASE))
    }

    pub(super) fn password(&self) -> String {
        let password = std::fs::read_to_string(self.dir.join("data/password"));
        password.expect("it has one")
    }

    async fn number(&self, query: &str) -> i64 {
        let mut connection = self.connect().await.expect("connects");
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.expect("a number")
    }

    async fn stop(&mut self) {
        self.cluster.take().expect("it runs").stop().await.expect("it ends");
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
