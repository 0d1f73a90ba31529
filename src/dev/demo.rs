//! A demo team with a registered token, made over the API like anyone would.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::simulator::Simulator;
use crate::outbound;

/// The demo's user at the simulated JFrog.
pub const USER: &str = "demo-deployer";

/// What the demo's start prints.
#[derive(Debug)]
pub struct Demo {
    /// A team admin's key.
    pub admin_key: String,
    /// A CI job's key.
    pub ci_key: String,
}

/// Finds or makes team `demo`, its keys (kept in `dir`) and token `deploy`.
///
/// # Errors
/// The service refused a step; the error quotes its answer.
pub async fn set_up(base: &str, platform_key: &str, simulator: &Simulator, dir: &Path) -> anyhow::Result<Demo> {
    let api = Api { base, client: outbound::client(&outbound::Route::default(), Duration::from_secs(30))? };
    api.post(platform_key, "/teams", &json!({"name": "demo", "description": "made by token-broker dev"})).await?;
    let admin_key = api.key(platform_key, "admin", json!({"role": "admin"}), dir).await?;
    let ci_key = api.key(platform_key, "ci", json!({"role": "ci", "tokens": ["deploy"]}), dir).await?;
    if api.get_status(&admin_key, "/tokens/deploy").await? == 404 {
        let identity_token = if simulator.knows(USER) { simulator.identity_token(USER) } else { simulator.add_user(USER, false) };
        let token = json!({"name": "deploy", "identity_token": identity_token, "description": "made by token-broker dev"});
        let (status, answer) = api.post(&admin_key, "/tokens", &token).await?;
        ensure!(status == 201, "the demo token could not be registered: {status} {answer}");
    }
    Ok(Demo { admin_key, ci_key })
}

struct Api<'a> {
    base: &'a str,
    client: reqwest::Client,
}

impl Api<'_> {
    async fn post(&self, key: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(key).json(body);
        let answer = request.send().await.with_context(|| format!("calling {path}"))?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    async fn get_status(&self, key: &str, path: &str) -> anyhow::Result<u16> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(key);
        Ok(request.send().await.with_context(|| format!("calling {path}"))?.status().as_u16())
    }

    /// The key kept from an earlier start while it works, else a new one.
    async fn key(&self, platform_key: &str, name: &str, grant: Value, dir: &Path) -> anyhow::Result<String> {
        let path = dir.join(format!("{name}-key"));
        if let Ok(kept) = fs::read_to_string(&path)
            && self.get_status(kept.trim(), "/whoami").await? == 200
        {
            return Ok(kept.trim().to_owned());
        }
        let url = format!("{}/teams/demo/keys/{name}", self.base);
        // A key that nobody has any more only takes the name.
        self.client.delete(url).bearer_auth(platform_key).send().await?;
        let mut body = grant;
        body["name"] = json!(name);
        let (status, answer) = self.post(platform_key, "/teams/demo/keys", &body).await?;
        let key = answer["key"].as_str().filter(|_| status == 201);
        let key = key.with_context(|| format!("the demo key {name} could not be made: {status} {answer}"))?.to_owned();
        super::keep_private(&path, &key)?;
        Ok(key)
    }
}
