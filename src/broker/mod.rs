//! The flows, each a function that reads from top to bottom. Read `rotate.rs` first.

mod audit;
mod audit_chain;
mod children;
mod copy;
mod create;
mod delete;
mod doubt;
mod encryption_keys;
mod entry;
mod errors;
mod everywhere;
mod give_back;
mod heal;
mod import;
mod issue;
mod join;
mod keep_alive;
mod keys;
mod lockdown;
mod marker;
mod narrow;
mod page;
mod plan;
mod platform;
mod recreate;
mod refresh;
mod rejected;
mod replay;
mod report;
mod reseal;
mod revoke_handed_out;
mod rewrap;
mod rotate;
mod sealing;
mod sessions;
mod settle;
mod sweep;
mod tokens;
mod trust_rules;
mod webhooks;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use moka::future::Cache;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use audit_chain::{AuditChain, Closed, Pruned, Verified, newest_checkpoint};
pub use copy::{Recognised, recognise};
pub use create::{CreateToken, Settings as TokenSettings};
pub use encryption_keys::{KeyStatus, MasterKeyState, MasterKeyStatus};
pub use errors::{BrokerError, RefreshError, RegisterError};
pub use import::ImportToken;
pub use issue::{IssueChild, IssueError, Issued};
pub use keys::Keys;
pub use lockdown::{Hit, Lockdown, Scope};
pub use platform::NewKey;
pub use recreate::RecreateToken;
pub use refresh::{Ask, HandedOut, Warning};
pub use report::report_journal;
pub use reseal::Resealed;
pub use revoke_handed_out::RevokedHandedOut;
pub use rewrap::Rewrapped;
pub use sessions::Begun;
pub use trust_rules::{ExplainOf, Explained, Explanation, TrustRule};
pub use webhooks::WEBHOOK_EVENTS;

use crate::{
    actor::Actor,
    identity::Authentication,
    jfrog::Jfrog,
    journal::Journal,
    outbound::{Courier, Destination},
    store::{JobKind, Lane, Signals, Store},
};

/// JFrog is not asked more often whether a token that callers say is refused is dead.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Times the flows keep to.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Total time of one call to JFrog.
    pub jfrog_timeout: Duration,
    /// How long an attempt stands before another replica may recover it; at least 1.5 × the timeout.
    pub lease: Duration,
    /// How often the worker looks for due jobs, and waiting callers for what they may have missed.
    pub poll: Duration,
}

/// Whom the flows talk to over the network, besides Postgres and issuers.
#[derive(Debug)]
pub struct Others {
    /// Every configured JFrog.
    pub jfrog: Jfrog,
    /// Teams' webhooks.
    pub courier: Courier,
    /// Where checkpoints of the audit are kept, besides the log.
    pub checkpoints: Option<Destination>,
}

/// The flows over their parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Parts>);

/// What the flows work with.
#[derive(Debug)]
pub struct Parts {
    store: Store,
    /// The same, for what nobody waits for.
    background: Store,
    jfrog: Jfrog,
    courier: Courier,
    checkpoints: Option<Destination>,
    keys: Keys,
    journal: Journal,
    authentication: Authentication,
    timing: Timing,
    recognised: Recognised,
    /// This process, in attempts.
    replica: Uuid,
    joins: Mutex<HashMap<join::Key, join::Flight>>,
    /// Attempts of this process whose journal entry is still being written: replay leaves them alone.
    in_hand: Mutex<HashSet<Uuid>>,
    /// When Postgres came back: its last seconds may be missing until every replica has compared its journal.
    reconnected: Mutex<Option<Instant>>,
    /// Comparisons of the whole journal with Postgres: one goes on, another waits for it.
    comparisons: Semaphore,
    comparing: tokio::sync::Mutex<()>,
    /// Rung when an entry may be pending that no task has in hand any more.
    left_behind: Notify,
    signals: broadcast::Sender<Signals>,
    /// Access tokens (JFrog's ids) that callers say are refused, and whether JFrog said lately that they are dead.
    looked_into: Cache<String, bool>,
    /// Jobs of each lane that may run at once.
    job_rooms: [(Lane, Arc<Semaphore>); 3],
    /// Rung when a job has ended.
    place_free: Notify,
    /// Whether a job was put off since the worker's last turn, because its instance's places were all taken.
    crowded: AtomicBool,
    /// Of those with tokens, with each instance of JFrog.
    instance_room: HashMap<String, Arc<Semaphore>>,
    /// Calls for a pair that nobody waits for, to each instance at once.
    call_room: HashMap<String, Arc<Semaphore>>,
    /// Child tokens that are asked of each instance at once.
    issue_room: HashMap<String, Arc<Semaphore>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::ops::Deref for Broker {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Broker {
    /// Wires the flows. Nothing runs before [`Broker::start`].
    pub fn new(
        authentication: Authentication,
        store: Store,
        Others { jfrog, courier, checkpoints }: Others,
        keys: Keys,
        journal: Journal,
        recognised: Recognised,
        timing: Timing,
    ) -> Self {
        let room = |places| Arc::new(Semaphore::new(places));
        let rooms = |places| jfrog.instances().iter().map(|it| (it.name.clone(), room(places))).collect();
        let (instance_room, call_room) = (rooms(worker::JOBS_PER_INSTANCE), rooms(worker::CALLS_PER_INSTANCE));
        let issue_room = rooms(issue::AT_ONCE);
        Self(Arc::new(Parts {
            authentication,
            background: store.unhurried(),
            store,
            jfrog,
            courier,
            checkpoints,
            keys,
            journal,
            timing,
            recognised,
            replica: Uuid::new_v4(),
            joins: Mutex::default(),
            in_hand: Mutex::default(),
            reconnected: Mutex::default(),
            comparisons: Semaphore::new(2),
            comparing: tokio::sync::Mutex::default(),
            left_behind: Notify::new(),
            signals: broadcast::channel(1024).0,
            looked_into: Cache::builder().max_capacity(10_000).time_to_live(LOOK_AGAIN).build(),
            job_rooms: [
                (Lane::Tokens, room(worker::JOBS_AT_ONCE)),
                (Lane::Notices, room(worker::ERRANDS_AT_ONCE)),
                (Lane::Errands, room(worker::ERRANDS_AT_ONCE)),
            ],
            place_free: Notify::new(),
            crowded: AtomicBool::new(false),
            instance_room,
            call_room,
            issue_room,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Replays the journal, then starts listening and the worker. Ready when it returns.
    ///
    /// # Errors
    /// The journal or Postgres cannot be read.
    pub async fn start(&self) -> Result<(), BrokerError> {
        if self.recognised.frozen.is_none() {
            let scheduled = self.store.schedule(JobKind::CloseAudit, Uuid::nil(), Duration::ZERO);
            let (replayed, scheduled) = tokio::join!(self.replay_journal(), scheduled);
            replayed?;
            scheduled?;
        }
        let (signals, signalled) = (self.signals.clone(), self.signals.subscribe());
        let (listener, worker) = (self.clone(), self.clone());
        self.spawn(async move { listener.store.listen(signals, listener.stop.clone()).await });
        let (authentication, stop) = (self.authentication.clone(), self.stop.clone());
        self.spawn(async move { authentication.keep_fresh(stop).await });
        let checker = self.clone();
        self.spawn(async move { checker.check_wrapped_keys().await });
        if self.recognised.frozen.is_none() {
            // Not before: the disk would keep Postgres from its commits.
            self.journal.make_room();
            self.spawn(async move { worker.work(signalled).await });
        }
        Ok(())
    }

    /// Begins nothing new from now on.
    pub fn wind_down(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Finishes what was begun, within `grace`. Whatever is left then waits in the journal.
    pub async fn stop(&self, grace: Duration) {
        self.wind_down();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("what was begun did not finish in time; the next start recovers it");
        }
        self.store.close().await;
    }

    /// Runs `work` to its end whatever becomes of the caller: a disconnect cancels nothing. A panic is logged by the runtime's
    /// hook and ends this task alone.
    fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }
}

impl Parts {
    /// Who is calling.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// For whom it is done: only callers are in a hurry.
    fn store_for(&self, actor: &Actor) -> &Store {
        if actor.is_system() { &self.background } else { &self.store }
    }

    /// Refuses whatever spends, makes or revokes, where this is a copy.
    fn not_frozen(&self) -> Result<(), BrokerError> {
        self.recognised.frozen.clone().map_or(Ok(()), |why| Err(BrokerError::Frozen(why)))
    }

    /// Whether Postgres answers, the first master key opens its canary, and this is no copy.
    ///
    /// # Errors
    /// The failing part.
    pub async fn ready(&self) -> Result<(), BrokerError> {
        let answers = async { Ok(self.store.promptly(|store| async move { store.ping().await }).await?) };
        tokio::try_join!(answers, self.keys.ready(&self.store))?;
        self.not_frozen()
    }

    /// Entries of the journal that wait for Postgres.
    pub fn journal_backlog(&self) -> usize {
        self.journal.pending().len()
    }

    /// Chains by state over all teams, with the seconds until the first of them expires.
    ///
    /// # Errors
    /// Postgres.
    pub async fn chain_gauges(&self) -> Result<Vec<(String, i64, Option<f64>)>, BrokerError> {
        Ok(self.store.chain_gauges().await?)
    }
}

/// Runs blocking file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
}
