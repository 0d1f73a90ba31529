//! Installing Debian's Postgres, where there is none and we are root.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

const CREATE_CLUSTER_CONFIGURATION: &str = "/etc/postgresql-common/createcluster.conf";

/// Whether we are root on a system with `apt-get`.
pub(super) fn possible() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    nix::unistd::Uid::effective().is_root() && std::env::split_paths(&path).any(|directory| directory.join("apt-get").is_file())
}

/// Installs Debian's `postgresql`, without the cluster it would make and start on port 5432.
pub(super) fn debian() -> anyhow::Result<()> {
    eprintln!("installing Debian's postgresql (no Postgres was found) …");
    let configuration = Path::new(CREATE_CLUSTER_CONFIGURATION);
    let before = match std::fs::read_to_string(configuration) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(CREATE_CLUSTER_CONFIGURATION),
    };
    std::fs::create_dir_all("/etc/postgresql-common")
        .and_then(|()| std::fs::write(configuration, without_main_cluster(&before)))
        .with_context(|| format!("cannot write {CREATE_CLUSTER_CONFIGURATION}"))?;
    // A failed update is no reason to give up: what is needed may be known already.
    apt_get(&["update"]).ok();
    // Our configuration file is newer than the package's: without --force-confold dpkg asks.
    apt_get(&["install", "--yes", "--no-install-recommends", "--option=Dpkg::Options::=--force-confold", "postgresql"])
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("UCF_FORCE_CONFFOLD", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    anyhow::ensure!(
        output.status.success(),
        "`apt-get {}` failed ({}): {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// The configuration with `create_main_cluster = false`, its other lines unchanged.
pub(super) fn without_main_cluster(before: &str) -> String {
    let setting = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default();
        name.trim() == "create_main_cluster"
    };
    let mut after: String = before.lines().filter(|line| !setting(line)).flat_map(|line| [line, "\n"]).collect();
    after.push_str("create_main_cluster = false\n");
    after
}
