//! API keys and sessions: what their rows say.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Authentication, Unauthenticated,
    authenticate::{LONGEST_REMEMBERED, Lasting},
    caller::{Caller, Held, Membership, Team},
    grant::{Grant, Grants, Role},
};
use crate::{crypto, store::PresentedKeyRow};

impl Authentication {
    /// The holder of an API key.
    pub(super) async fn by_key(&self, id: &str, sha256: [u8; 32]) -> Result<Lasting, Unauthenticated> {
        let asked = id.to_owned();
        let row = self.store.promptly(|store| async move { store.presented_key(&asked).await }).await?;
        matches(row.as_ref().map(|row| row.sha256.as_slice()), &sha256, id)?;
        let row = row.filter(|row| !row.expired).ok_or_else(|| Unauthenticated::Expired(format!("API key {id}")))?;
        if !row.used_lately {
            let (team, key) = (row.team_id.unwrap_or(Uuid::nil()), row.id);
            self.store.promptly(move |store| async move { store.touch_api_key(team, key).await }).await?;
        }
        Ok((lasts(row.expires_at, row.now), holder_of_key(row, id, sha256)))
    }

    /// The holder of a session: whoever began it, with what the rules it came from give.
    pub(super) async fn by_session(&self, id: &str, sha256: [u8; 32]) -> Result<Lasting, Unauthenticated> {
        let asked = id.to_owned();
        let row = self.store.promptly(|store| async move { store.presented_session(&asked).await }).await?;
        matches(row.as_ref().map(|row| row.sha256.as_slice()), &sha256, id)?;
        let row = row.filter(|row| !row.expired).ok_or_else(|| Unauthenticated::Expired(format!("session {id}")))?;
        // An issuer that the operator trusts no more, or whose claims mean something else now, takes what it began with it. Its kind
        // stands before the name of whoever began it.
        let kind = row.recognised_by["issuer"].as_str().and_then(|issuer| self.kind_of(issuer));
        if kind.is_none_or(|kind| !row.actor.starts_with(&format!("{}:", kind.as_str()))) {
            return Err(Unauthenticated::Expired(format!(
                "session {id}, whose issuer is not trusted any more, or not as what it was,"
            )));
        }
        let given = row.grants.map(|grants| grants.0).unwrap_or_default();
        let grants = Grants(given.into_iter().map(|grant| Grant::stored(&grant.role, grant.tokens)).collect());
        let team = Team { id: row.team_id, name: row.team_name };
        let caller = Caller {
            name: row.actor,
            recognised_by: serde_json::json!({"type": "session", "id": id, "begun_by": row.recognised_by}),
            memberships: vec![Membership { team, grants, rules: Vec::new() }],
            platform_admin: false,
            expires_at: Some(row.expires_at),
            held: Held::Session(id.to_owned()),
            sha256,
        };
        Ok((lasts(Some(row.expires_at), row.now), caller))
    }
}

/// Never beyond its end, by Postgres' clock.
fn lasts(expires_at: Option<OffsetDateTime>, now: OffsetDateTime) -> Duration {
    let left = expires_at.map(|at| Duration::try_from(at - now).unwrap_or(Duration::ZERO));
    left.map_or(LONGEST_REMEMBERED, |left| left.min(LONGEST_REMEMBERED))
}

/// The same work for an unknown id as for a wrong secret.
fn matches(expected: Option<&[u8]>, sha256: &[u8; 32], id: &str) -> Result<(), Unauthenticated> {
    let equal = crypto::constant_time_eq(expected.unwrap_or(&[0; 32]), sha256);
    match expected {
        None => Err(Unauthenticated::Unknown(id.to_owned())),
        Some(_) if !equal => Err(Unauthenticated::WrongSecret(id.to_owned())),
        Some(_) => Ok(()),
    }
}

fn holder_of_key(row: PresentedKeyRow, public_id: &str, sha256: [u8; 32]) -> Caller {
    let team = row.team_id.zip(row.team_name).map(|(id, name)| Team { id, name });
    let name = match &team {
        Some(team) => format!("key:{}/{}", team.name, row.name),
        None => format!("platform-key:{}", row.name),
    };
    let grant = Grant::stored(&row.role, row.token_patterns);
    let platform_admin = team.is_none() && grant.role == Role::PlatformAdmin;
    let member = |team| Membership { team, grants: Grants(vec![grant]), rules: Vec::new() };
    Caller {
        name,
        recognised_by: serde_json::json!({"type": "api-key", "id": public_id, "name": row.name}),
        memberships: team.map(member).into_iter().collect(),
        platform_admin,
        expires_at: row.expires_at,
        held: Held::Key(public_id.to_owned()),
        sha256,
    }
}
