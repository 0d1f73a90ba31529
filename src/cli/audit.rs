//! `token-broker audit`: what an operator asks of the audit with the database at hand. Whoever can run these with the database's URL
//! is the operator: the database is the permission.

mod checkpoint;
mod find;
mod prune;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Reads an access token from standard input, and prints which jobs were handed it, in whichever team.
    Find(find::FindOptions),
    /// Prints the newest checkpoint, one line: kept elsewhere, it shows later that nothing before it was changed.
    Checkpoint(checkpoint::CheckpointOptions),
    /// Looks whether closed batches are as they were; exit code 1: something was changed, 2: it cannot be told.
    Verify(verify::VerifyOptions),
    /// Removes old events, whole closed batches only; what is left can still be verified.
    Prune(prune::PruneOptions),
}

pub(super) async fn run(command: &AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Find(options) => find::run(options).await?,
        AuditCommand::Checkpoint(options) => checkpoint::run(options).await?,
        AuditCommand::Verify(options) => return Ok(verify::run(options).await),
        AuditCommand::Prune(options) => prune::run(options).await?,
    }
    Ok(ExitCode::SUCCESS)
}
