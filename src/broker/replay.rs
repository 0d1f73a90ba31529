//! Comparing the journal with Postgres: a pair that Postgres does not have yet, or has lost in a failover, is committed.

use uuid::Uuid;

use super::{Broker, BrokerError, blocking, rotate::entry_place};
use crate::{
    actor::Actor,
    crypto::OpenError,
    jfrog::{Pair, parse_pair},
    journal::{Entry, Standing},
    secret::{Sealed, Wrapped},
    store::{Attempt, StoreError},
};

/// How long a committed entry is kept against a failover that loses its last seconds.
const KEPT: time::Duration = time::Duration::DAY;

impl Broker {
    /// Compares every entry with its row. An unreadable one is set aside and blocks nothing.
    pub(super) async fn replay_journal(&self) -> Result<(), BrokerError> {
        let journal = self.journal.clone();
        let (mut entries, unreadable) = blocking(move || journal.entries()).await?;
        for path in unreadable {
            tracing::error!(path = %path.display(), "a journal file cannot be read and is set aside");
            let journal = self.journal.clone();
            blocking(move || journal.set_aside(&path)).await?;
        }
        // Oldest first: a failover may have set a row back by more than one pair.
        entries.sort_by_key(|entry| entry.header.begun_at);
        for entry in entries.into_iter().filter(|entry| !self.is_in_hand(entry.header.attempt_id)) {
            let path = entry.path().to_owned();
            match self.replay(entry).await {
                Ok(()) => {}
                Err(error @ BrokerError::Store(StoreError::Unavailable(_))) => return Err(error),
                // It stays, for the next start or reconnect, and blocks no other.
                Err(error) => tracing::error!(path = %path.display(), %error, "a journal entry could not be replayed"),
            }
        }
        Ok(())
    }

    async fn replay(&self, entry: Entry) -> Result<(), BrokerError> {
        let Some(body) = entry.body.clone() else {
            // Its process died before JFrog's answer came: the attempt's row tells what is to be found out.
            return Ok(blocking(move || entry.remove()).await?);
        };
        let pair = match self.open_entry(&entry, &body) {
            Ok(pair) => pair,
            Err(error) => {
                tracing::error!(path = %entry.path().display(), %error, "a journal entry does not open and is set aside");
                let (journal, path) = (self.journal.clone(), entry.path().to_owned());
                return Ok(blocking(move || journal.set_aside(&path)).await?);
            }
        };
        let attempt = attempt_of(&entry);
        let Some(view) = self.store.token_by_id(attempt.team_id, attempt.token_id).await? else {
            return Ok(blocking(move || entry.remove()).await?);
        };
        let chain = view.chains.iter().find(|chain| chain.id == attempt.chain_id);
        let behind = chain.is_some_and(|chain| chain.generation == attempt.spent_generation);
        if behind {
            let committed = self.commit(&attempt, &pair, &Actor::system()).await?;
            tracing::warn!(token = view.name, ?committed, "a pair was committed from the journal");
            metrics::counter!("token_broker_journal_replays_total").increment(1);
        } else if entry.standing == Standing::Pending
            && chain.is_some_and(|chain| is_another(chain.fingerprint.as_deref(), &pair))
        {
            self.give_back(&view, &pair).await;
        }
        if entry.standing == Standing::Committed && view.now - entry.header.begun_at > KEPT {
            return Ok(blocking(move || entry.remove()).await?);
        }
        Ok(blocking(move || entry.committed()).await?)
    }

    fn open_entry(&self, entry: &Entry, body: &Sealed) -> Result<Pair, BrokerError> {
        let header = &entry.header;
        let wrapped = Wrapped {
            master_key_id: header.master_key_id.clone(),
            sealed: Sealed::from_bytes(hex::decode(&header.wrapped_key).map_err(|_| OpenError::Format)?),
        };
        let key = self.keys.master().unwrap(header.attempt_id, &header.key_id, &wrapped)?;
        let answer = key.open(entry_place(header.attempt_id, header.spent_generation), body)?;
        let pair = parse_pair(&answer).map_err(|_| OpenError::Format)?;
        if pair.refresh_token.is_none() { Err(OpenError::Format.into()) } else { Ok(pair) }
    }

    fn is_in_hand(&self, attempt: Uuid) -> bool {
        self.in_hand.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&attempt)
    }
}

/// The attempt as it was begun: its row may be gone, the generation decides.
fn attempt_of(entry: &Entry) -> Attempt {
    let header = &entry.header;
    Attempt {
        id: header.attempt_id,
        team_id: header.team_id,
        token_id: header.token_id,
        chain_id: header.chain_id,
        kind: header.kind.clone(),
        spent_generation: header.spent_generation,
        begun_at: header.begun_at,
    }
}

fn is_another(there: Option<&str>, pair: &Pair) -> bool {
    there != Some(crate::crypto::fingerprint(pair.access_token.expose()).as_str())
}
