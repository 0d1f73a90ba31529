//! SQL, one file a table. Every change is one statement, so each commits as a whole or not at all, a cancelled caller leaves
//! no transaction behind (CRATES.md, trap 1), and the team is set in the statement itself: `where (select in_team($1))`. Every
//! part of a statement that scans a team's table says so itself: which part runs first is the planner's choice.

mod api_keys;
mod assurance;
mod attempts;
mod audit;
mod audit_batches;
mod audit_prune;
mod begin_attempt;
mod chains;
mod children;
mod commit_pair;
mod data_keys;
mod gather;
mod hand_out;
mod held;
mod installation;
mod jobs;
mod journals;
mod lockdowns;
mod master_keys;
mod migrate;
mod notify;
mod registrations;
mod revocations;
mod sealed_rows;
mod sessions;
mod teams;
mod token_view;
mod tokens;
mod trust_rules;
mod webhooks;
mod wrapped_keys;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgPool, postgres::PgPoolOptions};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use uuid::Uuid;

use gather::Gather;
use held::Held;

/// Where Postgres is; parsed from a URL.
pub use sqlx::postgres::PgConnectOptions;

pub use api_keys::{ApiKeyRow, NewApiKey, PresentedKeyRow};
pub use assurance::Assurance;
pub use attempts::Ending;
pub use audit::{AuditFilter, AuditRow, Event};
pub use audit_batches::{AuditAhead, AuditBatchRow, AuditText};
pub use audit_prune::{AuditPruning, Prunable};
pub use begin_attempt::{Attempt, NewAttempt};
pub use chains::Lost;
pub use children::{ChildRow, ChildState, IssuedChild, NewChild, NotIssued};
pub use commit_pair::{Committed, NewPair};
pub use data_keys::{DataKeyRow, ListedDataKey, OldDataKey, ResealProgress};
pub use hand_out::{HandOut, HandOutRule};
pub use installation::Installation;
pub use jobs::{Job, JobKind, Lane};
pub use journals::JournalRow;
pub use lockdowns::{LockdownRow, NewLockdown, SessionsRow};
pub use master_keys::MasterKeyRow;
pub use migrate::{MIGRATOR, migrate};
pub use notify::Signals;
pub use registrations::{NewToken, TokenChanges};
pub use revocations::{GivenUp, Told};
pub use sealed_rows::{SealedChain, SealedValue, SingleValued};
pub use sessions::{GrantRow, NewSession, PresentedSessionRow};
pub use teams::TeamRow;
pub use token_view::{AttemptRow, ChainRow, ChainState, Letter, Replaced, TokenState, TokenView};
pub use trust_rules::{Claims, IssuerRuleRow, NewTrustRule, TrustRuleRow};
pub use webhooks::{NewWebhook, Notice, WebhookRow};
pub use wrapped_keys::{Holder, WrappedCount, WrappedKey};

/// How long somebody who waits for Postgres alone waits at most.
const PROMPT: Duration = Duration::from_secs(5);

/// Connections that no hand-out uses; one of them listens.
const KEPT_FREE: usize = 4;

/// Connections for reading the audit, made when it is read: a search through years of it must not keep one from what hands out.
const AUDIT_CONNECTIONS: u32 = 2;

/// To plan a hot statement anew each time takes longer than to run it. It may be planned while its tables are still empty: row by row
/// and by their indexes all the same.
const PLANNED_ONCE: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_memoize", "off"),
    ("jit", "off"),
];

/// How long a connection may take to show that it still works.
const PING: Duration = Duration::from_secs(1);

/// Connections that are made at once: one that was just given back is not at hand yet, and a start would wait for another.
const AT_START: u32 = 2;

/// How long a statement that is in no hurry waits for others: one on the way to JFrog or back, and any other.
const LINGER: Duration = Duration::from_millis(3);
const LONG_LINGER: Duration = Duration::from_millis(20);

/// When Postgres last said that it takes no writes. Connections that were there then are not used again: one that was born
/// read-only stays so when the server has long begun to write again.
static READ_ONLY: Mutex<Option<Instant>> = Mutex::new(None);

/// Postgres, seen through the role that owns nothing.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// Hand-outs that may use a connection at once: a stampede leaves some to what moves tokens on.
    hand_out_room: Arc<Semaphore>,
    hand_outs: Gather<hand_out::Ask, Option<HandOut>>,
    looked_at: Gather<String, Option<TokenView>>,
    looked_up: Gather<Uuid, Option<TokenView>>,
    begun: Gather<begin_attempt::Ask, Option<OffsetDateTime>>,
    committed: Gather<Arc<commit_pair::Ask>, Option<commit_pair::Moved>>,
    told: Gather<Uuid, ()>,
    postponed: Gather<jobs::Postponed, ()>,
    assurance: Arc<Assurance>,
    /// For readings of the audit alone, which are planned for what each looks for.
    audit_pool: PgPool,
}

/// Why a statement did not do what it says.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique constraint: its name.
    #[error("{0} is violated")]
    Taken(String),
    /// A foreign key that still has rows pointing at it.
    #[error("{0} still has rows")]
    InUse(String),
    /// Postgres is away, read-only or out of connections: asking again later may help.
    #[error("Postgres is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Anything else: a defect of ours, or of the data.
    #[error("a statement failed: {0}")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => match database.code().as_deref() {
                Some("25006") => {
                    read_only_seen();
                    Self::Unavailable(error)
                }
                Some("23505") => Self::Taken(database.constraint().unwrap_or_default().to_owned()),
                Some("23503") => Self::InUse(database.constraint().unwrap_or_default().to_owned()),
                // Connection exceptions, insufficient resources, operator intervention, system errors; a server that
                // lets nobody in (28, 3D, 55000); serialization failures, deadlocks and lock time-outs, over when tried again.
                Some(code)
                    if ["08", "28", "3D", "40", "53", "57", "58"].contains(&code.get(..2).unwrap_or_default())
                        || ["55000", "55P03"].contains(&code) =>
                {
                    Self::Unavailable(error)
                }
                _ => Self::Failed(error),
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable(error)
            }
            sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Failed(error),
        }
    }
}

fn read_only_seen() {
    *READ_ONLY.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

fn younger_than_read_only(age: Duration) -> bool {
    READ_ONLY.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|seen| age < seen.elapsed())
}

impl StoreError {
    /// Whether Postgres answered, and so undid, the statement; another of the same kind may be done all the same.
    fn was_undone(&self) -> bool {
        match self {
            Self::Taken(_) | Self::InUse(_) | Self::Failed(sqlx::Error::Database(_)) => true,
            // Serialization failures and deadlocks, which another of the same statement may have brought.
            Self::Unavailable(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code.starts_with("40")),
            Self::Unavailable(_) | Self::Failed(_) => false,
        }
    }

    /// The same for another who waited for the same statement.
    pub fn told_again(&self) -> Self {
        let again = sqlx::Error::Protocol(self.to_string());
        match self {
            Self::Taken(constraint) => Self::Taken(constraint.clone()),
            Self::InUse(constraint) => Self::InUse(constraint.clone()),
            Self::Unavailable(_) => Self::Unavailable(again),
            Self::Failed(_) => Self::Failed(again),
        }
    }
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Connects as the role that owns nothing. The role travels in the connection's first message: no round trip.
    ///
    /// # Errors
    /// The database cannot be reached, or its account may not take the role.
    pub async fn connect(options: PgConnectOptions, connections: u32) -> Result<Self> {
        let options = options.application_name("token-broker").options([
            ("role", "token_broker_app"),
            // Callers are answered after a commit: it must be on disk by then, whatever the database's default is.
            ("synchronous_commit", "on"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("statement_timeout", "15s"),
        ]);
        let planned_once = options.clone().options(PLANNED_ONCE);
        let pools = PgPoolOptions::new()
            .acquire_timeout(PROMPT)
            // A ping before each statement would double the hot path's round trips; one after a pause finds dead sockets.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if !younger_than_read_only(meta.age) {
                        return Ok(false);
                    }
                    if meta.idle_for < Duration::from_secs(1) {
                        return Ok(true);
                    }
                    // An error, unlike `false`, drops it without a farewell: nobody may be there to hear it.
                    tokio::time::timeout(PING, connection.ping()).await.map_err(|_| sqlx::Error::WorkerCrashed)?.map(|()| true)
                })
            });
        let pool = pools.clone().max_connections(connections).connect_lazy_with(planned_once);
        for _ in 1..AT_START.min(connections) {
            let pool = pool.clone();
            tokio::spawn(async move { drop(pool.acquire().await) });
        }
        let audit_pool = pools.max_connections(AUDIT_CONNECTIONS).connect_lazy_with(options);
        // A pooler in between may have dropped the options: then nothing would keep the teams apart.
        let bound = sqlx::query_scalar!(
            r#"select current_user = 'token_broker_app' and row_security_active('tokens')
                      and current_setting('synchronous_commit') = 'on' as "bound!""#
        );
        if !bound.fetch_one(&pool).await? {
            let why = "the connection does not take the role token_broker_app: does a pooler drop the start-up options?";
            return Err(StoreError::Failed(sqlx::Error::Protocol(why.into())));
        }
        let hand_outs = usize::try_from(connections).unwrap_or(usize::MAX).saturating_sub(KEPT_FREE).max(1);
        Ok(Self {
            pool,
            audit_pool,
            hand_out_room: Arc::new(Semaphore::new(hand_outs)),
            hand_outs: Gather::default(),
            looked_at: Gather::default(),
            looked_up: Gather::default(),
            begun: Gather::default(),
            committed: Gather::default(),
            told: Gather::default(),
            postponed: Gather::default(),
            assurance: Arc::default(),
        })
    }

    /// The same for work that nobody waits for: its statements wait for one another, so that many share one.
    pub fn unhurried(&self) -> Self {
        Self {
            looked_up: Gather::lingering(LINGER),
            begun: Gather::lingering(LINGER),
            committed: Gather::lingering(LINGER),
            told: Gather::lingering(LONG_LINGER),
            postponed: Gather::lingering(LONG_LINGER),
            ..self.clone()
        }
    }

    /// A connection for statements that are gathered.
    fn held(&self) -> Held {
        if self.begun.lingers() { Held::unhurried(&self.pool) } else { Held::of(&self.pool) }
    }

    /// Whether Postgres answers and would take a write.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        let read_only = sqlx::query_scalar!(r#"select current_setting('transaction_read_only') = 'on' as "ro!""#);
        match read_only.fetch_one(&self.pool).await? {
            false => Ok(()),
            true => {
                read_only_seen();
                Err(StoreError::Unavailable(sqlx::Error::Protocol("Postgres is read-only".into())))
            }
        }
    }

    /// Does something that somebody waits for, who is not kept by a Postgres that went away without a word: that it did, only the
    /// kernel notices, after many minutes. It goes on in a task: nothing cancels a statement half-way.
    ///
    /// # Errors
    /// Its own; or Postgres took too long.
    pub async fn promptly<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match tokio::time::timeout(PROMPT, tokio::spawn(work(self.clone()))).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Gives up a statement whose server is gone. Only where the outcome is found out afterwards.
    ///
    /// # Errors
    /// Its own; or it took too long.
    pub async fn ended_by<T>(&self, limit: Duration, statement: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::time::timeout(limit, statement).await;
        done.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
    }

    /// What the listening connection vouches for.
    pub fn assurance(&self) -> &Assurance {
        &self.assurance
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.audit_pool.close().await;
        self.pool.close().await;
    }
}
