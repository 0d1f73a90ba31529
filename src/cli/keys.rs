//! `token-broker keys`: what an operator does with keys, with the database and the master keys at hand.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::serve;
use crate::{
    actor::Actor,
    api::EncryptionKeys,
    broker::{KeyStatus, Keys, MasterKeyState, Resealed, Rewrapped},
    config::DatabaseOptions,
    names::Name,
    store::Store,
};

/// Between two looks at the progress.
const STEP: Duration = Duration::from_secs(1);

/// Cells of the bar.
const WIDTH: i64 = 40;

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Prints the master keys, what needs each, and how far a rotation is.
    Status(StatusOptions),
    /// Gives a team, or every team, a new data key, and seals everything anew with it.
    Rotate(RotateOptions),
    /// Wraps every data key by the first of TOKEN_BROKER_MASTER_KEYS.
    Rewrap(DatabaseOptions),
    /// Retires a master key that nothing needs any more, or says what does.
    Retire(RetireOptions),
    /// Forgets the journal of a replica that does not come back: what it needs holds up no retirement then.
    ForgetJournal(ForgetJournalOptions),
}

#[derive(Args)]
pub(super) struct StatusOptions {
    /// As GET /encryption-keys answers.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

#[derive(Args)]
pub(super) struct RotateOptions {
    /// Only this team's.
    #[arg(long, value_name = "NAME")]
    team: Option<Name>,
    #[command(flatten)]
    database: DatabaseOptions,
}

#[derive(Args)]
pub(super) struct RetireOptions {
    /// The master key's id.
    #[arg(value_name = "ID")]
    id: Name,
    #[command(flatten)]
    database: DatabaseOptions,
}

#[derive(Args)]
pub(super) struct ForgetJournalOptions {
    /// The journal's id, as `keys status` lists it.
    #[arg(value_name = "JOURNAL")]
    journal: Uuid,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Whoever can run this with the database's URL and the master keys is the operator: they are the permission.
pub(super) async fn run(command: &KeysCommand) -> anyhow::Result<()> {
    let database = match command {
        KeysCommand::Status(options) => &options.database,
        KeysCommand::Rotate(options) => &options.database,
        KeysCommand::Rewrap(database) => database,
        KeysCommand::Retire(options) => &options.database,
        KeysCommand::ForgetJournal(options) => &options.database,
    };
    let (store, keys) = serve::open(database.read()?).await?;
    let done = with(command, &store, &keys).await;
    store.close().await;
    done
}

async fn with(command: &KeysCommand, store: &Store, keys: &Keys) -> anyhow::Result<()> {
    let actor = Actor { name: "command-line".to_owned(), ..Actor::system() };
    match command {
        KeysCommand::Status(options) => {
            let status = keys.status(store).await?;
            if options.json {
                println!("{}", serde_json::to_string_pretty(&EncryptionKeys::from(status))?);
            } else {
                print!("{}", told(&status));
            }
        }
        KeysCommand::Rotate(options) => {
            keys.ask_rotation(store, options.team.as_ref(), &actor).await?;
            rotate(store, keys).await?;
        }
        KeysCommand::Rewrap(_) => {
            keys.ask_rewrap(store, &actor).await?;
            rewrap(store, keys).await?;
        }
        KeysCommand::Retire(options) => {
            keys.retire(store, options.id.as_str(), &actor).await?;
            println!("master key {} is no longer used: it is retired, and can be taken out of the list", options.id);
        }
        KeysCommand::ForgetJournal(options) => {
            keys.forget_journal(store, options.journal, &actor).await?;
            println!("journal {} is forgotten", options.journal);
        }
    }
    Ok(())
}

/// Seals the rows anew, beside the replicas that are at it too: each row is compared and swapped.
async fn rotate(store: &Store, keys: &Keys) -> anyhow::Result<()> {
    let mut stuck = BTreeSet::new();
    for team in store.teams_to_reseal().await? {
        loop {
            let resealed = keys.reseal(store, team, Instant::now() + STEP).await?;
            let progress = keys.status(store).await?.rotation;
            bar("sealed anew", progress.rows - progress.rows_left, progress.rows);
            match resealed {
                Resealed::Unfinished => {}
                Resealed::Stuck => drop(stuck.insert(team)),
                Resealed::Waiting(_) | Resealed::Done => {}
            }
            if resealed != Resealed::Unfinished {
                break;
            }
        }
    }
    end_bar();
    anyhow::ensure!(stuck.is_empty(), "some rows do not open and keep their old data keys: the log above names them");
    let rotation = keys.status(store).await?.rotation;
    let (first, waiting, old) = (keys.master().first(), rotation.teams_waiting, rotation.old_keys);
    anyhow::ensure!(waiting == 0, "{waiting} teams wait for their new data keys: a replica does not have master key {first}");
    println!("every row is sealed with its team's new data key");
    if old > 0 {
        println!(
            "{old} old data keys are no longer used; the service closes them in three minutes and deletes them ten minutes later"
        );
    }
    Ok(())
}

async fn rewrap(store: &Store, keys: &Keys) -> anyhow::Result<()> {
    let first = keys.master().first();
    loop {
        let rewrapped = keys.rewrap(store, Instant::now() + STEP).await?;
        let status = keys.status(store).await?;
        let left = status.rewrap.as_ref().map_or(0, |(_, left)| *left);
        bar("wrapped", (status.rotation.keys - left).max(0), status.rotation.keys);
        match rewrapped {
            Rewrapped::Unfinished => {}
            Rewrapped::Done => break,
            Rewrapped::Elsewhere => anyhow::bail!("{left} keys are wrapped by master keys that are not in the list"),
            Rewrapped::Stuck => anyhow::bail!("some data keys do not open: the log above names them"),
        }
    }
    end_bar();
    println!("every data key is wrapped by master key {first}");
    Ok(())
}

/// On a terminal alone: elsewhere the last line says it all.
fn bar(what: &str, done: i64, of: i64) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let filled = if of > 0 { done * WIDTH / of } else { WIDTH };
        let cells: String = (0..WIDTH).map(|cell| if cell < filled { '#' } else { '.' }).collect();
        drop(write!(err, "\r[{cells}] {done} of {of} {what}"));
        drop(err.flush());
    }
}

fn end_bar() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

/// For people.
fn told(status: &KeyStatus) -> String {
    let mut lines = Vec::new();
    for key in &status.master_keys {
        let state = match key.state {
            MasterKeyState::Wraps => "wraps",
            MasterKeyState::Opens => "opens",
            MasterKeyState::Absent => "not in the list",
            MasterKeyState::Retired => "retired",
        };
        let used = match (key.is_used(), key.state) {
            (true, _) => format!("{} keys, {} journals", key.wrapped_keys, key.journals.len()),
            (false, MasterKeyState::Wraps) => "nothing yet".to_owned(),
            (false, _) => "no longer used".to_owned(),
        };
        lines.push(format!("master key {}  ({state}): {used}", key.id));
    }
    for journal in &status.journals {
        let away = if journal.away { ", away since" } else { ", reported at" };
        lines.push(format!("journal {}: needs {}{away} {}", journal.id, journal.needs.join(", "), journal.reported_at));
    }
    let rotation = status.rotation;
    lines.push(format!("data keys: {}, {} of them old", rotation.keys, rotation.old_keys));
    if rotation.teams_waiting > 0 || rotation.rows_left > 0 {
        let done = rotation.rows - rotation.rows_left;
        lines.push(format!("rotating: {done} of {} rows, {} teams wait for their key", rotation.rows, rotation.teams_waiting));
    }
    if let Some((by, left)) = &status.rewrap {
        lines.push(format!("re-wrapping by {by}: {left} keys are left"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
