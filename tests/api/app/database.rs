//! One Postgres for all tests of this process, a database for each, copied from one that was migrated once.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use token_broker::{
    dev::postgres::{Cluster, Durability},
    store,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

pub struct TestDatabase {
    url: String,
    /// A server that no other test uses, where the test is hard on it.
    own: Option<Cluster>,
    _dir: Option<TempDir>,
}

impl TestDatabase {
    pub async fn new() -> Self {
        let cluster = cluster().await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        cluster.create_database(&name, Some("template_broker")).await.expect("a database");
        let database = Self { url: cluster.url(&name), own: None, _dir: None };
        // A copy has the original's installation id; this is a new installation.
        database.run("update installation set id = gen_random_uuid(), database_identity = null").await;
        database
    }

    /// A copy, as a restored dump is: another database with everything in it. Nothing may be connected to the original.
    pub async fn copy(&self) -> Self {
        let original = self.text("select current_database()").await;
        let name = format!("copy_{}", Uuid::new_v4().simple());
        cluster().await.create_database(&name, Some(&original)).await.expect("a copy");
        Self { url: cluster().await.url(&name), own: None, _dir: None }
    }

    /// On a server of its own, that may be crashed.
    pub async fn alone() -> Self {
        let cluster = Cluster::temporary().await.expect("a private Postgres");
        cluster.create_database("alone", None).await.expect("a database");
        let url = cluster.url("alone");
        store::migrate(url.parse().expect("a URL")).await.expect("migrates");
        Self { url, own: Some(cluster), _dir: None }
    }

    /// On a server of its own, that counts the statements (`pg_stat_statements`).
    pub async fn counting() -> Self {
        // The server's account passes through it.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir().expect("a directory");
        let place = dir.path().join("postgres");
        let cluster = Cluster::start(&place, Durability::Fast).await.expect("a private Postgres");
        let preloading = Self { url: cluster.url("postgres"), own: None, _dir: None };
        preloading.run("alter system set shared_preload_libraries = 'pg_stat_statements'").await;
        cluster.stop().await.expect("stops");
        let cluster = Cluster::start(&place, Durability::Fast).await.expect("a private Postgres");
        cluster.create_database("counting", None).await.expect("a database");
        let database = Self { url: cluster.url("counting"), own: Some(cluster), _dir: Some(dir) };
        database.run("create extension pg_stat_statements").await;
        store::migrate(database.url.parse().expect("a URL")).await.expect("migrates");
        database
    }

    /// Crashes the server as a killed backend does: every connection is cut, memory is gone, the log is replayed.
    pub async fn crash(&self) {
        assert!(self.own.is_some(), "other tests use this server");
        let victim = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
        let victim: i32 = sqlx::query_scalar(victim).fetch_one(&mut self.connect().await).await.expect("a process id");
        kill(Pid::from_raw(victim), Signal::SIGKILL).expect("the server's account is ours, or we are root");
    }

    /// A database elsewhere, which the service migrates itself.
    pub fn at(url: String) -> Self {
        Self { url, own: None, _dir: None }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection that sees everything: the oracle's.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("connects")
    }

    /// Runs statements of the test's own.
    pub async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connect().await).await.expect("runs");
    }

    /// One number.
    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.connect().await).await.expect("a number")
    }

    /// Asks until this is true.
    pub async fn until(&self, condition: &str) {
        for _ in 0..200 {
            if self.count(&format!("select count(*) where {condition}")).await == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("it never was so: {condition}");
    }

    /// The audit was looked at for what is to be closed, which every start does in the background, and is not for a while.
    pub async fn until_closing_had_its_turn(&self) {
        let put_off = "due_at between now() + interval '30 s' and now() + interval '61 s'";
        self.until(&format!("exists (select from jobs where kind = 'close-audit' and {put_off})")).await;
    }

    /// One text.
    pub async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.connect().await).await.expect("a text")
    }

    /// Makes everything stored `seconds` older.
    pub async fn shift_times(&self, seconds: i64) {
        self.run(&format!(
            "update chains set refreshed_at = refreshed_at - interval '{seconds} s', expires_at = expires_at - interval '{seconds} s',
                               sweep_after = sweep_after - interval '{seconds} s';
             update tokens set rotatable_at = rotatable_at - interval '{seconds} s', heal_after = heal_after - interval '{seconds} s',
                               last_error_at = last_error_at - interval '{seconds} s',
                               rejected_since = rejected_since - interval '{seconds} s';"
        ))
        .await;
    }

    /// Ends all connections to it, and lets no new one in.
    pub async fn take_away(&self) {
        let name = self.text("select current_database()").await;
        let away = format!(
            "alter database {name} with allow_connections false;
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        );
        let mut elsewhere = PgConnection::connect(&cluster().await.url("template_broker")).await.expect("connects");
        sqlx::raw_sql(AssertSqlSafe(away)).execute(&mut elsewhere).await.expect("runs");
    }

    /// Everything in it, as one text: for looking for what must not be there.
    pub async fn dump(&self) -> String {
        let tables = "select string_agg(format('select %L || t::text from %I t', tablename || ': ', tablename), ' union all ')
                      from pg_tables where schemaname = 'public'";
        let all = self.text(tables).await;
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(&mut self.connect().await).await.expect("all rows");
        rows.join("\n")
    }
}

pub async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            let cluster = Cluster::temporary().await.expect("a private Postgres");
            cluster.create_database("template_broker", None).await.expect("a database");
            store::migrate(cluster.url("template_broker").parse().expect("a URL")).await.expect("migrates");
            cluster
        })
        .await
}
