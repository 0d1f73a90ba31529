//! `token-broker audit prune`: removing old events.

use anyhow::{Context, bail, ensure};
use clap::Args;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    actor::Actor,
    broker::AuditChain,
    config::DatabaseOptions,
    store::{AuditPruning, Store},
};

#[derive(Args)]
pub(in crate::cli) struct PruneOptions {
    /// Events of batches that were closed before this time are removed, as `2026-01-31T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| OffsetDateTime::parse(text, &Rfc3339))]
    before: OffsetDateTime,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// With the account that owns the tables: the service's role may not remove a row.
pub(super) async fn run(options: &PruneOptions) -> anyhow::Result<()> {
    let database = options.database.read()?;
    let store = Store::connect(database.connect, 1).await.context("DATABASE_URL: connecting as token_broker_app")?;
    let owner = AuditPruning::connect(database.migrate).await.context("TOKEN_BROKER_MIGRATE_DATABASE_URL: connecting")?;
    let actor = Actor { name: "command-line".to_owned(), ..Actor::system() };
    let done = AuditChain::new(&store, &database.master_keys).prune(options.before, &owner, &actor).await;
    store.close().await;
    owner.close().await;
    let done = done.context("pruning with the account of TOKEN_BROKER_MIGRATE_DATABASE_URL")?;
    println!("removed {} events of {} batches", done.events, done.batches);
    if let Some(finding) = done.finding {
        bail!("{finding}: what is left is evidence, and is not pruned");
    }
    ensure!(!done.unseen, "the account of TOKEN_BROKER_MIGRATE_DATABASE_URL does not see all events: does it own the tables?");
    Ok(())
}
