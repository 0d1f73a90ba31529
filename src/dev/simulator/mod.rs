//! A JFrog of our own: users, tokens, a clock that can be moved, and everything that can go wrong.
//!
//! A stateful model of the Access token API, served on a socket, with the tests' controls under `/_sim` and in
//! [`Simulator`]. It holds made-up secrets only, and shows them to whoever asks: never expose it.

mod answers;
mod bearer;
mod calls;
mod control;
mod faults;
mod flow;
mod grant;
mod handle;
mod knobs;
mod ledger;
mod parameters;
mod records;
mod server;
mod signer;
mod storage;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

pub use calls::{Call, Counter, Route};
pub use faults::{Fault, Filter, Rule};
pub use knobs::{ExpiresInOnRefresh, Knobs, OldAccessToken};
pub use tokens::TokenView;

use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinHandle;

/// A running simulator; clones are the same one.
#[derive(Clone)]
pub struct Simulator {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    state_file: Option<PathBuf>,
    state: Mutex<State>,
    handle: server::Handle,
    serving: Mutex<Option<JoinHandle<()>>>,
}

/// Everything that changes, under one lock: that makes each call atomic.
struct State {
    ledger: ledger::Ledger,
    rules: Vec<Rule>,
    calls: calls::CallLog,
    stopped: bool,
}

impl Simulator {
    /// Serves on `listen` (port 0: any free one) until [`Simulator::stop`]. With a state file, goes on from
    /// it if it exists, and replaces it at each change. Fails when the address is taken or the file is not
    /// its own.
    pub async fn start(listen: SocketAddr, state_file: Option<PathBuf>) -> anyhow::Result<Self> {
        let file = state_file.clone();
        let ledger = tokio::task::spawn_blocking(move || open(file)).await??;
        let (listener, address) = server::bind(listen)?;
        let simulator = Self {
            inner: Arc::new(Inner {
                address,
                state_file,
                state: Mutex::new(State { ledger, rules: Vec::new(), calls: calls::CallLog::default(), stopped: false }),
                handle: server::Handle::new(),
                serving: Mutex::new(None),
            }),
        };
        // A file that cannot be written is told now, not at the first token.
        if let Some(file) = &simulator.inner.state_file {
            let state = &mut *simulator.state();
            storage::save(&state.ledger, file).with_context(|| format!("writing {}", file.display()))?;
            state.ledger.dirty = false;
        }
        let served = server::serve(simulator.clone(), listener, simulator.inner.handle.clone())?;
        let serving = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the simulator's server ended");
            }
        });
        *lock(&simulator.inner.serving) = Some(serving);
        Ok(simulator)
    }

    /// Its address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        let SocketAddr::V4(address) = self.inner.address else {
            return format!("http://[::1]:{}", self.inner.address.port());
        };
        let ip = match *address.ip() {
            Ipv4Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST,
            ip => ip,
        };
        format!("http://{ip}:{}", address.port())
    }

    /// Closes the socket and all connections. Calls still under way commit nothing any more.
    pub async fn stop(&self) {
        self.state().stopped = true;
        self.inner.handle.shutdown();
        let serving = lock(&self.inner.serving).take();
        if let Some(serving) = serving
            && let Err(error) = serving.await
        {
            tracing::error!(%error, "the simulator's server failed");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    /// Changes the state and saves it, before anyone can see the change. The file is written on the caller's
    /// thread: only `dev` has one, and it has few tokens.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let state = &mut *self.state();
        let result = change(state);
        if std::mem::take(&mut state.ledger.dirty)
            && let Some(file) = &self.inner.state_file
            && let Err(error) = storage::save(&state.ledger, file)
        {
            tracing::error!(%error, "the simulator's state was not saved");
        }
        result
    }
}

/// A poisoned lock means that a test failed elsewhere; its message is the one to see.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(state_file: Option<PathBuf>) -> anyhow::Result<ledger::Ledger> {
    let known = match &state_file {
        Some(file) => storage::load(file)?,
        None => None,
    };
    match known {
        Some(ledger) => Ok(ledger),
        None => Ok(ledger::Ledger::new(signer::Signer::generate()?)),
    }
}
