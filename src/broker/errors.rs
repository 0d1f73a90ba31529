//! What the flows can come to, for the one match in `api` that turns it into problems.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    crypto::{MasterKeyError, OpenError},
    identity::Refusal,
    store::StoreError,
};

/// What any flow can run into.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The caller may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal directory.
    #[error("the journal: {0}")]
    Journal(#[from] std::io::Error),
    /// A sealed value did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A master key is missing or wrong.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// A name is in use.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// Another attempt is under way.
    #[error("something else is under way for this token")]
    Busy,
    /// The caller's credential was revoked, or ended, while it waited.
    #[error("the credential was revoked or has ended meanwhile")]
    CredentialGone,
    /// A field of the request.
    #[error("{field}: {message}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Fields of the request, and what is wrong with each.
    #[error("{}", .0.iter().map(|(field, message)| format!("{field}: {message}")).collect::<Vec<_>>().join("; "))]
    InvalidFields(Vec<(String, String)>),
    /// Nothing of the token, or of its team, is handed out.
    #[error("locked down by an admin")]
    LockedDown,
    /// A team that still has tokens.
    #[error("the team still has tokens")]
    TeamInUse,
    /// A master key that cannot be retired.
    #[error("master key {id} is needed by: {}", .needs.join("; "))]
    KeyInUse {
        /// Which.
        id: String,
        /// What needs it.
        needs: Vec<String>,
    },
    /// A master key that not every replica was given.
    #[error("master key {id} is not in the list of the replicas with these journals: {}", .replicas.join(", "))]
    KeyNotEverywhere {
        /// Which.
        id: String,
        /// Their journals.
        replicas: Vec<String>,
    },
    /// A master key that is not the one that wraps.
    #[error("master key {id} is not the first of TOKEN_BROKER_MASTER_KEYS of the replica that was asked: that is {first}")]
    KeyNotFirst {
        /// Which.
        id: String,
        /// The one that is.
        first: String,
    },
    /// A journal whose replica is not away.
    #[error("the replica of journal {0} has reported in the last quarter of an hour")]
    JournalAlive(Uuid),
    /// The registration names an instance that is not configured any more.
    #[error("instance {0} is not configured")]
    UnknownInstance(String),
    /// JFrog could not be asked.
    #[error("JFrog: {detail}")]
    JfrogUnavailable {
        /// For admins.
        detail: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// The database is a copy, or the journal another installation's: nothing is spent, made or revoked.
    #[error("frozen: {0}")]
    Frozen(String),
    /// A task of ours panicked, or was ended by the shutdown.
    #[error("a task of this request ended early")]
    TaskEnded,
}

/// Why nothing was registered (yet).
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// As in any flow.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// JFrog refused the bearer: its words.
    #[error("JFrog refused the token: {0}")]
    BearerRejected(String),
    /// JFrog gave no refresh token.
    #[error("JFrog gave no refresh token")]
    NotRefreshable,
    /// JFrog refused what was asked: its words.
    #[error("JFrog refused the request: {0}")]
    ScopeRefused(String),
    /// JFrog found the request malformed: its words.
    #[error("JFrog found the request invalid: {0}")]
    JfrogInvalid(String),
    /// JFrog does not know the pasted refresh token.
    #[error("JFrog does not know the refresh token: {0}")]
    RefreshTokenUnknown(String),
    /// The outcome of a call is unknown: the registration is finished or given up in the background.
    #[error("JFrog's answer was lost: {0}")]
    Pending(String),
}

impl From<StoreError> for RegisterError {
    fn from(error: StoreError) -> Self {
        Self::Broker(error.into())
    }
}

/// Why nothing was handed out.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// As in any flow.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Postgres was away when the rotation needed it; logged already.
    #[error("Postgres is not available")]
    DatabaseUnavailable,
    /// The rotation failed on our side; logged already.
    #[error("{0}")]
    Failed(String),
    /// Its chains are still being made.
    #[error("the token is being registered")]
    Creating,
    /// A delete is under way.
    #[error("the token is being deleted")]
    Revoked,
    /// No chain works: a person must recreate it.
    #[error("the token is lost: {0}")]
    Lost(String),
    /// JFrog cannot be reached or refuses for now, and nothing usable is left.
    #[error("JFrog is unavailable: {detail}")]
    JfrogUnavailable {
        /// For admins.
        detail: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// A rotation's outcome is unknown, and nothing usable is left.
    #[error("the outcome of a refresh is not known yet")]
    Uncertain,
    /// A rotation takes longer than the caller waits, and nothing usable is left.
    #[error("the refresh is still under way")]
    Pending,
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Broker(error.into())
    }
}
