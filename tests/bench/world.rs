//! What every row stands on: a private Postgres as durable as in earnest, the simulated JFrog, databases of the service.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use token_broker::{
    crypto,
    dev::{
        postgres::{Cluster, Durability},
        simulator::Simulator,
    },
    store,
};

/// Where everything is kept while it runs; removed afterwards.
pub struct World {
    pub cluster: Cluster,
    pub simulator: Simulator,
    pub master_keys: String,
    /// Every thing is measured briefly, to see that it works.
    pub short: bool,
    dir: PathBuf,
    databases: AtomicUsize,
}

impl World {
    /// Starts Postgres and the simulator.
    pub async fn start(short: bool) -> anyhow::Result<Self> {
        // Not below the target directory: the account that Postgres runs as may not reach it.
        let dir = PathBuf::from("/var/tmp").join(format!("token-broker-bench-{}", std::process::id()));
        let cluster = Cluster::start(&dir.join("postgres"), Durability::Durable).await?;
        let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), None).await?;
        // What is measured is the service: JFrog's RSA would take most of the processors.
        simulator.knobs(|knobs| knobs.sign_tokens = false);
        let master_keys = format!("bench:{}", STANDARD.encode(crypto::random_bytes::<32>()));
        let world = Self { cluster, simulator, master_keys, short, dir, databases: AtomicUsize::new(0) };
        world.check_durability().await?;
        world.age().await?;
        Ok(world)
    }

    /// A database with the service's tables, and its URL.
    pub async fn database(&self) -> anyhow::Result<String> {
        let url = self.empty_database().await?;
        store::migrate(url.parse()?).await?;
        Ok(url)
    }

    /// A database with nothing in it.
    pub async fn empty_database(&self) -> anyhow::Result<String> {
        let name = format!("bench_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.cluster.create_database(&name, None).await?;
        Ok(self.cluster.url(&name))
    }

    /// A fresh directory of this run's.
    pub fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let place = self.dir.join(format!("{name}-{}", self.databases.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        Ok(place)
    }

    /// How long one measurement takes.
    pub fn length(&self) -> Duration {
        if self.short { Duration::from_millis(400) } else { Duration::from_millis(1_500) }
    }

    /// How often each is taken.
    pub fn rounds(&self) -> usize {
        if self.short { 1 } else { 5 }
    }

    /// How long JFrog thinks from now on.
    pub fn jfrog_takes(&self, latency: Duration) {
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.simulator.knobs(|knobs| knobs.latency_ms = latency_ms);
    }

    /// Ends what was started.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.simulator.stop().await;
        let dir = self.dir.clone();
        self.cluster.stop().await?;
        Ok(std::fs::remove_dir_all(dir)?)
    }

    /// A server that has been up for a while writes its log into files that are there. A new one makes each of them first, in the middle
    /// of somebody's commit.
    async fn age(&self) -> anyhow::Result<()> {
        let files = if self.short { 10 } else { 50 };
        let url = self.cluster.url("postgres");
        run(&url, "alter system set min_wal_size = '1GB'").await?;
        let log = format!(
            "select pg_reload_conf(); select pg_logical_emit_message(false, 'bench', repeat('x', 1 << 20)) from generate_series(1, 16 * {files});"
        );
        run(&url, log).await?;
        run(&url, "checkpoint").await
    }

    /// A commit that is not on disk costs nothing and says nothing.
    async fn check_durability(&self) -> anyhow::Result<()> {
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value = text(&self.cluster.url("postgres"), &format!("show {setting}")).await?;
            anyhow::ensure!(value == "on", "Postgres runs with {setting} = {value}");
        }
        Ok(())
    }
}

/// Runs statements as the owner of everything.
pub async fn run(url: &str, sql: impl Into<String>) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// One text.
pub async fn text(url: &str, sql: &str) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let text = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(text)
}

/// One number.
pub async fn count(url: &str, sql: &str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(number)
}

/// Memory that a process has in use, in MiB.
pub fn resident(pid: u32) -> anyhow::Result<f64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
