//! The README's lines for jobs that hold no secret, taken from the README and run by the shells that would run them.

use std::{collections::BTreeMap, env, fs, io::Write, process::Output, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

use super::merge;
use crate::app::{TestApp, issuer::Issuer};

/// Set where programs that cannot be had fail the test instead of skipping it.
const PEERS: &str = "TOKEN_BROKER_TEST_PEERS";

/// Where the service and GitHub's issuer are in the README.
const SERVICE: &str = "https://token-broker.internal";
const GITHUB: &str = "https://token.actions.githubusercontent.com";

fn chapter() -> &'static str {
    let readme = include_str!("../../../README.md");
    readme.split("\n## ").find(|chapter| chapter.starts_with("With no stored secret")).expect("the chapter")
}

/// The shell lines of the YAML block that follows `**Title**`: what is indented below `key`, or stands in the list below it.
fn lines(title: &str, key: &str) -> String {
    let section = chapter().split("\n**").find(|section| section.starts_with(title)).expect("the section");
    let block = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let mut after = block.lines().skip_while(|line| line.trim() != key);
    let indented = |line: &str| line.len() - line.trim_start().len();
    let outside = indented(after.next().unwrap_or_else(|| panic!("{title} has no {key}")));
    let inside = after.take_while(|line| indented(line) > outside);
    inside.map(|line| line.trim().trim_start_matches("- ")).collect::<Vec<_>>().join("\n")
}

/// The command that writes GitHub's rule.
fn rule_command() -> &'static str {
    let begin = chapter().find("    curl -X POST").expect("the command");
    chapter()[begin..].split("\n\n").next().expect("its end")
}

/// The claims that the section's first line shows.
fn claims_shown(title: &str) -> Value {
    let section = chapter().split("\n**").find(|section| section.starts_with(title)).expect("the section");
    let json = section.split("claims: `").nth(1).and_then(|rest| rest.split('`').next()).expect("claims");
    serde_json::from_str(json).expect("JSON")
}

/// Whether the programs that the lines call are here; where not, that is said.
async fn programs() -> bool {
    for program in ["curl", "jq", "bash"] {
        if let Err(why) = Command::new(program).arg("--version").output().await {
            assert!(env::var(PEERS).as_deref() != Ok("required"), "{PEERS}=required, and {program} cannot be run: {why}");
            // Past the test harness, which would keep it to itself.
            drop(writeln!(std::io::stderr(), "SKIPPED: the README's lines: {program} cannot be run here: {why}"));
            return false;
        }
    }
    true
}

/// A broker that trusts an issuer of each kind.
struct Stage {
    app: TestApp,
    github: Arc<Issuer>,
    gitlab: Issuer,
    kubernetes: Issuer,
    dir: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let (github, gitlab, kubernetes) = (Issuer::start().await, Issuer::start().await, Issuer::start().await);
        let trusted = [("github", &github), ("gitlab", &gitlab), ("kubernetes", &kubernetes)];
        let app = TestApp::start_trusting(&trusted.map(|(kind, issuer)| format!("{kind}={}", issuer.url()))).await;
        app.register("deploy").await;
        Self { app, github: Arc::new(github), gitlab, kubernetes, dir: tempfile::tempdir().expect("a directory") }
    }

    async fn write_rule(&self, title: &str, issuer: &Issuer) {
        let rule = json!({"name": "shown", "issuer": issuer.url(), "role": "ci", "tokens": ["deploy"],
            "claims": claims_shown(title)});
        self.app.admin.post("/teams/payments/trust-rules", rule).await.expect(201);
    }

    /// Runs lines of the README with the service's address instead of the one they show, and afterwards says what they kept.
    async fn run(&self, shell: &[&str], lines: &str, variables: &[(&str, &str)]) -> Output {
        assert!(lines.contains(SERVICE), "{lines}");
        let lines = lines.replace(SERVICE, self.app.admin.base()).replace(GITHUB, self.github.url());
        let said = format!("{lines}\nended=$?\nprintf %s \"${{JFROG_ACCESS_TOKEN-}}\"\nexit $ended\n");
        Command::new(shell[0])
            .args(&shell[1..])
            .arg(said)
            .env_clear()
            .env("PATH", env::var_os("PATH").expect("a path"))
            .envs(variables.iter().copied())
            .output()
            .await
            .expect("the shell runs")
    }

    /// Fails the test unless the lines ended well with a token that JFrog knows.
    fn handed_out(&self, output: &Output, access_token: &str) {
        assert!(output.status.success(), "{output:?}");
        assert!(!access_token.is_empty() && self.app.simulator.is_alive(access_token), "{output:?}");
    }
}

/// Fails the test unless the lines failed and kept nothing.
fn refused(output: &Output) {
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("401"), "the job's log says why: {output:?}");
}

/// GitHub's address where a job asks for its identity.
struct IdentityEndpoint {
    url: String,
    server: JoinHandle<()>,
}

const REQUEST_TOKEN: &str = "what GitHub gave this job to ask with";

impl IdentityEndpoint {
    async fn start(issuer: Arc<Issuer>, claims: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/idtoken?api-version=2.0", listener.local_addr().expect("bound"));
        let routes = Router::new().route("/idtoken", get(identity)).with_state((issuer, claims));
        Self { url, server: tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") }) }
    }
}

impl Drop for IdentityEndpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn identity(
    State((issuer, mut claims)): State<(Arc<Issuer>, Value)>,
    Query(asked): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if headers.get("authorization").is_none_or(|given| given != &format!("Bearer {REQUEST_TOKEN}")) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    assert_eq!(asked.get("api-version").map(String::as_str), Some("2.0"), "the URL's own query is kept");
    claims["aud"] = json!(asked.get("audience").ok_or(StatusCode::BAD_REQUEST)?);
    Ok(Json(json!({"count": 1, "value": issuer.sign(&claims)})))
}

#[tokio::test]
async fn the_github_job_is_handed_its_token_by_the_rule_that_is_shown_and_another_branch_is_not() {
    if !programs().await {
        return;
    }
    let stage = Stage::set().await;
    let wrote = stage.run(&["bash", "-c"], rule_command(), &[("ADMIN_KEY", stage.app.admin.key())]).await;
    assert!(String::from_utf8_lossy(&wrote.stdout).contains("\"name\":\"deploy-main\""), "{wrote:?}");
    let job = |branch: &str| {
        let mut claims = stage.github.claims();
        let more = json!({"sub": format!("repo:acme/web:ref:refs/heads/{branch}"), "repository": "acme/web", "repository_id": "1001",
            "repository_owner": "acme", "repository_owner_id": "11", "ref": format!("refs/heads/{branch}"), "event_name": "push"});
        merge(&mut claims, more);
        IdentityEndpoint::start(Arc::clone(&stage.github), claims)
    };
    let kept = stage.dir.path().join("github-env");
    let run = async |endpoint: &IdentityEndpoint| {
        fs::write(&kept, "").expect("written");
        let variables = [
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", endpoint.url.as_str()),
            ("GITHUB_ENV", kept.to_str().expect("a path")),
        ];
        // As a runner does.
        stage.run(&["bash", "-e", "-c"], &lines("GitHub Actions", "run: |"), &variables).await
    };
    let handed = run(&job("main").await).await;
    let variable = fs::read_to_string(&kept).expect("written");
    let access_token = variable.trim().strip_prefix("JFROG_ACCESS_TOKEN=").unwrap_or_else(|| panic!("{handed:?} {variable}"));
    stage.handed_out(&handed, access_token);
    assert_eq!(String::from_utf8_lossy(&handed.stdout).trim(), format!("::add-mask::{access_token}"), "the log does not show it");
    refused(&run(&job("feature").await).await);
    assert_eq!(fs::read_to_string(&kept).expect("written"), "", "nothing is kept for later steps");
}

#[tokio::test]
async fn the_gitlab_job_is_handed_its_token_and_that_of_an_unprotected_branch_is_not() {
    if !programs().await {
        return;
    }
    let stage = Stage::set().await;
    stage.write_rule("GitLab CI", &stage.gitlab).await;
    let run = async |changes: Value| {
        let mut claims = stage.gitlab.claims();
        let project = json!({"sub": "project_path:acme/web:ref_type:branch:ref:main", "project_path": "acme/web", "project_id": "20",
            "namespace_path": "acme", "namespace_id": "72", "job_project_path": "acme/web", "job_project_id": "20",
            "job_namespace_path": "acme", "job_namespace_id": "72", "pipeline_source": "push", "ref": "main", "ref_type": "branch",
            "ref_path": "refs/heads/main", "ref_protected": "true"});
        merge(&mut claims, project);
        merge(&mut claims, changes);
        let jwt = stage.gitlab.sign(&claims);
        stage.run(&["bash", "-c"], &lines("GitLab CI", "script:"), &[("BROKER_IDENTITY", &jwt)]).await
    };
    let handed = run(json!({})).await;
    stage.handed_out(&handed, &String::from_utf8_lossy(&handed.stdout));
    refused(&run(json!({"ref_protected": "false"})).await);
    refused(&run(json!({"aud": "https://gitlab.corp"})).await);
}

#[tokio::test]
async fn the_pod_is_handed_its_token_and_that_of_another_service_account_is_not() {
    if !programs().await {
        return;
    }
    let stage = Stage::set().await;
    stage.write_rule("Kubernetes", &stage.kubernetes).await;
    let mounted = "/var/run/secrets/broker/identity";
    let file = stage.dir.path().join("identity");
    let shown = lines("Kubernetes", "- |");
    assert!(shown.contains(mounted), "{shown}");
    let run = async |account: &str| {
        let mut claims = stage.kubernetes.claims();
        let pod = json!({"sub": format!("system:serviceaccount:payments:{account}"),
            "kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": account, "uid": "e6a8680e"}}});
        merge(&mut claims, pod);
        fs::write(&file, stage.kubernetes.sign(&claims)).expect("written");
        stage.run(&["sh", "-c"], &shown.replace(mounted, file.to_str().expect("a path")), &[]).await
    };
    let handed = run("deployer").await;
    stage.handed_out(&handed, &String::from_utf8_lossy(&handed.stdout));
    refused(&run("default").await);
}
