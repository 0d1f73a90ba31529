//! The background worker: takes due jobs, one `match` for all kinds; and compares the journal with Postgres whenever Postgres
//! has been away.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        broadcast::{self, error::RecvError},
    },
    time::MissedTickBehavior,
};

use super::{Broker, BrokerError, report::REPORT, rotate::unknown_instance, settle::Settled};
use crate::store::{Job, JobKind, Lane, Signals, TokenView};

/// Jobs with tokens that run at once: what is due all at once must not flood JFrog.
pub(super) const JOBS_AT_ONCE: usize = 80;
/// Taken in one turn: the rest is for the other replicas.
const JOBS_A_TURN: usize = 16;
/// Places that must be free before more is taken between two turns: a question for each would be one to Postgres for each job.
const WORTH_ASKING: usize = 4;
/// Of these, jobs with one instance of JFrog.
pub(super) const JOBS_PER_INSTANCE: usize = 48;
/// Of these, those that may be calling JFrog for a pair: the others are on their way to it, so that its places do not stand empty.
pub(super) const CALLS_PER_INSTANCE: usize = 32;
/// Errands that run at once, and notices.
pub(super) const ERRANDS_AT_ONCE: usize = 16;
/// When an instance's places are all taken.
const NO_ROOM: Duration = Duration::from_secs(5);
/// After a check of wrapped keys that broke off.
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// After one that found some that do not open.
const DAMAGED_AGAIN: Duration = Duration::from_secs(600);
/// How often pending entries that nobody has in hand are looked at.
const TEND_JOURNAL: Duration = Duration::from_secs(60);

impl Broker {
    /// Works until the shutdown.
    pub(super) async fn work(&self, mut signals: broadcast::Receiver<Signals>) {
        let every = |period| {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        // Made once: a timer made anew at each turn would never ring while signals keep coming.
        let (mut jobs, mut journal, mut report) = (every(self.timing.poll), every(TEND_JOURNAL), every(REPORT));
        // The start has just told.
        report.reset();
        let mut keys = every(self.keys.keep_every());
        let (mut connected, mut more) = (false, false);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = jobs.tick() => {
                    self.crowded.store(false, Ordering::Relaxed);
                    for (lane, places) in &self.job_rooms {
                        let filled = self.take_jobs(*lane, places).await;
                        more = if *lane == Lane::Tokens { filled } else { more };
                    }
                }
                // Where an instance's places are all taken, what is due with it would only be taken and put off, over and over.
                () = self.place_free.notified(), if more && !self.crowded.load(Ordering::Relaxed) => {
                    if self.free_places() >= WORTH_ASKING {
                        more = self.take_jobs(Lane::Tokens, &self.job_rooms[0].1).await;
                    }
                }
                () = self.left_behind.notified() => self.in_background(|broker| async move { broker.tend_journal().await }),
                _ = journal.tick() => self.in_background(|broker| async move { broker.tend_journal().await }),
                _ = keys.tick() => self.keys.keep_journal_key().await,
                _ = report.tick() => self.in_background(|broker| async move { broker.report().await }),
                signal = signals.recv() => match signal {
                    // Signals that were missed may have been a reconnect.
                    Ok(Signals::Connected) | Err(RecvError::Lagged(_)) => {
                        // The first one is the start, whose journal was compared before it was ready.
                        if std::mem::replace(&mut connected, true) {
                            *self.reconnected.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                            self.in_background(|broker| async move { broker.report().await });
                            self.in_background(|broker| async move { broker.replay_to_the_end().await });
                        }
                    }
                    Ok(Signals::Token(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Opens what key services wrapped, once; and again while something is amiss.
    pub(super) async fn check_wrapped_keys(&self) {
        loop {
            let again = match self.keys.check_elsewhere(&self.store).await {
                Ok(false) => return,
                Ok(true) => DAMAGED_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "not every wrapped key could be checked; they are tried again");
                    CHECK_AGAIN
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    fn in_background<F: Future<Output = Result<(), BrokerError>> + Send + 'static>(&self, work: impl FnOnce(Broker) -> F) {
        let work = work(self.clone());
        self.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(%error, "the journal could not be compared with Postgres, or reported");
            }
        });
    }

    /// Places for jobs with tokens: of the instance that has the most, as nobody knows yet whose jobs are due.
    fn free_places(&self) -> usize {
        let free = || self.instance_room.values().map(|room| room.available_permits());
        let at_jfrog: usize = free().map(|free| JOBS_PER_INSTANCE - free).sum();
        let on_their_way = (JOBS_AT_ONCE - self.job_rooms[0].1.available_permits()).saturating_sub(at_jfrog);
        free().max().unwrap_or(0).saturating_sub(on_their_way)
    }

    /// Takes what is due, and says whether more may be.
    async fn take_jobs(&self, lane: Lane, places: &Arc<Semaphore>) -> bool {
        let most = if lane == Lane::Tokens { self.free_places().min(JOBS_A_TURN) } else { JOBS_A_TURN };
        let room = places.available_permits().min(most);
        if room == 0 {
            return true;
        }
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let hold = self.timing.lease;
        // This loop also hears that Postgres came back: it must not hang on a connection to one that is gone.
        let jobs = match self.store.promptly(move |store| async move { store.take_jobs(lane, limit, hold).await }).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(%error, "due jobs could not be read");
                return false;
            }
        };
        let filled = jobs.len() == room;
        for job in jobs {
            let broker = self.clone();
            // Only this loop takes permits, and it took no more jobs than there were.
            let permit = Arc::clone(places).acquire_owned().await;
            self.spawn(async move {
                if let Err(error) = broker.run_job(&job).await {
                    // It becomes due again by itself when its hold is over.
                    tracing::warn!(%error, ?job, "a job failed");
                }
                drop(permit);
                broker.place_free.notify_one();
            });
        }
        filled
    }

    /// Does a job of the lane of tokens.
    async fn with_token(
        &self,
        job: &Job,
        work: impl AsyncFnOnce(TokenView) -> Result<Settled, BrokerError>,
    ) -> Result<Settled, BrokerError> {
        let view = match job.team_id {
            Some(team) => self.background.token_by_id(team, job.subject).await?,
            None => None,
        };
        let Some(view) = view else { return Ok(Settled::Done) };
        // One instance that hangs must not take the places of the others' jobs. One that is not configured any more has none.
        let room = self.instance_room.get(&view.instance).map(|room| room.try_acquire());
        let Some(Ok(_room)) = room else {
            self.crowded.store(true, Ordering::Relaxed);
            return Ok(Settled::Later(NO_ROOM));
        };
        work(view).await
    }

    async fn settle_in_place(&self, view: TokenView) -> Result<Settled, BrokerError> {
        match self.place(view).await? {
            Some((_place, view)) => self.settle(view).await,
            None => Ok(Settled::Done),
        }
    }

    /// A place for calls to the token's instance, and the token as it is then. `None`: it is gone meanwhile. A job that waits for longer
    /// than its hold may run beside another replica's: both are the same attempt, or one of them finds nothing to do.
    pub(super) async fn place(&self, view: TokenView) -> Result<Option<(OwnedSemaphorePermit, TokenView)>, BrokerError> {
        let room = self.call_room.get(&view.instance).ok_or_else(|| unknown_instance(&view))?;
        if self.stop.is_cancelled() {
            return Err(BrokerError::TaskEnded);
        }
        if let Ok(place) = Arc::clone(room).try_acquire_owned() {
            return Ok(Some((place, view)));
        }
        // No flight is begun while it waits: callers of this token do not wait with it.
        let place = tokio::select! {
            biased;
            // Nothing new is begun: it becomes due again when its hold is over.
            () = self.stop.cancelled() => return Err(BrokerError::TaskEnded),
            place = Arc::clone(room).acquire_owned() => place.map_err(|_| BrokerError::TaskEnded)?,
        };
        Ok(self.background.token_by_id(view.team_id, view.id).await?.map(|view| (place, view)))
    }

    async fn run_job(&self, job: &Job) -> Result<(), BrokerError> {
        let reuse_for = |view: &TokenView| Duration::from_secs(u64::try_from(view.reuse_for).unwrap_or(0));
        let settled = match job.kind {
            JobKind::KeepAlive => self.with_token(job, async |view| self.keep_alive(view).await).await?,
            JobKind::Settle => self.with_token(job, async |view| self.settle_in_place(view).await).await?,
            // These do not wait: one that began after its hold, beside another replica's, would do everything twice.
            JobKind::Sweep => self.with_token(job, async |view| self.sweep(&view, reuse_for(&view)).await).await?,
            JobKind::Revoke => self.with_token(job, async |view| self.revoke_children(view).await).await?,
            JobKind::Renew => self.with_token(job, async |view| self.renew_locked_down(view).await).await?,
            JobKind::Webhook => self.tell(job.subject).await?,
            JobKind::CloseAudit => self.close_audit().await?,
            JobKind::Reseal if job.subject.is_nil() => self.rewrap_all().await?,
            JobKind::Reseal => self.reseal_team(job.subject).await?,
        };
        match settled {
            Settled::Done => self.store.finish_job(job).await?,
            Settled::Later(delay) => self.background.postpone_job(job, delay, 0).await?,
            Settled::Failed => self.background.postpone_job(job, back_off(job), job.failures + 1).await?,
        }
        Ok(())
    }
}

/// Doubles from a minute to an hour.
fn back_off(job: &Job) -> Duration {
    Duration::from_secs(60 << job.failures.clamp(0, 6)).min(Duration::from_secs(3600))
}
