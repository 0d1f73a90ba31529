//! The running server and its watchdog: start, readiness, end.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::SecretString;
use sqlx::Connection as _;
use tokio::time::sleep;

use super::Durability;
use super::address::{Address, PORT};
use super::cluster::Home;
use super::find::Programs;
use super::pid_file::PidFile;
use super::temporary;

/// Runs the server and stops it when our end of the pipe on its stdin closes, whatever closed it.
const WATCHDOG: &str = include_str!("watchdog.sh");

/// Recovery after a crash is part of starting.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The watchdog stops asking nicely after 20 seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A server and its watchdog. Dropping it closes the pipe, so the watchdog stops the server.
#[derive(Debug)]
pub(super) struct Server {
    watchdog: Child,
    pub(super) pid: u32,
    pub(super) address: Address,
}

impl Server {
    /// Starts the server of `home` and waits until it answers.
    pub(super) async fn start(
        home: &Home,
        programs: &Programs,
        durability: Durability,
        temporary: bool,
        server_lock: File,
        password: SecretString,
    ) -> anyhow::Result<Self> {
        let mut log = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(home.dir.join("postgres.log"))
            .context("cannot open the log of Postgres")?;
        log.set_len(0)?;
        let address = Address { socket_dir: temporary::create_for_socket(&home.account)?, password };
        let mut command = home.account.command("/bin/sh");
        command.args(["-c", WATCHDOG, "token-broker-postgres-watchdog"]);
        command.arg(&address.socket_dir);
        command.arg(if temporary { home.dir.as_path() } else { Path::new("") });
        command.arg(&programs.postgres).args(settings(durability));
        command.arg("-D").arg(home.pgdata()).arg("-k").arg(&address.socket_dir);
        let watchdog = command
            .stdin(Stdio::piped())
            .stdout(server_lock)
            .stderr(log.try_clone()?)
            // Ctrl-C in the terminal is for us: requests drain before the server goes.
            .process_group(0)
            .spawn();
        if watchdog.is_err() {
            std::fs::remove_dir(&address.socket_dir).ok();
        }
        let mut server =
            Self { watchdog: watchdog.with_context(|| format!("cannot run /bin/sh as {}", home.account.name))?, pid: 0, address };
        server.wait_until_ready(&mut log).await?;
        let pid_file = PidFile::read(&home.pgdata()).context("Postgres left no postmaster.pid")?;
        server.pid = pid_file.pid.cast_unsigned();
        Ok(server)
    }

    /// Ready means a real connection: a process, a pid file and a socket prove nothing.
    async fn wait_until_ready(&mut self, log: &mut File) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let refusal = match self.address.connect().await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(refusal) => refusal,
            };
            let ended = self.watchdog.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                let problem = if ended { "Postgres did not start" } else { "Postgres does not answer" };
                // Read through the open file: a temporary cluster's directory is gone by now.
                return Err(refusal).context(format!("{problem}; the end of its log:\n{}", tail(log)?));
            }
            sleep(POLL).await;
        }
    }

    #[cfg(test)]
    pub(super) fn watchdog_pid(&self) -> u32 {
        self.watchdog.id()
    }

    /// Lets the watchdog stop the server, and waits for both.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.watchdog.stdin.take());
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.watchdog.try_wait()?.is_none() {
            anyhow::ensure!(Instant::now() < deadline, "Postgres (process {}) does not stop", self.pid);
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// Given on the command line, they hold whatever `postgresql.conf` says.
fn settings(durability: Durability) -> Vec<String> {
    let on = if durability == Durability::Durable { "on" } else { "off" };
    [
        "--listen_addresses=".to_owned(),
        format!("--port={PORT}"),
        // Its directory is closed to others as well.
        "--unix_socket_permissions=0700".to_owned(),
        "--max_connections=200".to_owned(),
        "--shared_buffers=32MB".to_owned(),
        // Always on: with it off, tests would see another order of events than production.
        "--synchronous_commit=on".to_owned(),
        format!("--fsync={on}"),
        format!("--full_page_writes={on}"),
    ]
    .into()
}

fn tail(log: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(8)..].join("\n"))
}
