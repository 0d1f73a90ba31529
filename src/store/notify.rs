//! One `listen` connection a process: it wakes callers who wait for another replica, tells when Postgres came back, and vouches for
//! what is remembered of who may do what.

use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Result, Store};

/// What the connection tells.
#[derive(Clone, Debug)]
pub enum Signals {
    /// The token changed hands: a rotation was committed, or an attempt ended.
    Token(Uuid),
    /// The connection is (back) up: signals may have been missed, and a failover may have lost its last seconds.
    Connected,
}

/// Where replicas are told what has changed.
const CHANNEL: &str = "token_broker";

/// Keys, sessions or trust rules have changed (migration `access_changes`).
const ACCESS: &str = "access";

/// How often the connection is asked whether it still works: two questions fit into the second that it vouches for.
const ASKED_EVERY: Duration = Duration::from_millis(400);

/// How long it may take to say so. A server that died without a word looks like one that has nothing to say.
const PATIENCE: Duration = Duration::from_secs(5);

impl Store {
    /// Listens until `stop`, connecting again as long as it takes. Late receivers lose signals, never block: they poll as well.
    pub async fn listen(&self, signals: broadcast::Sender<Signals>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.listen_once(&signals) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn listen_once(&self, signals: &broadcast::Sender<Signals>) {
        let Ok(mut listener) = PgListener::connect_with(&self.pool).await else { return };
        let asked = Instant::now();
        if listener.listen(CHANNEL).await.is_err() {
            return;
        }
        self.assurance.begun(asked);
        // No receiver is no error: nobody waits.
        drop(signals.send(Signals::Connected));
        let mut next = tokio::time::Instant::now() + ASKED_EVERY;
        loop {
            match tokio::time::timeout_at(next, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => match notification.payload() {
                    ACCESS => self.assurance.changed(),
                    token => drop(token.parse().map(|id| signals.send(Signals::Token(id)))),
                },
                Ok(_) => return,
                Err(_) => {
                    let asked = Instant::now();
                    match tokio::time::timeout(PATIENCE, sqlx::query("select 1").execute(&mut listener)).await {
                        Ok(Ok(_)) => self.assurance.heard(asked),
                        _ => return,
                    }
                    next = tokio::time::Instant::now() + ASKED_EVERY;
                }
            }
        }
    }

    /// Tells every replica that a token changed hands. Not by the statement that did it: one that tells holds a lock of the whole
    /// server's while it commits, and no two would go to the disk together. Whoever misses it looks again within a second.
    ///
    /// # Errors
    /// Postgres.
    pub async fn tell(&self, token: Uuid) -> Result<()> {
        self.told
            .ask(Uuid::nil(), token, {
                let pool = self.pool.clone();
                move |tokens| {
                    let pool = pool.clone();
                    async move {
                        sqlx::query!("select pg_notify($1, token::text)::text from unnest($2::uuid[]) token", CHANNEL, &tokens)
                            .fetch_all(&pool)
                            .await?;
                        Ok(vec![(); tokens.len()])
                    }
                }
            })
            .await
    }
}
