//! Postgres with nothing in front of it: `pgbench`, which Debian ships with the server, running the least SQL that does the work.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::{world, world::World};

/// A script for `pgbench`, and the database it runs in.
pub struct Script {
    program: PathBuf,
    file: PathBuf,
    url: String,
}

impl Script {
    /// A database of `tokens` tokens of one team, and this SQL in it; `:n` is a token's number.
    pub async fn new(world: &World, tokens: usize, sql: &str) -> anyhow::Result<Self> {
        let url = world.database().await?;
        world::run(&url, seed(tokens)).await?;
        let file = world.place("pgbench")?.join("script.sql");
        std::fs::write(&file, format!("\\set n random(1, {tokens})\n{sql}"))?;
        Ok(Self { program: find()?, file, url })
    }

    /// Transactions a second.
    pub async fn rate(&self, clients: usize, length: Duration) -> anyhow::Result<f64> {
        let seconds = length.as_secs().max(1).to_string();
        let mut pgbench = Command::new(&self.program);
        pgbench.args(["--no-vacuum", "--protocol=prepared", "--client", &clients.to_string(), "--jobs=2", "--time", &seconds]);
        let output = pgbench.arg("--file").arg(&self.file).arg(&self.url).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench said no rate")?;
        line.split(' ').next().context("pgbench said no rate")?.parse().context("pgbench said no rate")
    }
}

/// Beside the server's other programs, or on the path.
fn find() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let beside = versions.map(|version| version.path().join("bin/pgbench"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("pgbench"));
    beside.chain(on_path).find(|program| program.exists()).context("pgbench is not installed")
}

/// Rows as the service writes them, their secrets random bytes of the usual length.
fn seed(tokens: usize) -> String {
    let sealed = "decode(repeat(md5(random()::text), 50), 'hex')";
    format!(
        "insert into teams (id, name, description, created_by) values ('{TEAM}', 'floor', '', 'bench');
         insert into tokens (id, team_id, name, description, instance, include_reference_token, reuse_for, imported, chain_count, state,
                             generation, created_by)
         select lpad(n::text, 32, '0')::uuid, '{TEAM}', 't' || n, '', 'main', false, 21600, false, 2, 'registered', 1, 'bench'
         from generate_series(1, {tokens}) n;
         insert into chains (id, token_id, team_id, letter, state, generation, access_token, refresh_token, jfrog_token_id, fingerprint,
                             scope, refreshed_at, expires_at)
         select (letter || lpad(n::text, 31, '0'))::uuid, lpad(n::text, 32, '0')::uuid, '{TEAM}', letter, 'active', 1, {sealed}, {sealed},
                gen_random_uuid()::text, md5(random()::text), 'applied-permissions/user',
                now() - case letter when 'a' then interval '1 minute' else interval '0' end, now() + interval '1 year'
         from generate_series(1, {tokens}) n, unnest(array['a', 'b']) letter;
         analyze;"
    )
}

/// The seeded team's id.
pub const TEAM: &str = "00000000-0000-0000-0000-0000000000ff";
