//! Tokens that nobody here made: the certified `oidc-provider` of the npm registry, started by the test.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::OnceCell,
};

use crate::app::{Client, TestApp};

/// Set where a peer that cannot be had fails the test instead of skipping it.
const PEERS: &str = "TOKEN_BROKER_TEST_PEERS";

struct Provider {
    issuer: String,
    secret: String,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    _killed_with_it: Child,
}

/// The packages, installed once, below the target directory.
async fn installed() -> &'static Result<PathBuf, String> {
    static INSTALLED: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    INSTALLED.get_or_init(install).await
}

async fn install() -> Result<PathBuf, String> {
    let (from, dir) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/oidc_provider"),
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc_provider"),
    );
    fs::create_dir_all(&dir).expect("a directory");
    for file in ["package.json", "package-lock.json", "provider.mjs"] {
        fs::copy(from.join(file), dir.join(file)).expect("copied");
    }
    let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&dir).output().await;
    match npm {
        Err(error) => Err(format!("npm: {error}")),
        Ok(done) if !done.status.success() => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        Ok(_) => Ok(dir),
    }
}

impl Provider {
    /// `None`: it cannot be had here, and that was said.
    async fn start() -> Option<Self> {
        let dir = match installed().await {
            Ok(dir) => dir,
            Err(why) => {
                assert!(env::var(PEERS).as_deref() != Ok("required"), "{PEERS}=required, and oidc-provider cannot be had: {why}");
                // Past the test harness, which would keep it to itself.
                drop(writeln!(std::io::stderr(), "SKIPPED: the tests against oidc-provider: it cannot be had here: {why}"));
                return None;
            }
        };
        let secret = hex::encode(rand::random::<[u8; 32]>());
        let mut child = Command::new("node")
            .arg("provider.mjs")
            .current_dir(dir)
            .env("CLIENT_SECRET", &secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is there where npm is");
        let stdin = child.stdin.take().expect("it is piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let issuer = said(&mut stdout).await;
        Some(Self { issuer, secret, stdin, stdout, _killed_with_it: child })
    }

    async fn told(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
        assert_eq!(said(&mut self.stdout).await, "done");
    }

    async fn token(&self, algorithm: &str) -> String {
        let resource = format!("https://broker.example/{algorithm}");
        let form = [("grant_type", "client_credentials"), ("resource", resource.as_str())];
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let asked = client.post(format!("{}/token", self.issuer)).basic_auth("nightly-build", Some(&self.secret)).form(&form);
        let answer: Value = asked.send().await.expect("an answer").json().await.expect("JSON");
        answer["access_token"].as_str().unwrap_or_else(|| panic!("a token: {answer}")).to_owned()
    }
}

/// The next line of our own; the library has things to say too.
async fn said(stdout: &mut Lines<BufReader<ChildStdout>>) -> String {
    loop {
        let line = stdout.next_line().await.expect("a line").expect("it runs");
        if !line.starts_with("oidc-provider ") {
            return line;
        }
    }
}

async fn trusting(provider: &Provider) -> (TestApp, Client) {
    let app = TestApp::start_trusting(&[format!("{} ES256 RS256", provider.issuer)]).await;
    app.register("deploy").await;
    let rule = json!({"name": "nightly", "issuer": provider.issuer, "claims": {"sub": "nightly-build"}, "role": "ci"});
    app.admin.post("/teams/payments/trust-rules", rule).await.expect(201);
    let holder = app.ci.clone();
    (app, holder)
}

#[tokio::test]
async fn jobs_of_a_certified_issuer_are_handed_their_token_while_its_keys_rotate() {
    let Some(mut provider) = Provider::start().await else { return };
    let (_app, holder) = trusting(&provider).await;
    let (es256, rs256) = (provider.token("es256").await, provider.token("rs256").await);
    for token in [&es256, &rs256] {
        let handed = holder.with_key(token.clone()).refresh("deploy", json!({})).await.expect(200);
        assert_eq!(handed.json["team"], "payments");
    }
    let who = holder.with_key(es256.clone()).get("/whoami").await.expect(200).json;
    assert_eq!((&who["name"], &who["recognised_by"]["issuer"]), (&json!("plain:nightly-build"), &json!(provider.issuer)));

    // New keys sign, the old ones are still published: both are good, and no job waits for anything.
    provider.told("overlap").await;
    let fresh = provider.token("es256").await;
    for token in [&fresh, &rs256] {
        holder.with_key(token.clone()).refresh("deploy", json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn what_a_withdrawn_key_signed_is_refused_once_the_issuer_is_asked_again() {
    let Some(mut provider) = Provider::start().await else { return };
    let (_app, holder) = trusting(&provider).await;
    let old = holder.with_key(provider.token("rs256").await);
    old.get("/whoami").await.expect(200);
    provider.told("rotate").await;
    // A key that was never seen makes the broker ask.
    holder.with_key(provider.token("es256").await).get("/whoami").await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    old.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_token_for_another_audience_of_the_same_issuer_is_refused() {
    let Some(provider) = Provider::start().await else { return };
    let app = TestApp::start_changed({
        let trusted = format!("{} ES256 RS256", provider.issuer).parse().expect("an issuer");
        move |settings| {
            settings.identities.issuers = vec![Clone::clone(&trusted)];
            settings.identities.audience = "another-broker".to_owned();
        }
    })
    .await;
    let rule = json!({"name": "nightly", "issuer": provider.issuer, "claims": {"sub": "nightly-build"}, "role": "ci"});
    app.admin.post("/teams/payments/trust-rules", rule).await.expect(201);
    app.ci.with_key(provider.token("es256").await).get("/whoami").await.refused(401, "unauthenticated");
}
