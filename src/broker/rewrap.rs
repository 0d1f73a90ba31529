//! Wrapping keys by another master key, online: of the same kind or of another. The wrapped keys change, nothing that they sealed.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Broker, BrokerError, everywhere::everywhere, keys::Keys, settle::Settled};
use crate::{crypto::MasterKeyError, store::Store};

/// Keys that are read at once.
const PAGE: i32 = 200;

/// Another replica has that master key, or this one after its next start.
const NOT_MINE: Duration = Duration::from_secs(5);

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// Nobody asked for it, or everything is wrapped by that master key.
    Done,
    /// The time was over before the keys were.
    Unfinished,
    /// This process does not have a master key that it takes.
    Elsewhere,
    /// Some could not be unwrapped.
    Stuck,
}

impl Broker {
    /// Goes on with what was asked for, for a part of the job's hold.
    pub(super) async fn rewrap_all(&self) -> Result<Settled, BrokerError> {
        Ok(match self.keys.rewrap(&self.store, Instant::now() + self.timing.lease / 2).await? {
            Rewrapped::Done => Settled::Done,
            Rewrapped::Unfinished => Settled::Later(Duration::ZERO),
            Rewrapped::Elsewhere => Settled::Later(NOT_MINE),
            Rewrapped::Stuck => Settled::Failed,
        })
    }
}

impl Keys {
    /// Wraps every key by the master key that was asked for.
    ///
    /// # Errors
    /// A replica does not have that master key, the key service cannot be reached, or Postgres.
    pub async fn rewrap(&self, store: &Store, until: Instant) -> Result<Rewrapped, BrokerError> {
        let asked = store.master_keys().await?.into_iter().find(|key| key.rewrap_asked_at.is_some());
        let Some(by) = asked.map(|key| key.id) else { return Ok(Rewrapped::Done) };
        if !self.master().has(&by) {
            return Ok(Rewrapped::Elsewhere);
        }
        // A replica may have come without it since.
        everywhere(&by, store).await?;
        let (mut after, mut stuck, mut elsewhere) = (Uuid::nil(), false, false);
        loop {
            let page = store.wrapped_keys(&by, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for read in page {
                let id = read.id.to_string();
                let key = match self.master().unwrap(read.owner, &id, &read.wrapped).await {
                    Ok(key) => key,
                    Err(MasterKeyError::Missing(_)) => {
                        elsewhere = true;
                        continue;
                    }
                    Err(error @ MasterKeyError::Damaged { .. }) => {
                        tracing::error!(%error, "a key could not be wrapped by another master key");
                        stuck = true;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                store.rewrap_key(&read, &self.master().wrap(&by, read.owner, &key).await?).await?;
                if Instant::now() >= until {
                    return Ok(Rewrapped::Unfinished);
                }
            }
        }
        if stuck || elsewhere {
            return Ok(if stuck { Rewrapped::Stuck } else { Rewrapped::Elsewhere });
        }
        store.rewrapped(&by).await?;
        tracing::info!(master_key = by, "every data key is wrapped by this master key");
        Ok(Rewrapped::Done)
    }
}
