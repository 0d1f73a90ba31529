//! Rotating a team's data key: a new one seals at once, the rows of the old one are sealed anew, and it goes when nothing needs it.
//! Every step is one statement that can be repeated: whoever dies here leaves the rest to the next who takes the job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    Broker, BrokerError,
    everywhere::everywhere,
    heal::identity_place,
    keys::{CURRENT_FOR, Keys},
    sealing::chain_place,
    settle::Settled,
    webhooks::target_place,
};
use crate::{
    crypto::{Key, Place},
    secret::Sealed,
    store::{SealedChain, SealedValue, SingleValued, Store},
};

/// So long after a rotation an old key may still seal: as long as a replica believes that it is the current one, and two minutes for
/// what it then began. Whoever comes later is refused, and seals with the new one.
const OPEN_FOR: Duration = CURRENT_FOR.saturating_add(Duration::from_secs(120));

/// So long a closed key is kept although no row needs it: for who read a row before it was sealed anew, and waits for JFrog.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Until it is looked again whether every replica has the master key that is to wrap new data keys.
const NOT_EVERYWHERE: Duration = Duration::from_secs(5);

/// Rows that are read at once.
const PAGE: i64 = 400;

/// Rows of a page that are written at once: each is a commit of its own.
const AT_ONCE: usize = 4;

/// Where the rotation of a team's data key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resealed {
    /// The time was over before the rows were.
    Unfinished,
    /// No row needs an old key that could be opened. The next step is due after so long.
    Waiting(Duration),
    /// There are rows that do not open: they keep their key.
    Stuck,
    /// No old key is left.
    Done,
}

impl Broker {
    /// Does what is due for the team's keys, for a part of the job's hold.
    pub(super) async fn reseal_team(&self, team: Uuid) -> Result<Settled, BrokerError> {
        Ok(match self.keys.reseal(&self.store, team, Instant::now() + self.timing.lease / 2).await? {
            Resealed::Unfinished => Settled::Later(Duration::ZERO),
            Resealed::Waiting(wait) => Settled::Later(wait),
            Resealed::Stuck => Settled::Failed,
            Resealed::Done => Settled::Done,
        })
    }
}

impl Keys {
    /// Makes the team's new data key where one was asked for, seals what its old ones sealed anew, and ends the old ones when they may
    /// be.
    ///
    /// # Errors
    /// A key cannot be had, or Postgres.
    pub async fn reseal(&self, store: &Store, team: Uuid, until: Instant) -> Result<Resealed, BrokerError> {
        let waits = store.is_rotation_asked(team).await? && !self.rotate_data_key(store, team).await?;
        // Another replica may have made the new one: what is believed here may be what is to go.
        self.look_again(team).await;
        let mut wait = waits.then_some(NOT_EVERYWHERE);
        for old in store.old_data_keys(team, OPEN_FOR, KEPT_FOR).await? {
            let due = old.wait_seconds <= 0.0;
            if due && !old.closed {
                store.close_data_key(team, old.id).await?;
            }
            let next =
                if due { if old.closed { Duration::ZERO } else { KEPT_FOR } } else { Duration::from_secs_f64(old.wait_seconds) };
            wait = Some(wait.map_or(next, |wait: Duration| wait.min(next)));
        }
        // What was sealed with a key before it was closed is found here: nothing is afterwards.
        let Some(wait) = wait else { return Ok(Resealed::Done) };
        let Some(stuck) = self.reseal_rows(store, team, until).await? else { return Ok(Resealed::Unfinished) };
        if stuck {
            return Ok(Resealed::Stuck);
        }
        for old in
            store.old_data_keys(team, OPEN_FOR, KEPT_FOR).await?.into_iter().filter(|old| old.closed && old.wait_seconds <= 0.0)
        {
            if store.delete_data_key(team, old.id).await? {
                tracing::info!(data_key = %old.id, "an old data key is deleted: nothing needs it");
            }
        }
        let left = waits || !store.old_data_keys(team, OPEN_FOR, KEPT_FOR).await?.is_empty();
        Ok(if left { Resealed::Waiting(wait.max(Duration::from_secs(1))) } else { Resealed::Done })
    }

    /// A new data key takes the place of the team's current one. `false`: it waits, because a replica could not open it.
    async fn rotate_data_key(&self, store: &Store, team: Uuid) -> Result<bool, BrokerError> {
        let first = self.master().first();
        match everywhere(first, store).await {
            Ok(()) => {}
            // The master key was put first too early, or a replica came without it after this was asked for.
            Err(error @ BrokerError::KeyNotEverywhere { .. }) => {
                tracing::warn!(%error, "a new data key waits");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        store.rotate_data_key(team, &self.new_data_key(team, first).await?).await?;
        Ok(true)
    }

    /// Seals the team's rows anew that need an old key. `None`: the time was over; else whether there are rows that do not open.
    async fn reseal_rows(&self, store: &Store, team: Uuid, until: Instant) -> Result<Option<bool>, BrokerError> {
        let key = self.sealing_key(store, team).await?;
        let (mut after, mut stuck) = (Uuid::nil(), false);
        loop {
            let page = store.chains_to_reseal(team, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let mut shares = JoinSet::new();
            for share in page.chunks(page.len().div_ceil(AT_ONCE)) {
                let (keys, store, key, share) = (self.clone(), store.clone(), Arc::clone(&key), share.to_vec());
                shares.spawn(async move { keys.reseal_chains(&store, team, &key, &share).await });
            }
            while let Some(done) = shares.join_next().await {
                stuck |= done.map_err(|_| BrokerError::TaskEnded)??;
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
        for (of, place) in
            [(SingleValued::Tokens, identity_place as fn(Uuid) -> Place<'static>), (SingleValued::Webhooks, target_place)]
        {
            stuck |= self.reseal_values(store, team, &key, (of, place)).await?;
        }
        Ok(Some(stuck))
    }

    /// Whether some do not open.
    async fn reseal_chains(&self, store: &Store, team: Uuid, key: &Key, chains: &[SealedChain]) -> Result<bool, BrokerError> {
        let mut stuck = false;
        for read in chains {
            match self.chain_anew(store, team, key, read).await {
                Ok(new) => count(new != *read && store.reseal_chain(team, read, &new).await?),
                Err(error) => stuck |= does_not_open(error, "chains", read.id)?,
            }
        }
        Ok(stuck)
    }

    async fn chain_anew(&self, store: &Store, team: Uuid, key: &Key, read: &SealedChain) -> Result<SealedChain, BrokerError> {
        let mut new = read.clone();
        for (column, sealed) in [
            ("access_token", &mut new.access_token),
            ("refresh_token", &mut new.refresh_token),
            ("reference_token", &mut new.reference_token),
        ] {
            if let Some(sealed) = sealed {
                *sealed = self.anew(store, team, key, chain_place(read.id, column, read.generation), sealed).await?;
            }
        }
        if let Some((generation, sealed)) = &mut new.replaced {
            *sealed = self.anew(store, team, key, chain_place(read.id, "access_token", *generation), sealed).await?;
        }
        Ok(new)
    }

    /// Whether some do not open.
    async fn reseal_values(
        &self,
        store: &Store,
        team: Uuid,
        key: &Key,
        (of, place): (SingleValued, fn(Uuid) -> Place<'static>),
    ) -> Result<bool, BrokerError> {
        let (mut after, mut stuck) = (Uuid::nil(), false);
        loop {
            let page: Vec<SealedValue> = store.values_to_reseal(of, team, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(stuck) };
            after = last.id;
            for read in page {
                match self.anew(store, team, key, place(read.id), &read.sealed).await {
                    Ok(new) => count(new != read.sealed && store.reseal_value(of, team, &read, &new).await?),
                    Err(error) => stuck |= does_not_open(error, place(read.id).table, read.id)?,
                }
            }
        }
    }

    async fn anew(&self, store: &Store, team: Uuid, key: &Key, place: Place<'_>, sealed: &Sealed) -> Result<Sealed, BrokerError> {
        if sealed.key_id()? == key.id() {
            return Ok(sealed.clone());
        }
        let plain = self.open_sealed(store, team, place, sealed).await?;
        Ok(key.seal(place, plain.as_bytes()))
    }
}

fn count(resealed: bool) {
    counter!("token_broker_resealed_rows_total").increment(u64::from(resealed));
}

/// A value that was changed keeps its key, and is said; anything else ends the work for now.
fn does_not_open(error: BrokerError, table: &'static str, row: Uuid) -> Result<bool, BrokerError> {
    let BrokerError::Open(error) = error else { return Err(error) };
    tracing::error!(table, %row, %error, "a sealed value does not open, and stays under its old data key");
    Ok(true)
}
