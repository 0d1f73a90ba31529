//! What a call that makes a pair is to do, for whom, and what it came to.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    identity::Caller,
    jfrog::{Bearer, CreateRequest, Rejection},
    names::Asked,
    secret::RefreshToken,
    store::{ChainRow, HandOut, HandOutRule, TokenView},
};

/// What is to be sent to JFrog.
pub(super) enum Call {
    /// Spends this refresh token.
    Refresh(RefreshToken),
    /// Makes a new pair.
    Create(CreateRequest),
}

/// A call that makes a pair for one chain.
pub(super) struct Plan<'a> {
    pub view: &'a TokenView,
    pub chain: &'a ChainRow,
    /// `create`, `rotate`, `heal`, `settle` or `recreate`.
    pub kind: &'static str,
    pub call: Call,
    /// Tried in turn, the next only after a definite 401.
    pub bearers: Vec<Bearer>,
    /// Whether `rotatable_at` must have passed.
    pub respect_rotatable_at: bool,
    /// What is asked differently from now on.
    pub asked: Asked,
    /// Who is handed the pair by the statement that commits it, if still waiting then.
    pub wanted: Option<&'a Weak<Wanted>>,
    /// A job's place among the calls to this instance: it is the next one's as soon as JFrog has answered with a pair.
    pub place: &'a mut Option<OwnedSemaphorePermit>,
}

/// A caller who is handed a pair by the statement that commits it, if it is good enough: its audit row costs no commit of its own.
#[derive(Debug)]
pub(super) struct Wanted {
    pub caller: Arc<Caller>,
    pub rule: HandOutRule,
    handed: Mutex<Option<(Instant, HandOut)>>,
}

impl Wanted {
    /// By this caller, if it meets this rule.
    pub(super) fn by(caller: Arc<Caller>, rule: HandOutRule) -> Self {
        Self { caller, rule, handed: Mutex::default() }
    }

    /// What was handed out by a statement that began then.
    pub(super) fn put(&self, began: Instant, handed: HandOut) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = Some((began, handed));
    }

    /// What was handed out, once, and since when it is known that it may be.
    pub(super) fn take(&self) -> Option<(Instant, HandOut)> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What it came to.
#[derive(Debug)]
pub(super) enum Ended {
    /// Postgres has the pair.
    Committed,
    /// Another attempt is there, or the chain has moved on, or rotation is not due: look again.
    NotBegun,
    /// Nothing reached JFrog.
    NotSent(String),
    /// JFrog refused, and nothing was spent (but for an unknown refresh token: then the chain is lost).
    Rejected(Rejection),
    /// JFrog gave a pair without a refresh token; it was given back.
    NotRefreshable,
    /// Nobody knows; the lease runs out, then the outcome is found out.
    Unknown(String),
    /// The registration went away, or another pair was committed meanwhile; this one was given back.
    Superseded,
}
