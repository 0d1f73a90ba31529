//! From a presented credential to a caller.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use uuid::Uuid;

use super::{
    api_keys::ApiKey,
    caller::{Caller, Team},
    grant::{Grant, Role},
};
use crate::{
    crypto,
    names::TokenPattern,
    secret::PresentedCredential,
    store::{PresentedKeyRow, Store, StoreError},
};

/// Longest credential that is looked at.
const LONGEST: usize = 16 * 1024;

/// Why a credential is not one. Precise: for logs and the audit; the caller is told only that it is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Neither form we know.
    #[error("the credential is no API key")]
    UnknownForm,
    /// Right prefix, wrong form or checksum.
    #[error("the API key is malformed or mistyped")]
    Malformed,
    /// No such id.
    #[error("there is no API key {0}")]
    UnknownKey(String),
    /// The id exists, the secret is another.
    #[error("the secret of API key {0} is wrong")]
    WrongSecret(String),
    /// Past its time.
    #[error("API key {0} has expired")]
    Expired(String),
    /// It could not be checked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unauthenticated {
    /// The same for the next who waited for it.
    fn told_again(&self) -> Self {
        match self {
            Self::UnknownForm => Self::UnknownForm,
            Self::Malformed => Self::Malformed,
            Self::UnknownKey(id) => Self::UnknownKey(id.clone()),
            Self::WrongSecret(id) => Self::WrongSecret(id.clone()),
            Self::Expired(id) => Self::Expired(id.clone()),
            Self::Store(error) => Self::Store(error.told_again()),
        }
    }
}

/// Verifies credentials. A verified one is remembered for a second: as long as a revocation may take to be felt.
#[derive(Clone)]
pub struct Authentication {
    store: Store,
    recent: Cache<[u8; 32], Arc<Caller>>,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authentication")
    }
}

impl Authentication {
    /// Over this store.
    pub fn new(store: Store) -> Self {
        let recent = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(1)).build();
        Self { store, recent }
    }

    /// Who holds this credential.
    ///
    /// # Errors
    /// See [`Unauthenticated`].
    pub async fn authenticate(&self, credential: &PresentedCredential) -> Result<Arc<Caller>, Unauthenticated> {
        if credential.expose().len() > LONGEST || !ApiKey::looks_like_one(credential) {
            return Err(Unauthenticated::UnknownForm);
        }
        let key = ApiKey::parse(credential).ok_or(Unauthenticated::Malformed)?;
        self.verified(&key.public_id, key.sha256).await
    }

    /// Whether the credential of a caller that was let in a while ago would let it in now.
    ///
    /// # Errors
    /// Postgres.
    pub async fn still_holds(&self, caller: &Caller) -> Result<bool, StoreError> {
        match self.verified(&caller.key_id, caller.sha256).await {
            Ok(_) => Ok(true),
            Err(Unauthenticated::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Postgres is asked once a second for a credential, however many show it: who comes meanwhile waits for the same answer.
    async fn verified(&self, id: &str, sha256: [u8; 32]) -> Result<Arc<Caller>, Unauthenticated> {
        let verified = self.recent.try_get_with(sha256, self.verify(id, sha256)).await;
        verified.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(|shared| shared.told_again()))
    }

    async fn verify(&self, id: &str, sha256: [u8; 32]) -> Result<Arc<Caller>, Unauthenticated> {
        let asked = id.to_owned();
        let row = self.store.promptly(|store| async move { store.presented_key(&asked).await }).await?;
        // The same work for an unknown id as for a wrong secret.
        let expected = row.as_ref().map_or([0; 32].as_slice(), |row| row.sha256.as_slice());
        let matches = crypto::constant_time_eq(expected, &sha256);
        let row = row.ok_or_else(|| Unauthenticated::UnknownKey(id.to_owned()))?;
        if !matches {
            return Err(Unauthenticated::WrongSecret(id.to_owned()));
        }
        if row.expired {
            return Err(Unauthenticated::Expired(id.to_owned()));
        }
        let (team, key) = (row.team_id.unwrap_or(Uuid::nil()), row.id);
        self.store.promptly(move |store| async move { store.touch_api_key(team, key).await }).await?;
        Ok(Arc::new(caller(row, id, sha256)))
    }
}

fn caller(row: PresentedKeyRow, public_id: &str, sha256: [u8; 32]) -> Caller {
    let team = row.team_id.zip(row.team_name).map(|(id, name)| Team { id, name });
    let name = match &team {
        Some(team) => format!("key:{}/{}", team.name, row.name),
        None => format!("platform-key:{}", row.name),
    };
    Caller {
        name,
        recognised_by: serde_json::json!({"type": "api-key", "id": public_id, "name": row.name}),
        team,
        grant: Grant {
            // The column has a check on exactly these; a word from the future gives the least.
            role: Role::parse(&row.role).unwrap_or(Role::Viewer),
            tokens: row.token_patterns.into_iter().filter_map(|text| TokenPattern::try_from(text).ok()).collect(),
        },
        expires_at: row.expires_at,
        key_id: public_id.to_owned(),
        sha256,
    }
}
