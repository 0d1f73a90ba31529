//! The account Postgres runs as: it refuses to run as root.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User};

/// The account Postgres runs as: our own, or, when we are root, a lesser one.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    gid: u32,
    we_are_root: bool,
}

impl Account {
    /// Ours; for root `postgres`, else `nobody`.
    pub(super) fn of_the_server() -> anyhow::Result<Self> {
        let me = Uid::effective();
        if !me.is_root() {
            return Ok(Self { name: format!("uid {me}"), uid: me.as_raw(), gid: Gid::effective().as_raw(), we_are_root: false });
        }
        for name in ["postgres", "nobody"] {
            let user = User::from_name(name).context("cannot read the system's accounts")?;
            if let Some(user) = user.filter(|user| !user.uid.is_root()) {
                return Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), we_are_root: true });
            }
        }
        anyhow::bail!(
            "Postgres does not run as root, and there is neither an account `postgres` nor `nobody`: \
             create one, or start as an ordinary user"
        )
    }

    /// A command that runs `program` as this account.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if self.we_are_root {
            // With a uid and no groups given, std also clears root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        // Our directory may be closed to the account, and must not be kept busy by the server.
        command.current_dir("/").env("LC_ALL", "C");
        // PGDATA, PGPORT and the like of the developer are about another Postgres.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Gives a path of ours to the account.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if !self.we_are_root {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to account {}", path.display(), self.name))
    }

    /// Whether the account can enter the directory `path` (absolute).
    pub(super) fn reaches(&self, path: &Path) -> bool {
        self.holds("[ -x \"$1\" ]", path)
    }

    /// Whether the account can enter the directory `path` (absolute) and create files in it.
    pub(super) fn writes(&self, path: &Path) -> bool {
        self.holds("[ -x \"$1\" ] && [ -w \"$1\" ]", path)
    }

    // Asks the kernel in the account's name: modes alone say nothing of ACLs and parents.
    fn holds(&self, test: &str, path: &Path) -> bool {
        let mut command = self.command("/bin/sh");
        let status = command.args(["-c", test, "sh"]).arg(path).status();
        status.is_ok_and(|status| status.success())
    }
}
