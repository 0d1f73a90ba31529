//! A replica as its own process, so that it can be killed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Client, TestApp};

/// Killed when the test is done with it, however that comes.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub struct Replica {
    child: Started,
    base: String,
    log: Arc<Mutex<String>>,
}

impl Replica {
    /// `token-broker serve` on the app's parts and this journal directory. Ready when it returns.
    pub async fn start(app: &TestApp, journal: &Path, log_level: &str) -> Self {
        Self::launch(app, journal, &[("RUST_LOG", log_level)])
            .await
            .unwrap_or_else(|log| panic!("it did not become ready: {log}"))
    }

    /// The same with a fault armed: `<point>:<kill|panic|stall>[:<nth>]`, see `src/fault.rs`.
    pub async fn armed(app: &TestApp, journal: &Path, fault: &str) -> Self {
        let fault = [("RUST_LOG", "info"), ("TOKEN_BROKER_FAULT", fault)];
        Self::launch(app, journal, &fault).await.unwrap_or_else(|log| panic!("it did not become ready: {log}"))
    }

    /// The same with more variables; the error is what it said before it gave up.
    pub async fn launch(app: &TestApp, journal: &Path, variables: &[(&str, &str)]) -> Result<Self, String> {
        // An address of its own: who asks a dead one must not reach another test's, which was given its port.
        let [a, b, c] = rand::random::<[u8; 3]>();
        let address = format!("127.{}.{b}.{c}:0", a.clamp(1, 254));
        let mut child = Command::new(env!("CARGO_BIN_EXE_token-broker"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", app.database.url())
            .env("TOKEN_BROKER_MASTER_KEYS", &app.master_keys)
            .env("TOKEN_BROKER_JFROG_URL", app.simulator.url())
            .env("TOKEN_BROKER_LISTEN", address)
            .env("TOKEN_BROKER_OPS_LISTEN", "127.0.0.1:0")
            .env("TOKEN_BROKER_JOURNAL_DIR", journal)
            .env("TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", "2")
            .env("TOKEN_BROKER_LEASE_SECONDS", "3")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .map(Started)
            .expect("the binary starts");
        let stderr = child.0.stderr.take().expect("it is piped");
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
            drop(child.0.wait());
            return Err(log.lock().expect("no panic there").clone());
        };
        Ok(Self { child, base: format!("http://{address}"), log })
    }

    /// The client's key, against this replica.
    pub fn client(&self, of: &Client) -> Client {
        Client::at(&self.base, of.key().to_owned())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("it is ours");
        self.child.0.wait().expect("it ends");
    }

    /// SIGTERM, and whether it exited with 0.
    pub fn terminate(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        self.child.0.wait().expect("it ends").success()
    }

    /// SIGSTOP: it holds still with whatever it has in hand.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on as if nothing had happened.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.0.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("it is ours");
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().expect("it is ours").is_some()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic there").clone()
    }
}
