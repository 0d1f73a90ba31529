//! The service as it is shipped: the release build, its own process, its defaults.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use token_broker::{cli::create_admin_key, store::Store};

use crate::{connection, process::Process, world::World};

/// Nobody is limited: a benchmark is a flood from one address.
const UNLIMITED: &str = "4000000000";

/// A replica.
pub struct Service {
    pub process: Process,
    pub address: SocketAddr,
    pub url: String,
}

impl Service {
    /// A first replica on this database.
    pub async fn start(world: &World, url: &str) -> anyhow::Result<Self> {
        Self::start_with(world, url, world.place("journal")?, &[]).await
    }

    /// The same on this journal and with these variables more.
    pub async fn start_with(world: &World, url: &str, journal: PathBuf, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = command(world, url, &journal);
        command.envs(more.iter().copied());
        let (process, address) = Process::start(&mut command, |line| {
            line.split_once("ready listen=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        })
        .await
        .context("the service")?;
        Ok(Self { process, address, url: url.to_owned() })
    }

    /// A platform admin's way in.
    pub async fn platform(&self) -> anyhow::Result<Api> {
        let store = Store::connect(self.url.parse()?, 2).await?;
        let key = create_admin_key::make(&store, &"bench".parse()?, None).await?;
        store.close().await;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build()?;
        Ok(Api { client, address: self.address, key })
    }
}

/// What starts it.
pub fn command(world: &World, url: &str, journal: &std::path::Path) -> Command {
    // Another build, to be compared with this one.
    let other = std::env::var_os("TOKEN_BROKER_BENCH_BINARY");
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_token-broker").into()));
    command
        .arg("serve")
        .env_clear()
        .env("DATABASE_URL", url)
        .env("TOKEN_BROKER_MASTER_KEYS", &world.master_keys)
        .env("TOKEN_BROKER_JFROG_URL", world.simulator.url())
        .env("TOKEN_BROKER_LISTEN", "127.0.0.1:0")
        .env("TOKEN_BROKER_OPS_LISTEN", "127.0.0.1:0")
        .env("TOKEN_BROKER_JOURNAL_DIR", journal)
        .env("TOKEN_BROKER_RATE_PER_CREDENTIAL", UNLIMITED)
        .env("TOKEN_BROKER_RATE_PER_ADDRESS", UNLIMITED);
    command
}

/// A caller of the API, for what is not measured.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    address: SocketAddr,
    pub key: String,
}

impl Api {
    /// The same with another credential.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same at another replica.
    pub fn of(&self, service: &Service) -> Self {
        Self { address: service.address, ..self.clone() }
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.client.post(format!("http://{}{path}", self.address)).bearer_auth(&self.key).json(&body);
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path} answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// A new team, its admin's and its jobs' way in.
    pub async fn team(&self, name: &str) -> anyhow::Result<(Self, Self)> {
        self.post("/teams", json!({"name": name})).await?;
        let key = async |role: &str| {
            let made = self.post(&format!("/teams/{name}/keys"), json!({"name": role, "role": role})).await?;
            anyhow::Ok(made["key"].as_str().context("a key")?.to_owned())
        };
        Ok((self.with_key(&key("admin").await?), self.with_key(&key("ci").await?)))
    }

    /// Registers tokens `t0`, `t1`, … for users of their own, some at a time.
    pub async fn register(&self, world: &World, count: usize) -> anyhow::Result<()> {
        use futures_util::{StreamExt, TryStreamExt};
        let one = async |number: usize| {
            let identity_token = world.simulator.add_user(&format!("user-{number}-of-{}", &self.key[..12]), false);
            let body = json!({"name": format!("t{number}"), "identity_token": identity_token});
            self.post("/tokens", body).await.map(drop)
        };
        futures_util::stream::iter(0..count).map(one).buffer_unordered(16).try_collect().await
    }

    /// `POST /tokens/t<number>/refresh` as bytes.
    pub fn refresh(&self, number: usize, body: &str) -> Vec<u8> {
        connection::request("POST", &format!("/tokens/t{number}/refresh"), &self.key, "Content-Type: application/json\r\n", body)
    }
}
