//! `token-broker audit find`: who was handed an access token.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, bail, ensure};
use clap::Args;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::{
    api::AuditEvent,
    config::ConnectOptions,
    crypto,
    store::{AuditRow, Store},
};

/// Longest token that is read, bytes.
const LONGEST: u64 = 64 * 1024;

/// Rows that are fetched at once.
const PAGE: i32 = 500;

#[derive(Args)]
pub(in crate::cli) struct FindOptions {
    /// One JSON object a line, as `GET /audit` shows events.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: ConnectOptions,
}

pub(super) async fn run(options: &FindOptions) -> anyhow::Result<()> {
    let connect = options.database.read()?;
    let fingerprint = crypto::fingerprint(&token()?);
    let store = Store::connect(connect, 1).await.context("DATABASE_URL: connecting as token_broker_app")?;
    let found = print(&store, &fingerprint, options.json).await;
    store.close().await;
    ensure!(
        found?,
        "the audit has no access token with fingerprint {fingerprint}: this broker neither made nor handed it out \
         (a reference token or a refresh token is not found this way)"
    );
    Ok(())
}

/// From standard input, where neither the shell's history nor the list of processes sees it.
fn token() -> anyhow::Result<Zeroizing<String>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("Paste the access token, then press Enter and Ctrl-D.");
    }
    let mut text = Zeroizing::new(String::new());
    input.take(LONGEST + 1).read_to_string(&mut text).context("standard input is no token")?;
    let token = text.trim();
    if token.is_empty() || text.len() as u64 > LONGEST || token.contains(char::is_whitespace) {
        bail!("give one access token on standard input");
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// Page by page, the oldest first; whether there was anything.
async fn print(store: &Store, fingerprint: &str, json: bool) -> anyhow::Result<bool> {
    let (mut out, mut last) = (std::io::stdout().lock(), 0);
    loop {
        let rows = store.audit_of_fingerprint(fingerprint, last, PAGE).await.context("asking the audit")?;
        let Some(newest) = rows.last().map(|row| row.id) else { return Ok(last > 0) };
        last = newest;
        for row in rows {
            let told = if json { serde_json::to_string(&AuditEvent::from(row))? } else { told(&row)? };
            writeln!(out, "{told}")?;
        }
    }
}

/// For people. Whatever would control their terminal is left out.
fn told(row: &AuditRow) -> anyhow::Result<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let lines = [
        format!("{}  {} {}", row.at.format(&Rfc3339)?, row.action, row.outcome),
        format!("  team           {}", or_none(&row.team)),
        format!("  token          {}", or_none(&row.token_name)),
        format!("  actor          {}", row.actor),
        format!("  recognised by  {}", row.recognised_by),
        format!("  request id     {}", or_none(&row.request_id)),
        format!("  address        {}", or_none(&row.address)),
    ];
    let plain = |line: &String| line.chars().filter(|c| !c.is_control()).collect::<String>();
    Ok(lines.iter().map(plain).collect::<Vec<_>>().join("\n"))
}
