//! Webhooks: a team's own server is told when a token needs attention, or no more. Signed as Standard Webhooks 1.0 says, told at
//! least once, without any secret.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use metrics::counter;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Broker, BrokerError,
    platform::{hands_on, taken},
    settle::Settled,
};
use crate::{
    actor::Actor,
    crypto::{self, Place},
    identity::{Action, Caller, Grant, Role, Team},
    names::{Name, TokenPattern},
    store::{NewWebhook, Notice, WebhookRow},
};

/// What can be told; `webhook.test` besides, when it is asked for.
pub const WEBHOOK_EVENTS: [&str; 6] =
    ["token.uncertain", "token.healed", "token.lost", "token.deadline", "token.locked-down", "team.locked-down"];

/// Webhooks of one team.
const MOST: i64 = 20;

/// Where a webhook is, and what signs what is sent there: sealed as one, because a URL's path is often a secret too.
#[derive(Serialize, Deserialize)]
struct Target {
    url: String,
    /// `whsec_` and the base64 of 32 bytes.
    secret: String,
}

impl Drop for Target {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
        zeroize::Zeroize::zeroize(&mut self.url);
    }
}

/// What is sent.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    timestamp: String,
    data: &'a serde_json::Value,
}

impl Broker {
    /// Makes a webhook. Its signing secret is in the answer this once.
    ///
    /// # Errors
    /// The caller may not, the URL or an event is refused, the name is taken, or Postgres.
    pub async fn create_webhook(
        &self,
        caller: &Caller,
        team: &Name,
        (name, url, events): (Name, String, Vec<String>),
        actor: &Actor,
    ) -> Result<(String, WebhookRow), BrokerError> {
        let team = self.webhook_team(caller, team).await?;
        let origin = self.courier.origin(&url).map_err(|message| BrokerError::Invalid { field: "url", message })?;
        let events: BTreeSet<String> = events.into_iter().collect();
        if events.is_empty() || !events.iter().all(|event| WEBHOOK_EVENTS.contains(&event.as_str())) {
            let message = format!("must be some of {}", WEBHOOK_EVENTS.join(", "));
            return Err(BrokerError::Invalid { field: "events", message });
        }
        let id = Uuid::now_v7();
        let secret = format!("whsec_{}", STANDARD.encode(crypto::random_bytes::<32>()));
        let target = Target { url, secret: secret.clone() };
        let plain = Zeroizing::new(serde_json::to_string(&target).expect("two strings are JSON"));
        let target = self.keys.seal(&self.store, team.id, target_place(id), &plain).await?;
        let new = NewWebhook { id, name: name.to_string(), origin, target, events: events.into_iter().collect() };
        let made = self.store.create_webhook(team.id, &new, MOST, actor).await.map_err(|error| taken(error, &name))?;
        let message = || format!("is one too many: a team has at most {MOST} webhooks");
        Ok((secret, made.ok_or_else(|| BrokerError::Invalid { field: "name", message: message() })?))
    }

    /// One webhook.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn webhook(&self, caller: &Caller, team: &Name, name: &Name) -> Result<WebhookRow, BrokerError> {
        let team = self.webhook_team(caller, team).await?;
        self.store.webhook(team.id, name.as_str()).await?.ok_or_else(|| missing(name))
    }

    /// A page of a team's webhooks.
    ///
    /// # Errors
    /// The caller may not, there is no such team, or Postgres.
    pub async fn list_webhooks(
        &self,
        caller: &Caller,
        team: &Name,
        after: &str,
        limit: i64,
    ) -> Result<Vec<WebhookRow>, BrokerError> {
        let team = self.webhook_team(caller, team).await?;
        Ok(self.store.list_webhooks(team.id, after, limit).await?)
    }

    /// Deletes a webhook, with what it was still to be told.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn delete_webhook(&self, caller: &Caller, team: &Name, name: &Name, actor: &Actor) -> Result<(), BrokerError> {
        let team = self.webhook_team(caller, team).await?;
        let deleted = self.store.delete_webhook(team.id, name.as_str(), actor).await?;
        deleted.then_some(()).ok_or_else(|| missing(name))
    }

    /// Sends a webhook a notice that says nothing, in the background.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn test_webhook(
        &self,
        caller: &Caller,
        team: &Name,
        name: &Name,
        actor: &Actor,
    ) -> Result<WebhookRow, BrokerError> {
        let team = self.webhook_team(caller, team).await?;
        self.store.test_webhook(team.id, name.as_str(), actor).await?;
        self.store.webhook(team.id, name.as_str()).await?.ok_or_else(|| missing(name))
    }

    /// Whose webhooks the caller manages. They are told of every token: an admin of some tokens may not.
    async fn webhook_team(&self, caller: &Caller, team: &Name) -> Result<Team, BrokerError> {
        let team = self.team(caller, team, Action::ManageKeys).await?;
        hands_on(caller, &Grant { role: Role::Admin, tokens: vec![TokenPattern::all()] })?;
        Ok(Team { id: team.id, name: team.name })
    }

    /// Tells what a job is about.
    pub(super) async fn tell(&self, notice: Uuid) -> Result<Settled, BrokerError> {
        let Some(notice) = self.store.webhook_notice(notice).await? else { return Ok(Settled::Done) };
        let sent = self.send_notice(&notice).await?;
        counter!("token_broker_webhook_notices_total", "outcome" => if sent.is_ok() { "taken" } else { "not_taken" })
            .increment(1);
        let Err(why) = sent else {
            self.store.notice_taken(&notice).await?;
            return Ok(Settled::Done);
        };
        tracing::info!(team = notice.team_name, event = notice.event, why, "a webhook did not take a notice");
        self.store.notice_not_taken(&notice, &why, &Actor::system()).await?;
        Ok(if notice.overdue { Settled::Done } else { Settled::Failed })
    }

    async fn send_notice(&self, notice: &Notice) -> Result<Result<(), String>, BrokerError> {
        let plain = self.keys.open_sealed(&self.store, notice.team_id, target_place(notice.webhook_id), &notice.target).await?;
        let Ok(target) = serde_json::from_str::<Target>(&plain) else { return Ok(Err("its target cannot be read".to_owned())) };
        let mut data = notice.data.clone();
        data["team"] = notice.team_name.clone().into();
        let timestamp = notice.at.format(&Rfc3339).expect("a time of Postgres has four digits of year");
        let body = serde_json::to_string(&Message { event: &notice.event, timestamp, data: &data }).expect("it is JSON");
        let headers = signed(&target.secret, notice.id, notice.now.unix_timestamp(), &body);
        Ok(self.courier.post(&target.url, &headers, body).await)
    }
}

/// The headers of Standard Webhooks. When it is sent is in the signature, so that nobody can send an old message once more.
fn signed(secret: &str, id: Uuid, sent_at: i64, body: &str) -> [(&'static str, String); 3] {
    let key = Zeroizing::new(STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap_or_default());
    let signature = crypto::hmac_sha256(&key, format!("{id}.{sent_at}.{body}").as_bytes());
    [
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", sent_at.to_string()),
        ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
    ]
}

/// Where a webhook's target is sealed for.
pub(super) fn target_place(webhook: Uuid) -> Place<'static> {
    Place { table: "webhooks", row: webhook, column: "target", generation: 0 }
}

fn missing(name: &Name) -> BrokerError {
    BrokerError::NotFound(format!("webhook {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_standard_webhooks() {
        // Made with openssl: printf '%s' "$ID.1614265330.$BODY" | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | base64
        let secret = format!("whsec_{}", STANDARD.encode(b"0123456789abcdef0123456789abcdef"));
        let id = Uuid::nil();
        let [_, _, (_, signature)] = signed(&secret, id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,exG/Sv3xq7iy/4T00mETZQOXc/y1SWmnQyqu3Y5fkmk=");
    }
}
