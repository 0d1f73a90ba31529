//! One `listen` connection a process: it wakes callers who wait for another replica, and tells when Postgres came back.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Store;

/// What the connection tells.
#[derive(Clone, Debug)]
pub enum Signals {
    /// The token changed hands: a rotation was committed, or an attempt ended.
    Token(Uuid),
    /// The connection is (back) up: signals may have been missed, and a failover may have lost its last seconds.
    Connected,
}

/// How long the connection may say nothing before it is asked whether it still works, and how long it may take to say so.
const QUIET: Duration = Duration::from_secs(5);

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
        if listener.listen("token_broker").await.is_err() {
            return;
        }
        // No receiver is no error: nobody waits.
        drop(signals.send(Signals::Connected));
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    if let Ok(id) = notification.payload().parse() {
                        drop(signals.send(Signals::Token(id)));
                    }
                }
                Ok(_) => return,
                // A server that died without a word looks like one that has nothing to say: it is asked.
                Err(_) => match tokio::time::timeout(QUIET, sqlx::query("select 1").execute(&mut listener)).await {
                    Ok(Ok(_)) => {}
                    _ => return,
                },
            }
        }
    }
}
