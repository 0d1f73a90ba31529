//! The command line: parse, wire, run one command.

mod audit;
pub mod create_admin_key;
mod dev;
mod health;
mod keys;
pub mod serve;

use std::{net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, setrlimit};

use crate::{api, config, dev::simulator::Simulator, telemetry};

/// Holds JFrog refresh tokens so that no pipeline has to.
#[derive(Parser)]
#[command(name = "token-broker", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The service; applies migrations first, under a lock.
    Serve(Box<config::ServeOptions>),
    /// The whole thing on one machine with nothing configured: a private Postgres, a simulated JFrog, the service, a demo team.
    Dev(dev::DevOptions),
    /// Prints a new platform-admin key once, on standard output, alone.
    CreateAdminKey(Box<create_admin_key::CreateAdminKeyOptions>),
    /// Asks the audit, and looks after it.
    #[command(subcommand)]
    Audit(Box<audit::AuditCommand>),
    /// Shows, rotates, re-wraps and retires encryption keys.
    #[command(subcommand)]
    Keys(Box<keys::KeysCommand>),
    /// Prints the OpenAPI document.
    Openapi,
    /// The simulated JFrog alone, its faults controllable over HTTP under /_sim/.
    Simulator {
        /// Its address.
        #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
        listen: SocketAddr,
    },
    /// Asks a running service whether it is ready: for a container's health check.
    Health(health::HealthOptions),
}

/// Runs the command of this process' arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // A core file would hold every secret of the process.
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        eprintln!("token-broker: core dumps cannot be turned off: {error}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(options) => serve::run(&options).await?,
        Command::Dev(options) => dev::run(&options).await?,
        Command::CreateAdminKey(options) => create_admin_key::run(&options).await?,
        Command::Audit(command) => return audit::run(&command).await,
        Command::Keys(command) => keys::run(&command).await?,
        Command::Health(options) => health::run(&options).await?,
        Command::Openapi => print!("{}", api::openapi_json()?),
        Command::Simulator { listen } => {
            telemetry::init(false);
            let simulator = Simulator::start(listen, None).await?;
            println!("simulated JFrog at {}, its controls under {}/_sim/", simulator.url(), simulator.url());
            serve::asked_to_stop().await;
            simulator.stop().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("token-broker: {error:#}");
    ExitCode::FAILURE
}
