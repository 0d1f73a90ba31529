//! The server's own note of itself, and how far it is believed.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::temporary;

/// What `postmaster.pid` says, which may long be untrue.
#[derive(Debug)]
pub(super) struct PidFile {
    pub(super) pid: i32,
    socket_dir: PathBuf,
    port: u16,
}

impl PidFile {
    /// Reads it; `None` without one, with one still being written, and with one that was copied
    /// along with another cluster.
    pub(super) fn read(pgdata: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        if Path::new(lines.next()?) != pgdata {
            return None;
        }
        let port = lines.nth(1)?.parse().ok()?;
        let socket_dir = PathBuf::from(lines.next()?);
        Some(Self { pid, socket_dir, port })
    }

    /// Asks the server to stop, if the process that listens on its socket is the one named here:
    /// a process id alone may be anyone's by now.
    pub(super) async fn stop_if_alive(&self) -> bool {
        let socket = self.socket_dir.join(format!(".s.PGSQL.{}", self.port));
        let Ok(connection) = tokio::net::UnixStream::connect(socket).await else {
            return false;
        };
        let listener = connection.peer_cred().ok().and_then(|peer| peer.pid());
        listener == Some(self.pid) && kill(Pid::from_raw(self.pid), Signal::SIGINT).is_ok()
    }

    /// Removes the directory of its socket, if it is one of ours.
    pub(super) fn remove_socket_dir(&self, account: &Account) {
        if temporary::is_for_socket(&self.socket_dir, account) {
            std::fs::remove_dir_all(&self.socket_dir).ok();
        }
    }
}
