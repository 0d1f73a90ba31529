//! A replica as its own process, so that it can be killed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{Client, TestApp};

pub struct Replica {
    child: Child,
    base: String,
    log: Arc<Mutex<String>>,
}

impl Replica {
    /// `token-broker serve` on the app's parts and this journal directory. Ready when it returns.
    pub async fn start(app: &TestApp, journal: &Path, log_level: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_token-broker"))
            .arg("serve")
            .env_clear()
            .env("RUST_LOG", log_level)
            .env("DATABASE_URL", app.database.url())
            .env("TOKEN_BROKER_MASTER_KEYS", &app.master_keys)
            .env("TOKEN_BROKER_JFROG_URL", app.simulator.url())
            .env("TOKEN_BROKER_LISTEN", "127.0.0.1:0")
            .env("TOKEN_BROKER_OPS_LISTEN", "127.0.0.1:0")
            .env("TOKEN_BROKER_JOURNAL_DIR", journal)
            .env("TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", "2")
            .env("TOKEN_BROKER_LEASE_SECONDS", "3")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, address) = tokio::sync::oneshot::channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(at) = line.find("ready listen=") {
                    let address = line[at + "ready listen=".len()..].split(' ').next().unwrap_or_default().to_owned();
                    if let Some(ready) = ready.take() {
                        drop(ready.send(address));
                    }
                }
                let mut kept = kept.lock().expect("no panic here");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let Ok(address) = address.await else {
            panic!("the replica did not become ready: {}", log.lock().expect("no panic there"))
        };
        Self { child, base: format!("http://{address}"), log }
    }

    /// The client's key, against this replica.
    pub fn client(&self, of: &Client) -> Client {
        Client::at(&self.base, of.key().to_owned())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and whether it exited with 0.
    pub fn terminate(&mut self) -> bool {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        self.child.wait().expect("it ends").success()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic there").clone()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
