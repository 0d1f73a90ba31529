//! Steps 3 to 7 of a refresh: begin an attempt, call JFrog once, journal, commit, wake. The same for every call that makes a
//! pair: rotating, healing, creating. The order of the lines is the promise; change none without DESIGN.md beside it.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use metrics::counter;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Broker, BrokerError,
    entry::{InHand, set_aside},
    plan::{Call, Ended, Plan, Wanted},
    sealing::{entry_column, entry_place, seal_pair},
};
use crate::{
    actor::Actor,
    crypto::Key,
    fault::{self, Point},
    jfrog::{Outcome, Pair, Reason, Rejection, Vitality, parse_pair},
    journal::Prepared,
    store::{Attempt, AttemptRow, ChainState, Committed, Ending, HandOut, NewAttempt, Store, StoreError, TokenView},
};

/// After a definite refusal to make a missing chain, the token lives on the other alone for so long.
const NO_HEAL_FOR: Duration = Duration::from_secs(3600);

/// Postgres itself ends a statement before that: if it has not answered by then, it is gone, and another is asked.
const LONGEST_COMMIT: Duration = Duration::from_secs(20);

/// A disk that takes longer hangs, maybe until somebody stops this process.
const SAVED_WITHIN: Duration = Duration::from_secs(5);

/// Longer than that nobody waits, with a pair in hand, to learn whether the one who asked for it may have it still.
const LET_IN_BY: Duration = Duration::from_millis(250);

/// After a commit, until other replicas are told: of all that were committed meanwhile together.
const TOLD_AFTER: Duration = Duration::from_millis(3);

/// Refuses what was sealed with a closed data key (migration `keys`).
const SEALED_BY_OPEN_KEY: &str = "sealed_by_open_key";

impl Broker {
    /// Runs a plan to its end. Call it from a tracked task: nothing may cancel it half-way.
    ///
    /// # Errors
    /// Before the call: nothing was spent. After it: the pair is in the journal, or on its way there, and is committed from there within a minute, or by the next start.
    pub(super) async fn obtain(&self, plan: Plan<'_>, actor: &Actor) -> Result<Ended, BrokerError> {
        let mut in_hand = InHand::new(self, Uuid::now_v7());
        let ended = self.obtain_in_hand(plan, in_hand.attempt, actor).await;
        in_hand.ended = ended.is_ok();
        ended
    }

    async fn obtain_in_hand(&self, plan: Plan<'_>, attempt: Uuid, actor: &Actor) -> Result<Ended, BrokerError> {
        let view = plan.view;
        let instance = self.jfrog.instance(Some(&view.instance)).ok_or_else(|| unknown_instance(view))?;
        // Everything that can fail cheaply comes first: never spend before you can save.
        self.not_frozen()?;
        let entry_key = self.keys.journal_key().await?;
        let sealing_key = self.keys.sealing_key(&self.store, view.team_id).await?;

        let monotonic = Instant::now();
        let new = NewAttempt {
            id: attempt,
            team_id: view.team_id,
            token_id: view.id,
            chain_id: plan.chain.id,
            kind: plan.kind,
            seen_generation: plan.chain.generation,
            respect_rotatable_at: plan.respect_rotatable_at,
            lease: self.timing.lease,
            replica: self.replica,
            asked: plan.asked.clone(),
            master_key: Some(entry_key.wrapped.master_key_id.clone()),
        };
        fault::point(Point::BeforeBegin).await;
        let Some(attempt) = self.store_for(actor).begin_attempt(&new, actor).await? else {
            self.keys.still_wraps(&self.store).await?;
            return Ok(Ended::NotBegun);
        };
        fault::point(Point::Begun).await;
        let entry = match self.prepare_entry(&attempt, &entry_key, actor).await {
            Ok(entry) => entry,
            Err(error) => {
                let why = Some(("journal-unavailable", "the journal directory cannot be written".to_owned()));
                self.end(attempt, Ending { chain_state: None, error: why, keep_lease: false, no_heal_for: None }, actor).await;
                return Err(error.into());
            }
        };

        fault::point(Point::Prepared).await;
        let mut outcome = Outcome::NotSent("no credential is left to call JFrog with".to_owned());
        for bearer in &plan.bearers {
            // A process that was stalled until now must not send: by the lease's end its answer would be late.
            if monotonic.elapsed() + self.timing.jfrog_timeout >= self.timing.lease {
                if matches!(outcome, Outcome::NotSent(_)) {
                    outcome = Outcome::NotSent("this replica was stalled before the call".to_owned());
                }
                break;
            }
            outcome = match &plan.call {
                Call::Create(request) => self.jfrog.create(instance, bearer, request).await,
                Call::Refresh(token) => self.jfrog.refresh(instance, bearer, token, view.include_reference_token).await,
            };
            // Only a definite refusal of the bearer leaves the refresh token unspent and another bearer worth trying.
            if !matches!(&outcome, Outcome::Rejected(rejection) if rejection.reason == Reason::Unauthenticated) {
                break;
            }
        }
        // In an incident JFrog answers 403 to everything: then it has not judged this request.
        if let (Outcome::Rejected(rejection), Some(bearer)) = (&outcome, plan.bearers.last())
            && rejection.reason == Reason::Forbidden
            && !spends(plan.kind)
            && self.jfrog.me(instance, bearer).await != Vitality::Alive
        {
            outcome = Outcome::NotSent(format!("JFrog refuses everything: {}", rejection.message));
        }
        record(&plan, &outcome);
        fault::point(Point::Answered).await;
        match outcome {
            Outcome::Applied(body) => {
                drop(plan.place.take());
                self.keep(&plan, attempt, entry, (&entry_key.key, sealing_key), body, actor).await
            }
            Outcome::NotSent(detail) => self.not_sent(attempt, entry, detail, actor).await,
            Outcome::Rejected(rejection) => {
                entry.discard();
                self.end(attempt, rejected(plan.kind, &rejection), actor).await;
                Ok(Ended::Rejected(rejection))
            }
            Outcome::Unknown(detail) => {
                entry.discard();
                self.end(attempt, unknown(plan.kind, detail.clone()), actor).await;
                Ok(Ended::Unknown(detail))
            }
        }
    }

    /// Journal before parsing; commit before anyone is answered.
    async fn keep(
        &self,
        plan: &Plan<'_>,
        attempt: Attempt,
        mut entry: Prepared,
        (entry_key, sealing_key): (&Key, Arc<Key>),
        body: Zeroizing<Vec<u8>>,
        actor: &Actor,
    ) -> Result<Ended, BrokerError> {
        let view = plan.view;
        let sealed = entry_key.seal(entry_place(&attempt, &entry_column(&attempt)), &body);
        let saved = tokio::time::timeout(SAVED_WITHIN, async {
            fault::point(Point::Saving).await;
            entry.save(&sealed).await
        });
        // A disk that fails or hangs now leaves the pair in memory: it must reach Postgres all the more. What is written late is found
        // to be there already.
        if let Err(error) = saved.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            tracing::error!(%error, "the journal could not keep a pair");
        }
        fault::point(Point::Journaled).await;
        let pair = match parse_pair(&body) {
            Ok(pair) => pair,
            Err(error) => {
                set_aside(entry).await;
                let ending = unknown(&attempt.kind, error.to_string());
                self.end(attempt, ending, actor).await;
                return Ok(Ended::Unknown(error.to_string()));
            }
        };
        if pair.refresh_token.is_none() {
            return self.not_refreshable(view, attempt, entry, &pair, actor).await;
        }
        let too_late = self.came_too_late(view, &attempt, &pair).await;
        let committed = if too_late {
            Committed::Superseded
        } else {
            let (wanted, began) = (self.still_wanted(plan).await, Instant::now());
            let (committed, handed) = self.commit(self.store_for(actor), &attempt, &pair, wanted, sealing_key, actor).await?;
            if let Some((wanted, handed)) = wanted.and_then(Weak::upgrade).zip(handed) {
                wanted.put(began, handed);
            }
            committed
        };
        fault::point(Point::Committed).await;
        entry.committed();
        fault::point(Point::Marked).await;
        if committed != Committed::Yes {
            if !too_late {
                self.give_back(view, &pair).await;
            }
            return Ok(Ended::Superseded);
        }
        Ok(Ended::Committed)
    }

    /// Who waited is let in anew before anything is handed out.
    async fn still_wanted<'a>(&self, plan: &Plan<'a>) -> Option<&'a Weak<Wanted>> {
        let caller = Arc::clone(&plan.wanted?.upgrade()?.caller);
        let holds = tokio::time::timeout(LET_IN_BY, self.authentication.still_holds(&caller)).await;
        plan.wanted.filter(|_| matches!(holds, Ok(Ok(true))))
    }

    /// A stalled owner may wake up after the sweep: a pair that was made beside the one that is there was an orphan meanwhile, and
    /// what is there must not be given up for a dead one.
    async fn came_too_late(&self, view: &TokenView, attempt: &Attempt, pair: &Pair) -> bool {
        if spends(&attempt.kind) {
            return false;
        }
        // While Postgres is away nobody sweeps either: the commit waits for it.
        let Ok(now) = self.store.token_by_id(view.team_id, view.id).await else { return false };
        let ours = |there: &AttemptRow| there.id == attempt.id && there.live;
        !now.and_then(|now| now.attempt).as_ref().is_some_and(ours) && self.is_dead(view, pair).await
    }

    /// Commits a pair onto the generation it was spent from, as often as it takes until Postgres has it; and hands it out, if somebody
    /// waits for it and it is good enough. If the answer to that is lost, it is handed out once more, and audited twice.
    pub(super) async fn commit(
        &self,
        store: &Store,
        attempt: &Attempt,
        pair: &Pair,
        wanted: Option<&Weak<Wanted>>,
        mut key: Arc<Key>,
        actor: &Actor,
    ) -> Result<(Committed, Option<HandOut>), BrokerError> {
        loop {
            let sealed = seal_pair(attempt, pair, &key)?;
            let patience = ExponentialBuilder::default().with_max_delay(Duration::from_secs(2)).without_max_times().with_jitter();
            let commit = async || {
                // Who has given up meanwhile is handed nothing.
                let wanted = wanted.and_then(Weak::upgrade).map(|wanted| wanted.rule.clone());
                store.ended_by(LONGEST_COMMIT, store.commit_pair(attempt, &sealed, wanted, actor)).await
            };
            match commit.retry(patience).when(|error| matches!(error, StoreError::Unavailable(_))).await {
                // This took so long that the key was closed meanwhile: the pair is sealed with the one that took its place.
                Err(StoreError::InUse(constraint)) if constraint == SEALED_BY_OPEN_KEY => {
                    self.keys.look_again(attempt.team_id).await;
                    let current = self.keys.sealing_key(&self.store, attempt.team_id).await?;
                    if current.id() == key.id() {
                        return Err(StoreError::InUse(constraint).into());
                    }
                    tracing::warn!(old = key.id(), new = current.id(), "a pair is sealed anew: its data key was closed");
                    key = current;
                }
                other => {
                    let committed = other?;
                    if committed.0 == Committed::Yes {
                        let (store, token) = (store.clone(), attempt.token_id);
                        // Those who wait here are answered first. Nobody waits for it: who misses the signal looks again.
                        self.spawn(async move {
                            tokio::time::sleep(TOLD_AFTER).await;
                            drop(store.tell(token).await);
                        });
                    }
                    return Ok(committed);
                }
            }
        }
    }

    async fn not_sent(&self, attempt: Attempt, entry: Prepared, detail: String, actor: &Actor) -> Result<Ended, BrokerError> {
        entry.discard();
        let error = Some(("jfrog-unavailable", detail.clone()));
        self.end(attempt, Ending { chain_state: None, error, keep_lease: false, no_heal_for: None }, actor).await;
        Ok(Ended::NotSent(detail))
    }

    /// A pair without a refresh token. From a create it is of no use and is given back; from a rotation it means that the old
    /// refresh token is gone and the answer must be kept for a person to look at.
    async fn not_refreshable(
        &self,
        view: &TokenView,
        attempt: Attempt,
        entry: Prepared,
        pair: &Pair,
        actor: &Actor,
    ) -> Result<Ended, BrokerError> {
        let detail = "JFrog's answer holds no refresh token".to_owned();
        if spends(&attempt.kind) {
            set_aside(entry).await;
            let ending = unknown(&attempt.kind, detail.clone());
            self.end(attempt, ending, actor).await;
            return Ok(Ended::Unknown(detail));
        }
        self.revoke_with_itself(view, pair).await;
        entry.discard();
        let error = Some(("not-refreshable", detail));
        let ending = Ending { chain_state: None, error, keep_lease: false, no_heal_for: Some(NO_HEAL_FOR) };
        self.end(attempt, ending, actor).await;
        Ok(Ended::NotRefreshable)
    }

    /// Ends an attempt. If Postgres does not take it, the lease runs out and recovery ends it.
    pub(super) async fn end(&self, attempt: Attempt, ending: Ending, actor: &Actor) {
        if let Err(error) = self.store.end_attempt(attempt, &ending, actor).await {
            tracing::warn!(%error, "an attempt could not be ended; its lease runs out");
        }
    }
}

pub(super) fn unknown_instance(view: &TokenView) -> BrokerError {
    BrokerError::UnknownInstance(view.instance.clone())
}

/// Whether this kind of attempt sends a refresh token.
pub(super) fn spends(kind: &str) -> bool {
    matches!(kind, "rotate" | "settle")
}

fn rejected(kind: &str, rejection: &Rejection) -> Ending {
    let detail = format!("JFrog answered {}: {}", rejection.status, rejection.message);
    let (chain_state, word) = match rejection.reason {
        // It was spent, or revoked: this chain will never rotate again. Everything else leaves it as it was.
        Reason::RefreshTokenUnknown if spends(kind) => (Some(ChainState::Lost), "refresh-token-unknown"),
        Reason::RefreshTokenUnknown | Reason::BadRequest => (None, "jfrog-refused"),
        // Another's token was refused, not ours: it locks nobody out of the chains.
        Reason::Unauthenticated if matches!(kind, "create" | "recreate") => (None, "identity-token-rejected"),
        Reason::Unauthenticated => (None, "jfrog-unauthenticated"),
        Reason::Forbidden => (None, "jfrog-forbidden"),
        Reason::RateLimited => (None, "jfrog-rate-limited"),
    };
    let refused_to_make = !spends(kind) && rejection.is_final();
    Ending { chain_state, error: Some((word, detail)), keep_lease: false, no_heal_for: refused_to_make.then_some(NO_HEAL_FOR) }
}

fn unknown(kind: &str, detail: String) -> Ending {
    // The request may still be running at JFrog: nobody touches the token before the lease is over.
    let chain_state = spends(kind).then_some(ChainState::Uncertain);
    Ending { chain_state, error: Some(("outcome-unknown", detail)), keep_lease: true, no_heal_for: None }
}

fn record(plan: &Plan<'_>, outcome: &Outcome) {
    let (outcome, detail) = match outcome {
        Outcome::Applied(_) => ("applied", ""),
        Outcome::NotSent(detail) => ("not_sent", detail.as_str()),
        Outcome::Rejected(rejection) => ("rejected", rejection.message.as_str()),
        Outcome::Unknown(detail) => ("unknown", detail.as_str()),
    };
    let (token, chain, kind) = (&plan.view.name, plan.chain.letter.as_str(), plan.kind);
    tracing::info!(%token, team = %plan.view.team_id, chain, kind, outcome, detail, "called JFrog");
    counter!("token_broker_jfrog_calls_total", "kind" => kind, "outcome" => outcome).increment(1);
}
