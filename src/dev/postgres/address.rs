//! How a server is reached.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};

/// Part of the socket's name only: nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// Where the server listens, and the password it wants.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) socket_dir: PathBuf,
    pub(super) password: SecretString,
}

impl Address {
    pub(super) fn url(&self, database: &str) -> String {
        let database = percent_encoded(database.as_bytes());
        let host = percent_encoded(self.socket_dir.as_os_str().as_bytes());
        let password = self.password.expose_secret(); // hexadecimal
        // Over a Unix socket there is no TLS, whatever PGSSLMODE says.
        format!("postgres://postgres:{password}@localhost/{database}?host={host}&port={PORT}&sslmode=disable")
    }

    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.url("postgres")).await
    }
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
