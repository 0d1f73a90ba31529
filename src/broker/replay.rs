//! Comparing the journal with Postgres: a pair that Postgres does not have yet, or has lost in a failover, is committed.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry as Slot},
    sync::PoisonError,
    time::Duration,
};

use uuid::Uuid;

use super::{
    Broker, BrokerError, blocking,
    rotate::spends,
    sealing::{entry_column, entry_place},
};
use crate::{
    actor::Actor,
    crypto::{MasterKeyError, OpenError},
    jfrog::{Bearer, Pair, Vitality, parse_pair},
    journal::{Entry, Header, Place, Standing},
    secret::{Sealed, Wrapped},
    store::{Attempt, Committed, JobKind, StoreError, TokenView},
};

/// What one comparison has seen.
#[derive(Default)]
struct Seen {
    /// Tokens as they were read, by their ids; `None`: gone. A day's entries are of few tokens: each is read once, and again after a
    /// commit.
    views: HashMap<Uuid, Option<TokenView>>,
    /// Tokens of which an entry had to be left: a later one of theirs must not be taken for a stray.
    held_up: HashSet<Uuid>,
    /// Not every entry was seen: what comes before an entry may be there, although its row has not got so far.
    blind: bool,
    /// Master keys that could not be asked for: none is waited for twice.
    away: HashMap<String, MasterKeyError>,
}

/// The first error that a comparison went on after.
type First = Option<BrokerError>;

/// How long a committed entry is kept against a failover that loses its last seconds.
const KEPT: Duration = Duration::from_secs(86_400);

/// Tokens that one statement reads, at most.
const LOOKED_UP: usize = 200;

/// After Postgres could not be asked: well before what the dead left in the dark may be settled with a token that is spent.
const COMPARE_AGAIN: Duration = Duration::from_secs(2);

/// After the key service could not be asked.
const KEYS_AGAIN: Duration = Duration::from_secs(15);

impl Broker {
    /// Compares every entry with its row: after a start, and when Postgres may have lost its last seconds.
    pub(super) async fn replay_journal(&self) -> Result<(), BrokerError> {
        let mut seen = Seen { blind: self.journal.unread() > 0, ..Seen::default() };
        let committed = self.replay_committed(&mut seen).await?;
        let pending = self.replay_pending(&mut seen).await?;
        committed.or(pending).map_or(Ok(()), Err)
    }

    /// The same, until Postgres and the key service have let it come to its end: only here a committed pair that a failover lost
    /// is found, and whoever sends the spent one meanwhile loses its chain.
    pub(super) async fn replay_to_the_end(&self) -> Result<(), BrokerError> {
        // One that is still to begin sees all that this one would.
        let Ok(_asked) = self.comparisons.try_acquire() else { return Ok(()) };
        let _turn = self.comparing.lock().await;
        loop {
            let (away, again) = match self.replay_journal().await {
                Err(error @ BrokerError::MasterKey(MasterKeyError::Unavailable(..))) => (error, KEYS_AGAIN),
                Err(error @ BrokerError::Store(StoreError::Unavailable(_))) => (error, COMPARE_AGAIN),
                other => return other,
            };
            tracing::warn!(error = %away, "the journal could not be compared with Postgres yet");
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Commits what is pending and nobody has in hand, and removes what is old: now and then, for what went wrong meanwhile.
    pub(super) async fn tend_journal(&self) -> Result<(), BrokerError> {
        let journal = self.journal.clone();
        blocking(move || {
            journal.prune(KEPT);
            Ok(())
        })
        .await?;
        // Committed ones are not looked at here; those that a failover lost may wait for their key service.
        let mut seen = Seen { blind: true, ..Seen::default() };
        self.replay_pending(&mut seen).await?.map_or(Ok(()), Err)
    }

    async fn replay_committed(&self, seen: &mut Seen) -> Result<First, BrokerError> {
        let journal = self.journal.clone();
        let (entries, all) = blocking(move || Ok(journal.kept())).await?;
        seen.blind |= !all;
        self.replay_entries(entries, Standing::Committed, seen).await
    }

    /// An entry that is none is set aside; one that cannot be read or committed now stays. Neither blocks another.
    async fn replay_pending(&self, seen: &mut Seen) -> Result<First, BrokerError> {
        let mut waiting = self.journal.pending();
        waiting.retain(|attempt, _| !self.is_in_hand(*attempt));
        // What came to its end meanwhile does not wait any more.
        let still = self.journal.pending();
        waiting.retain(|attempt, _| still.contains_key(attempt));
        let journal = self.journal.clone();
        let read = move || Ok(waiting.into_iter().map(|entry| (journal.read(&entry.1), entry)).collect::<Vec<_>>());
        let mut entries = Vec::new();
        for (read, (attempt, place)) in blocking(read).await? {
            match read {
                Ok(entry) => entries.extend(entry),
                // The system's word, not the file's: a disk may recover, and files be closed.
                Err(error) if error.raw_os_error().is_some() => {
                    tracing::error!(%place, %error, "a journal entry cannot be read now; it is tried again");
                    seen.blind = true;
                }
                Err(error) => self.set_aside(attempt, &place, &error).await,
            }
        }
        self.replay_entries(entries, Standing::Pending, seen).await
    }

    /// Reads the entries' tokens, a team's together.
    async fn look_up(&self, entries: &[Entry], seen: &mut Seen) -> Result<(), BrokerError> {
        let mut teams: HashMap<Uuid, HashSet<Uuid>> = HashMap::new();
        for Header { team_id, token_id, .. } in entries.iter().map(|entry| &entry.header) {
            if !seen.views.contains_key(token_id) {
                teams.entry(*team_id).or_default().insert(*token_id);
            }
        }
        for (team, tokens) in teams {
            let tokens: Vec<Uuid> = tokens.into_iter().collect();
            for some in tokens.chunks(LOOKED_UP) {
                match self.store.tokens_by_ids(team, some).await {
                    Ok(found) => {
                        seen.views.extend(some.iter().map(|token| (*token, None)));
                        seen.views.extend(found.into_iter().map(|view| (view.id, Some(view))));
                    }
                    Err(error @ StoreError::Unavailable(_)) => return Err(error.into()),
                    // Each is read by itself then: one that cannot be holds up no other.
                    Err(error) => tracing::error!(%error, "tokens could not be read together"),
                }
            }
        }
        Ok(())
    }

    async fn replay_entries(&self, mut entries: Vec<Entry>, standing: Standing, seen: &mut Seen) -> Result<First, BrokerError> {
        // Oldest first: a failover may have set a row back by more than one pair.
        entries.sort_by_key(|entry| entry.header.begun_at);
        self.look_up(&entries, seen).await?;
        let mut first = None;
        for entry in entries {
            if seen.held_up.contains(&entry.header.token_id) {
                continue;
            }
            match self.replay(&entry, standing, seen).await {
                Ok(()) => continue,
                Err(error @ BrokerError::Open(_)) => {
                    self.set_aside(entry.header.attempt_id, &entry.place, &error).await;
                    continue;
                }
                Err(error @ BrokerError::Store(StoreError::Unavailable(_))) => return Err(error),
                Err(BrokerError::MasterKey(error @ MasterKeyError::Unavailable(..))) => {
                    if let MasterKeyError::Unavailable(id, _) = &error {
                        seen.away.insert(id.clone(), error.clone());
                    }
                    first.get_or_insert(error.into());
                }
                // Also a master key that is not in the list now: the entry waits for it.
                Err(error) => {
                    tracing::error!(attempt = %entry.header.attempt_id, %error, "a journal entry could not be replayed")
                }
            }
            seen.held_up.insert(entry.header.token_id);
        }
        Ok(first)
    }

    async fn replay(&self, entry: &Entry, standing: Standing, seen: &mut Seen) -> Result<(), BrokerError> {
        let attempt = attempt_of(&entry.header);
        let view = match seen.views.entry(attempt.token_id) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(self.store.token_by_id(attempt.team_id, attempt.token_id).await?),
        };
        let Some(view) = view.clone() else {
            // Deleted; or lost by a failover, and then this is the only copy.
            return if standing == Standing::Pending { Err(OpenError::Format.into()) } else { Ok(()) };
        };
        let chain = view.chains.iter().find(|chain| chain.id == attempt.chain_id);
        let expected = chain.is_some_and(|chain| chain.generation == attempt.spent_generation);
        if standing == Standing::Committed && !expected {
            return Ok(());
        }
        if seen.blind && chain.is_some_and(|chain| chain.generation < attempt.spent_generation) {
            return Ok(());
        }
        if let Some(error) = seen.away.get(&entry.header.master_key_id) {
            return Err(error.clone().into());
        }
        let Some(body) = self.body(entry).await? else { return Ok(()) };
        let pair = self.open_entry(&entry.header, &attempt, &body).await?;
        let stray = standing == Standing::Pending
            && !expected
            && chain.is_some_and(|chain| is_another(chain.fingerprint.as_deref(), &pair));
        if expected && !spends(&attempt.kind) && self.is_dead(&view, &pair).await {
            // Made beside the pair that is there, and away for so long that the sweep took it for an orphan.
            tracing::warn!(token = view.name, "a pair in the journal was revoked meanwhile: what is there stays");
        } else if expected {
            let key = self.keys.sealing_key(&self.store, attempt.team_id).await?;
            let (committed, _) = self.commit(&self.store, &attempt, &pair, None, key, &Actor::system()).await?;
            seen.views.remove(&view.id);
            tracing::warn!(token = view.name, ?committed, "a pair was committed from the journal");
            metrics::counter!("token_broker_journal_replays_total").increment(1);
            if matches!(attempt.kind.as_str(), "heal" | "recreate") {
                // What it was to clean up at JFrog was scheduled before the call, and may be lost with the row.
                self.store.schedule(JobKind::Sweep, view.id, self.sweep_after(&view)).await?;
            }
            if committed == Committed::Yes {
                // At once: from now on it may be handed out.
                self.journal.committed(entry);
                return Ok(());
            }
            // What was committed once was handed out: it is left to the sweep, which waits until its holders had their time.
            if standing == Standing::Pending {
                self.give_back(&view, &pair).await;
            }
        } else if stray {
            // The token was read with many others, a while ago: nothing is given back before another look.
            let now = self.store.token_by_id(attempt.team_id, attempt.token_id).await?;
            let moved_on = now.as_ref().is_some_and(|now| {
                now.chains.iter().any(|now| chain.is_some_and(|seen| now.id == seen.id && now.generation != seen.generation))
            });
            if moved_on {
                seen.views.insert(attempt.token_id, now);
                return Ok(());
            }
            self.give_back(&view, &pair).await;
        }
        if standing == Standing::Pending {
            self.journal.committed(entry);
        }
        Ok(())
    }

    /// Whether JFrog says that it does not know the pair any more.
    pub(super) async fn is_dead(&self, view: &TokenView, pair: &Pair) -> bool {
        let Some(instance) = self.jfrog.instance(Some(&view.instance)) else { return false };
        self.jfrog.me(instance, &Bearer::Access(pair.access_token.clone())).await == Vitality::Dead
    }

    async fn open_entry(&self, header: &Header, attempt: &Attempt, body: &Sealed) -> Result<Pair, BrokerError> {
        let wrapped = Wrapped {
            master_key_id: header.master_key_id.clone(),
            sealed: Sealed::from_bytes(hex::decode(&header.wrapped_key).map_err(|_| OpenError::Format)?),
        };
        let owner = header.key_owner.unwrap_or(header.attempt_id);
        let key = self.keys.carried_key(owner, &header.key_id, &wrapped).await?;
        let answer = key.open(entry_place(attempt, &entry_column(attempt)), body)?;
        let pair = parse_pair(&answer).map_err(|_| OpenError::Format)?;
        if pair.refresh_token.is_none() { Err(OpenError::Format.into()) } else { Ok(pair) }
    }

    /// The answer; `None`: it is gone.
    async fn body(&self, entry: &Entry) -> Result<Option<Sealed>, BrokerError> {
        if let Some(body) = &entry.body {
            return Ok(Some(body.clone()));
        }
        let (journal, place) = (self.journal.clone(), entry.place.clone());
        match blocking(move || journal.read(&place)).await {
            Ok(entry) => Ok(entry.and_then(|entry| entry.body)),
            // The system's word, not the file's.
            Err(error) if error.raw_os_error().is_some() => Err(error.into()),
            Err(_) => Err(OpenError::Format.into()),
        }
    }

    async fn set_aside(&self, attempt: Uuid, place: &Place, error: &(dyn std::error::Error + Sync)) {
        tracing::error!(%place, %error, "a journal entry is set aside: it cannot be used, and is not thrown away");
        let (journal, there) = (self.journal.clone(), place.clone());
        if let Err(error) = blocking(move || journal.set_aside(attempt, &there)).await {
            tracing::error!(%place, %error, "a journal entry could not be set aside");
        }
    }

    fn is_in_hand(&self, attempt: Uuid) -> bool {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).contains(&attempt)
    }
}

/// The attempt as it was begun: its row may be gone, the generation decides.
fn attempt_of(header: &Header) -> Attempt {
    Attempt {
        id: header.attempt_id,
        team_id: header.team_id,
        token_id: header.token_id,
        chain_id: header.chain_id,
        kind: header.kind.clone(),
        spent_generation: header.spent_generation,
        begun_at: header.begun_at,
        asked: header.asked.clone(),
    }
}

fn is_another(there: Option<&str>, pair: &Pair) -> bool {
    there != Some(crate::crypto::fingerprint(pair.access_token.expose()).as_str())
}
