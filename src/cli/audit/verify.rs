//! `token-broker audit verify`: whether what was written is still there as it was.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use crate::{
    audit::Checkpoint,
    broker::{AuditChain, Verified},
    config::DatabaseOptions,
    store::Store,
};

/// Nothing is known to be wrong, and nothing to be right.
const CANNOT_TELL: u8 = 2;

#[derive(Args)]
pub(in crate::cli) struct VerifyOptions {
    /// Checkpoints that were kept elsewhere, one a line: without one, a chain that was cut off or made anew with its key looks whole.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

pub(super) async fn run(options: &VerifyOptions) -> ExitCode {
    match verified(options).await {
        Ok(seen) => {
            println!("{}", if options.json { in_json(&seen) } else { in_words(&seen, options.checkpoint.is_some()) });
            ExitCode::from(u8::from(seen.finding.is_some()))
        }
        Err(error) => {
            eprintln!("token-broker: the audit cannot be verified: {error:#}");
            ExitCode::from(CANNOT_TELL)
        }
    }
}

async fn verified(options: &VerifyOptions) -> anyhow::Result<Verified> {
    let checkpoints = match &options.checkpoint {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("--checkpoint: reading {}", path.display()))?;
            Checkpoint::read(&text).map_err(|why| anyhow!("--checkpoint {}: {why}", path.display()))?
        }
        None => Vec::new(),
    };
    let database = options.database.read()?;
    let store = Store::connect(database.connect, 1).await.context("DATABASE_URL: connecting as token_broker_app")?;
    let seen = AuditChain::new(&store, &database.master_keys).verify(&checkpoints).await;
    store.close().await;
    Ok(seen?)
}

fn in_json(seen: &Verified) -> String {
    json!({
        "whole": seen.finding.is_none(),
        "finding": seen.finding,
        "batches": seen.batches,
        "pruned_batches": seen.pruned,
        "events": seen.events,
        "events_not_closed": seen.unclosed,
        "checkpoint": seen.newest,
    })
    .to_string()
}

fn in_words(seen: &Verified, compared: bool) -> String {
    let counted = format!("{} batches, {} events", seen.batches, seen.events);
    if let Some(finding) = &seen.finding {
        return format!("NOT whole: {finding}\nBefore it: {counted} as they were. What comes after it was not looked at.");
    }
    let mut lines = vec![format!("whole: {counted}")];
    if seen.pruned > 0 {
        lines.push(format!("{} of the batches were pruned: their events were removed on purpose.", seen.pruned));
    }
    if seen.unclosed > 0 {
        lines.push(format!("{} newer rows are not closed yet: of them nothing can be told.", seen.unclosed));
    }
    lines.push(if compared {
        "Up to the checkpoint nothing was cut off or rewritten. What is newer could have been, by who has the chain's key.".into()
    } else {
        "Without --checkpoint it cannot be told whether the newest batches were cut off, or everything was rewritten by who has the chain's key."
            .to_owned()
    });
    lines.join("\n")
}
