//! `token-broker audit checkpoint`: the end of the chain, to be kept elsewhere.

use anyhow::Context;
use clap::Args;

use crate::{broker::newest_checkpoint, config::ConnectOptions, store::Store};

#[derive(Args)]
pub(in crate::cli) struct CheckpointOptions {
    #[command(flatten)]
    database: ConnectOptions,
}

pub(super) async fn run(options: &CheckpointOptions) -> anyhow::Result<()> {
    let store = Store::connect(options.database.read()?, 1).await.context("DATABASE_URL: connecting as token_broker_app")?;
    let newest = newest_checkpoint(&store).await.context("reading the chain");
    store.close().await;
    println!("{}", serde_json::to_string(&newest?.context("no batch is closed yet: the running service closes one a minute")?)?);
    Ok(())
}
