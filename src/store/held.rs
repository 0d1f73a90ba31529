//! A connection that statements have one after the other: each time one is given back to the pool it is tried, which Postgres wakes for.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use super::Result;

/// The connection of one turn of a [`Gather`](super::gather::Gather).
#[derive(Clone, Debug)]
pub(super) struct Held {
    pool: PgPool,
    /// Whether it is used again at once.
    kept: bool,
    connection: Arc<Mutex<Option<PoolConnection<Postgres>>>>,
}

impl Held {
    /// None yet.
    pub(super) fn of(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), kept: true, connection: Arc::default() }
    }

    /// One that goes back each time: between two statements others come first.
    pub(super) fn unhurried(pool: &PgPool) -> Self {
        Self { kept: false, ..Self::of(pool) }
    }

    /// The one that was kept, or one of the pool's. Whoever does not keep it, for an error or because nobody waits any more, gives it
    /// back to the pool.
    pub(super) async fn take(&self) -> Result<PoolConnection<Postgres>> {
        let kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(connection) => Ok(connection),
            None => Ok(self.pool.acquire().await?),
        }
    }

    /// Before something else is waited for.
    pub(super) fn give_back(&self) {
        drop(self.connection.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// For the next statement, unless somebody else may wait for a connection.
    pub(super) fn keep(&self, connection: PoolConnection<Postgres>) {
        if self.kept && (self.pool.num_idle() > 0 || self.pool.size() < self.pool.options().get_max_connections()) {
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
    }
}
