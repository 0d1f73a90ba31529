//! `token-broker dev`: the whole thing on one machine with nothing configured.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{create_admin_key, serve};
use crate::{
    actor::Actor,
    api::{Metrics, Rates},
    broker::Timing,
    config::{Database, Identities, KEYS_KEPT, Settings},
    crypto::{self, MasterKeys},
    dev::{
        demo, keep_private,
        postgres::{Cluster, Durability, default_dev_dir},
        simulator::Simulator,
    },
    jfrog::Instance,
    outbound,
    store::{PgConnectOptions, Store},
    telemetry,
};

#[derive(Args, Debug)]
pub(super) struct DevOptions {
    /// Where everything is kept; a second start finds it again. Default: .dev here, or /var/tmp/token-broker-dev where the
    /// account that Postgres runs as cannot reach this place.
    #[arg(long, env = "TOKEN_BROKER_DEV_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The API's address; a free port where this one is taken.
    #[arg(long, env = "TOKEN_BROKER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The operators' address; a free port where this one is taken.
    #[arg(long, env = "TOKEN_BROKER_OPS_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    ops_listen: SocketAddr,
    /// The simulated JFrog's address; a free port where this one is taken.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    simulator_listen: SocketAddr,
}

pub(super) async fn run(options: &DevOptions) -> anyhow::Result<()> {
    telemetry::init(false);
    let dir = options.dir.clone().unwrap_or_else(default_dev_dir);
    // Asked for from the start: Ctrl-C during a long first start must clean up as well.
    let stop = serve::asked_to_stop();
    tokio::pin!(stop);
    let parts = tokio::select! {
        parts = start(&dir, options) => parts?,
        () = &mut stop => return Ok(()),
    };
    parts.print(&dir);
    stop.await;
    eprintln!("stopping …");
    parts.running.stop().await;
    parts.simulator.stop().await;
    parts.postgres.stop().await
}

struct Parts {
    postgres: Cluster,
    simulator: Simulator,
    running: serve::Running,
    demo: demo::Demo,
    platform_key: String,
}

async fn start(dir: &Path, options: &DevOptions) -> anyhow::Result<Parts> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // The default may lie in /var/tmp, where anybody could have made it first and would read along.
    let ours = options.dir.is_some() || fs::symlink_metadata(dir)?.uid() == fs::metadata("/proc/self")?.uid();
    anyhow::ensure!(ours, "{} belongs to another account: name another directory with --dir", dir.display());
    eprintln!("starting a private Postgres in {} …", dir.display());
    let postgres = Cluster::start(&dir.join("postgres"), Durability::Durable).await?;
    if !postgres.has_database("token_broker").await? {
        postgres.create_database("token_broker", None).await?;
    }
    eprintln!("starting the simulated JFrog …");
    let simulator = Simulator::start(free(options.simulator_listen), Some(dir.join("simulator.json"))).await?;
    eprintln!("starting the service …");
    let url = postgres.url("token_broker");
    let running = serve::start(settings(dir, options, &url, &simulator)?, Some(spawn_blocking(Metrics::install))).await?;
    let platform_key = platform_key(dir, &url).await?;
    let base = format!("http://{}", running.listen);
    let demo = demo::set_up(&base, &platform_key, &simulator, dir).await?;
    Ok(Parts { postgres, simulator, running, demo, platform_key })
}

fn settings(dir: &Path, options: &DevOptions, database_url: &str, simulator: &Simulator) -> anyhow::Result<Settings> {
    let connect: PgConnectOptions = database_url.parse()?;
    Ok(Settings {
        database: Database {
            migrate: connect.clone(),
            connect,
            connections: 10,
            master_keys: master_keys(dir)?,
            keys_kept: KEYS_KEPT,
        },
        listen: free(options.listen),
        ops_listen: free(options.ops_listen),
        instances: vec![Instance { name: "main".to_owned(), url: simulator.url() }],
        route: outbound::Route::default(),
        journal_dir: dir.join("journal"),
        // Shorter than in earnest: who tries a fault does not want to wait for minutes.
        timing: Timing { jfrog_timeout: Duration::from_secs(10), lease: Duration::from_secs(15), poll: Duration::from_secs(1) },
        tls: None,
        trusted_proxies: Vec::new(),
        identities: Identities::default(),
        webhook_hosts: Vec::new(),
        webhook_route: outbound::Route::default(),
        checkpoints: None,
        rates: Rates::default(),
        adopt: false,
    })
}

fn master_keys(dir: &Path) -> anyhow::Result<MasterKeys> {
    let path = dir.join("master-keys");
    if !path.exists() {
        keep_private(&path, &format!("dev:{}", STANDARD.encode(crypto::random_bytes::<32>())))?;
    }
    let keys = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    MasterKeys::parse(&keys).with_context(|| format!("{} is not usable", path.display()))
}

/// The key kept from an earlier start, or a new one straight from the database, as `create-admin-key` makes it.
async fn platform_key(dir: &Path, database_url: &str) -> anyhow::Result<String> {
    let path = dir.join("platform-key");
    if let Ok(kept) = fs::read_to_string(&path) {
        return Ok(kept.trim().to_owned());
    }
    let store = Store::connect(database_url.parse()?, 2).await?;
    let name = "dev".parse().context("a fixed name")?;
    // Left over from a first start that was interrupted before the key was kept.
    store.delete_api_key(Uuid::nil(), "dev", &Actor::system()).await?;
    let text = create_admin_key::make(&store, &name, None).await?;
    store.close().await;
    keep_private(&path, &text)?;
    Ok(text)
}

/// The address, or the same with any free port where it is taken.
fn free(address: SocketAddr) -> SocketAddr {
    if TcpListener::bind(address).is_ok() { address } else { SocketAddr::new(address.ip(), 0) }
}

impl Parts {
    fn print(&self, dir: &Path) {
        let (api, ops) = (self.running.listen, self.running.ops_listen);
        println!();
        println!("  API              http://{api}");
        println!("  documentation    http://{api}/docs");
        println!("  metrics          http://{ops}/metrics");
        println!(
            "  simulated JFrog  {}   (controls: {}/_sim/knobs, /_sim/faults, …)",
            self.simulator.url(),
            self.simulator.url()
        );
        println!("  data             {}", dir.display());
        println!();
        println!("Team demo has a token, deploy. Keys for the calls, and for Authorize in the documentation:");
        println!();
        println!("  CI key           {}   (team demo; may refresh deploy)", self.demo.ci_key);
        println!("  team admin key   {}   (team demo; anything in it)", self.demo.admin_key);
        println!("  platform key     {}   (every team: add ?team=demo)", self.platform_key);
        println!();
        println!("Refresh the token as a CI job does:");
        println!();
        println!("  curl -X POST http://{api}/tokens/deploy/refresh -H 'Authorization: Bearer {}'", self.demo.ci_key);
        println!();
        println!(
            "Registering another token (POST /tokens) needs an identity token of a JFrog user. The simulated JFrog gives one:"
        );
        println!();
        println!("  curl -X POST {}/_sim/users/{}/identity-token", self.simulator.url(), demo::USER);
        println!();
        println!("Ctrl-C stops everything; the next start finds its data again.");
    }
}
