//! Migrations: what the schema is, and bringing a database to it.

use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Result, Store};

/// Migrations, compiled in.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Postgres may just be starting: for so long it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a try.
const AGAIN: Duration = Duration::from_secs(1);
/// `cannot_connect_now`.
const STARTING_UP: &str = "57P03";

/// Applies what is missing of the migrations, under Postgres' advisory lock.
///
/// # Errors
/// The database cannot be reached or a migration fails.
pub async fn migrate(options: PgConnectOptions) -> anyhow::Result<()> {
    // A pool would say of whatever is wrong that it took too long.
    tokio::time::timeout(PATIENCE + AGAIN, reach(&options)).await.context("it does not answer")??;
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_with(options).await?;
    MIGRATOR.run(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Until there is somebody to connect to.
async fn reach(options: &PgConnectOptions) -> sqlx::Result<()> {
    let begun = Instant::now();
    loop {
        match PgConnection::connect_with(options).await {
            Err(error) if is_away(&error) && begun.elapsed() < PATIENCE => {
                tracing::warn!(%error, "Postgres cannot be reached yet");
                tokio::time::sleep(AGAIN).await;
            }
            connected => return connected?.close().await,
        }
    }
}

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().as_deref() == Some(STARTING_UP),
        error => matches!(error, sqlx::Error::Io(_)),
    }
}

impl Store {
    /// Whether the migrations that were applied are those that are compiled in.
    ///
    /// # Errors
    /// Postgres; or there were none.
    pub async fn is_migrated(&self) -> Result<bool> {
        let applied = sqlx::query!("select version, checksum, success from _sqlx_migrations order by version");
        let applied = applied.fetch_all(&self.pool).await?;
        let applied = applied.iter().map(|row| (row.version, row.checksum.as_slice(), row.success));
        Ok(applied.eq(MIGRATOR.iter().map(|ours| (ours.version, &*ours.checksum, true))))
    }
}
