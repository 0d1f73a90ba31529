//! Step 2: callers of the same token in this process wait for one task. The task belongs to the process, not to a caller.

use std::{
    sync::{Arc, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

use super::{
    Broker, BrokerError, RefreshError,
    plan::{Call, Ended, Plan, Wanted},
};
use crate::{
    actor::Actor,
    jfrog::{Bearer, Reason, Rejection},
    names::{Asked, Name},
    store::{ChainRow, ChainState, HandOut, Letter, StoreError, TokenState, TokenView},
};

/// Whose flight: the team, the token's name, and whether `rotatable_at` is overruled.
pub(super) type Key = (Uuid, String, bool);
/// Where its result will be.
pub(super) type Flight = watch::Receiver<Option<Advance>>;

/// What a flight is begun with.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// The token as it was seen just now.
    pub view: Option<TokenView>,
    /// Who is handed what comes of it.
    pub wanted: Option<Arc<Wanted>>,
    /// A job's place among the calls to this instance.
    pub place: Option<OwnedSemaphorePermit>,
}

/// What a flight handed to who began it, and since when it is known that it may be.
pub(super) type Handed = Option<(Instant, HandOut)>;

/// When JFrog does not say how long to wait.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// After a 401, a token's chains are left alone for so long.
pub(super) const AFTER_UNAUTHENTICATED: Duration = Duration::from_secs(300);

/// What became of trying to move a token on.
#[derive(Clone, Debug)]
pub(super) enum Advance {
    /// A pair was committed: decide again.
    Changed,
    /// Someone else is at it; wait and decide again. `uncertain`: its outcome is unknown, until the lease is over.
    Elsewhere { uncertain: bool },
    /// What was handed out must go on working: nothing may be rotated yet. The token's generation as it was seen: a caller that
    /// decided on an earlier one decides again.
    NotDue { generation: i64 },
    /// JFrog cannot be reached, or refuses for now.
    Unavailable { detail: String, retry_after: Duration },
    /// Nobody knows what became of the call.
    Uncertain,
    /// There is no such token.
    NotFound,
    /// Its chains are still being made.
    Creating,
    /// It is being deleted.
    Revoked,
    /// No chain works.
    Lost(String),
    /// This replica is shutting down, or frozen, and begins nothing new: another one will.
    Stopping,
    /// Postgres is away: nothing was spent, or the journal has it.
    DatabaseUnavailable,
    /// The journal directory cannot be written: nothing was spent; logged already.
    JournalUnavailable,
    /// Keys, or a task that ended early; logged already.
    Failed(String),
}

impl Advance {
    /// What a caller is told who can do with nothing else.
    pub(super) fn into_error(self, name: &Name) -> RefreshError {
        match self {
            Self::NotFound => BrokerError::NotFound(format!("token {name}")).into(),
            Self::Creating => RefreshError::Creating,
            Self::Revoked => RefreshError::Revoked,
            Self::Lost(why) => RefreshError::Lost(why),
            Self::DatabaseUnavailable => RefreshError::DatabaseUnavailable,
            Self::Unavailable { detail, retry_after } => RefreshError::JfrogUnavailable { detail, retry_after },
            Self::Uncertain | Self::Elsewhere { uncertain: true } => RefreshError::Uncertain,
            Self::Failed(what) => RefreshError::Failed(what),
            Self::Changed
            | Self::NotDue { .. }
            | Self::Elsewhere { uncertain: false }
            | Self::Stopping
            | Self::JournalUnavailable => RefreshError::Pending,
        }
    }
}

impl Broker {
    /// Joins the flight of this token, or starts it. Cancelling the wait cancels nothing.
    pub(super) async fn advance(&self, key: Key, actor: &Actor) -> Advance {
        self.advance_for(key, actor, Start::default).await.0
    }

    /// The same for a caller that may be handed what it started.
    pub(super) async fn advance_for(&self, key: Key, actor: &Actor, start: impl FnOnce() -> Start) -> (Advance, Handed) {
        let (mut flight, wanted) = self.flight(key, actor, start);
        let advance = match flight.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Advance::Elsewhere { uncertain: false }),
            // The task panicked, or the shutdown ended it.
            Err(_) => Advance::Failed(BrokerError::TaskEnded.to_string()),
        };
        (advance, wanted.and_then(|wanted| wanted.take()))
    }

    fn flight(&self, key: Key, actor: &Actor, start: impl FnOnce() -> Start) -> (Flight, Option<Arc<Wanted>>) {
        let mut joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = joins.get(&key) {
            return (flight.clone(), None);
        }
        let (result, flight) = watch::channel(None);
        if self.stop.is_cancelled() || self.recognised.frozen.is_some() {
            drop(result.send(Some(Advance::Stopping)));
            return (flight, None);
        }
        let Start { view, wanted, place } = start();
        // Who began it may give up waiting: then nothing is handed out.
        let still_wanted = wanted.as_ref().map(Arc::downgrade);
        joins.insert(key.clone(), flight.clone());
        let (broker, actor) = (self.clone(), actor.clone());
        self.spawn(async move {
            // Gone even when the task panics: a name must not stay blocked.
            let _landing = Landing { broker: &broker, key: &key };
            let advance = broker.advance_once(&key, &actor, view, still_wanted.as_ref(), place).await;
            drop(result.send(Some(advance)));
        });
        (flight, wanted)
    }

    async fn advance_once(
        &self,
        (team, name, overrule): &Key,
        actor: &Actor,
        mut view: Option<TokenView>,
        wanted: Option<&Weak<Wanted>>,
        mut place: Option<OwnedSemaphorePermit>,
    ) -> Advance {
        // Each round may find the token changed by the one before: recovered, one chain found lost, healing refused.
        for _ in 0..4 {
            let view = match view.take() {
                Some(view) => Ok(Some(view)),
                None => self.store.token(*team, name).await,
            };
            let step = async || match view? {
                Some(view) => self.advance_step(*team, view, *overrule, (wanted, &mut place), actor).await,
                None => Ok(Some(Advance::NotFound)),
            };
            match step().await {
                Ok(Some(advance)) => return advance,
                Ok(None) => {}
                Err(BrokerError::Store(StoreError::Unavailable(error))) => {
                    tracing::warn!(%error, "a refresh met no Postgres");
                    return Advance::DatabaseUnavailable;
                }
                // Nothing was begun: there is no key to save a pair with.
                Err(error @ (BrokerError::Journal(_) | BrokerError::MasterKey(_))) => {
                    tracing::error!(%error, "a refresh could not be begun");
                    return Advance::JournalUnavailable;
                }
                Err(error) => {
                    tracing::error!(%error, "a refresh failed");
                    return Advance::Failed(error.to_string());
                }
            }
        }
        Advance::Elsewhere { uncertain: false }
    }

    /// One step: `None` means that the token changed and is to be looked at again.
    async fn advance_step(
        &self,
        team: Uuid,
        view: TokenView,
        overrule: bool,
        (wanted, place): (Option<&Weak<Wanted>>, &mut Option<OwnedSemaphorePermit>),
        actor: &Actor,
    ) -> Result<Option<Advance>, BrokerError> {
        match view.state {
            TokenState::Creating => return Ok(Some(Advance::Creating)),
            TokenState::Revoked => return Ok(Some(Advance::Revoked)),
            TokenState::Registered => {}
        }
        if let Some(attempt) = &view.attempt {
            if attempt.live {
                return Ok(Some(self.wait_for_others(team, view).await?));
            }
            return Ok((!self.recover(&view).await?).then_some(Advance::Elsewhere { uncertain: false }));
        }
        if let Some(advance) = locked_out(&view) {
            return Ok(Some(advance));
        }
        // While one chain is not active, the other is not rotated: first the missing one is made, and handed out.
        if let Some(missing) = view.missing().filter(|_| !view.heal_refused) {
            if view.active().next().is_none() {
                return Ok(Some(hopeless(&view)));
            }
            let makers = self.makers(&view, missing).await?;
            // With nobody to make it, the chain that is left is rotated while JFrog may still take its expired bearer.
            if !makers.is_empty() {
                return Ok(after_heal(self.make_chain_with(makers, &view, missing, "heal", actor).await?));
            }
        }
        let Some(older) = view.older() else { return Ok(Some(hopeless(&view))) };
        // Only what would expire before its time to be rotated comes.
        let expiring = !view.alive(older, last_call(&view)) && older.expires_at.is_some_and(|at| view.rotatable_at >= at);
        if !(overrule || view.rotatable || expiring) {
            return Ok(Some(Advance::NotDue { generation: view.generation }));
        }
        // What was imported bears a person's description: a lost answer could never be found. It is made anew, with our marker.
        if without_marker(&view, older) && !view.heal_refused {
            let makers = self.makers(&view, older).await?;
            if !makers.is_empty() {
                return Ok(after_heal(self.make_chain_with(makers, &view, older, "heal", actor).await?));
            }
        }
        // What is left has expired: an outage now would leave it in doubt too, with nothing to settle it with.
        if !view.active().any(|chain| view.alive(chain, 1)) && !self.answers(&view).await {
            return Ok(Some(Advance::Unavailable { detail: "JFrog does not answer".to_owned(), retry_after: RETRY_AFTER }));
        }
        let own = Some(older).filter(|chain| view.alive(chain, 60));
        let others = view.active().filter(|chain| chain.id != older.id && view.alive(chain, 1));
        let mut bearers = Vec::new();
        for chain in own.into_iter().chain(others).chain(own.is_none().then_some(older)) {
            bearers.push(Bearer::Access(self.open_access(&view, chain).await?));
        }
        // One bearer a time: JFrog locks users after repeated bad credentials. After a 401 it is the next one's turn.
        let turn = usize::try_from(view.rejections).unwrap_or(0) % bearers.len().max(1);
        bearers.rotate_left(turn);
        bearers.truncate(1);
        let call = Call::Refresh(self.open_refresh(&view, older).await?);
        let respect_rotatable_at = !overrule && !expiring;
        let asked = Asked::default();
        let plan = Plan { view: &view, chain: older, kind: "rotate", call, bearers, respect_rotatable_at, asked, wanted, place };
        let ended = self.obtain(plan, actor).await?;
        Ok(after_rotate(ended))
    }
}

impl Broker {
    /// Another replica is at it, or another flow here: one task waits for all callers of this process, until the attempt has ended
    /// or its outcome is in doubt.
    async fn wait_for_others(&self, team: Uuid, mut view: TokenView) -> Result<Advance, BrokerError> {
        // Subscribed before the read: a signal between the two is not missed.
        let mut signals = self.signals.subscribe();
        let (token, theirs) = (view.id, view.attempt.as_ref().map(|attempt| attempt.id));
        loop {
            let Some(attempt) = view.attempt.as_ref().filter(|attempt| attempt.live && Some(attempt.id) == theirs) else {
                return Ok(Advance::Changed);
            };
            if view.chains.iter().any(|chain| Some(chain.id) == attempt.chain_id && chain.state == ChainState::Uncertain) {
                return Ok(Advance::Elsewhere { uncertain: true });
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Advance::Elsewhere { uncertain: false }),
                () = self.wake(&mut signals, Some(token)) => {}
            }
            let Some(again) = self.store.token_by_id(team, token).await? else { return Ok(Advance::NotFound) };
            view = again;
        }
    }
}

/// JFrog locks users after repeated bad credentials: after a 401 nothing is tried for a while, with no token of that user.
pub(super) fn locked_out(view: &TokenView) -> Option<Advance> {
    let own = view.last_error.as_ref().filter(|(_, kind, _)| kind == "jfrog-unauthenticated");
    let at = own.map(|(at, ..)| *at).max(view.user_refused_at)?;
    let passed = Duration::try_from(view.now - at).unwrap_or(Duration::ZERO);
    let retry_after = AFTER_UNAUTHENTICATED.checked_sub(passed)?;
    let detail = own.map_or_else(|| "JFrog refused this token's user just now".to_owned(), |(_, _, detail)| detail.clone());
    Some(Advance::Unavailable { detail, retry_after })
}

/// Whether the chain is a pasted one, rotated once by the import and not made anew since.
fn without_marker(view: &TokenView, chain: &ChainRow) -> bool {
    view.imported && chain.letter == Letter::A && chain.generation <= 2
}

/// An expiring chain is rotated before `rotatable_at`: losing it would be worse. Seconds before its end: five minutes, or a tenth
/// of a short lifetime.
fn last_call(view: &TokenView) -> i64 {
    let lifetime = |chain: &ChainRow| Some((chain.expires_at? - chain.refreshed_at?).whole_seconds() / 10);
    view.older().and_then(lifetime).map_or(300, |tenth| tenth.min(300))
}

fn after_rotate(ended: Ended) -> Option<Advance> {
    match ended {
        Ended::Rejected(rejection) if rejection.reason == Reason::RefreshTokenUnknown => None,
        other => after_heal_or_rotate(other),
    }
}

fn after_heal(ended: Ended) -> Option<Advance> {
    match ended {
        // A definite refusal is written down, and the next round lives with one chain.
        Ended::Rejected(rejection) if rejection.is_final() => None,
        Ended::NotRefreshable => None,
        other => after_heal_or_rotate(other),
    }
}

fn after_heal_or_rotate(ended: Ended) -> Option<Advance> {
    Some(match ended {
        Ended::Committed | Ended::Superseded => Advance::Changed,
        Ended::NotBegun => Advance::Elsewhere { uncertain: false },
        Ended::NotSent(detail) => Advance::Unavailable { detail, retry_after: RETRY_AFTER },
        Ended::Rejected(Rejection { status, message, retry_after, .. }) => {
            Advance::Unavailable { detail: format!("{status}: {message}"), retry_after: retry_after.unwrap_or(RETRY_AFTER) }
        }
        Ended::NotRefreshable | Ended::Unknown(_) => Advance::Uncertain,
    })
}

fn hopeless(view: &TokenView) -> Advance {
    // Settling has not concluded yet.
    if view.chains.iter().any(|chain| chain.state == ChainState::Uncertain) {
        return Advance::Uncertain;
    }
    Advance::Lost(view.last_error.as_ref().map_or_else(|| "no chain works".to_owned(), |(_, _, detail)| detail.clone()))
}

struct Landing<'a> {
    broker: &'a Broker,
    key: &'a Key,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.broker.joins.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}
