//! What stands between the broker and a Postgres: one address that stays while servers come and go, and connections that break at
//! a chosen moment.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// What the server says while it commits a pair, once [`Gate::WATCH_COMMITS`] was run.
const COMMITTING: &[u8] = b"a pair is being committed";
/// `ReadyForQuery`, no transaction open: what went before it is committed.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// The name of every Postgres' socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// When a connection on which a pair is being committed breaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// While the server is at it; it goes on without us.
    During,
    /// When the server has committed, before the broker hears of it.
    After,
}

pub(super) struct Gate {
    dir: TempDir,
    /// Cancelled when it closes.
    open: Option<CancellationToken>,
    inner: Arc<Inner>,
}

struct Inner {
    target: Mutex<PathBuf>,
    cut: Mutex<Option<Cut>>,
    frozen: Mutex<watch::Sender<bool>>,
    abandoned: Mutex<Vec<watch::Sender<bool>>>,
}

impl Gate {
    /// Makes the server say that it commits a pair, and then takes its time.
    pub(super) const WATCH_COMMITS: &str = "create function say() returns trigger language plpgsql as $$
             begin raise notice 'a pair is being committed'; perform pg_sleep(0.3); return null; end $$;
         create constraint trigger say after update of access_token on chains deferrable initially deferred
             for each row execute function say()";

    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let frozen = Mutex::new(watch::Sender::new(false));
        let inner = Inner { target: Mutex::default(), cut: Mutex::default(), frozen, abandoned: Mutex::default() };
        Self { dir, open: None, inner: Arc::new(inner) }
    }

    /// The same database as this URL's, through the gate.
    pub(super) fn url(&self, direct: &str) -> String {
        let (server, _) = direct.split_once('?').expect("it names a socket");
        format!("{server}?host={}&port=5432&sslmode=disable", self.dir.path().display())
    }

    /// From now on, connections lead to the server of this socket.
    pub(super) fn lead_to(&mut self, target: PathBuf) {
        self.close();
        *self.inner.target.lock().expect("no panic here") = target;
        let socket = self.dir.path().join(SOCKET);
        drop(std::fs::remove_file(&socket));
        let listener = UnixListener::bind(&socket).expect("listens");
        let (closed, inner) = (CancellationToken::new(), Arc::clone(&self.inner));
        self.open = Some(closed.clone());
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = closed.run_until_cancelled(listener.accept()).await {
                let (closed, inner) = (closed.clone(), Arc::clone(&inner));
                tokio::spawn(async move { closed.run_until_cancelled(inner.forward(client)).await });
            }
        });
    }

    /// Connections end, and new ones are refused: as by a machine on which no Postgres runs.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.cancel();
        }
    }

    /// Whether nothing passes any more, although connections stay open: as when a network or a machine stalls.
    pub(super) fn freeze(&self, frozen: bool) {
        self.inner.frozen.lock().expect("no panic here").send_replace(frozen);
    }

    /// Connections that are open say nothing more, ever; new ones are served. As when a machine dies and another takes its place.
    pub(super) fn abandon(&self) {
        let mut frozen = self.inner.frozen.lock().expect("no panic here");
        frozen.send_replace(true);
        let abandoned = std::mem::replace(&mut *frozen, watch::Sender::new(false));
        self.inner.abandoned.lock().expect("no panic here").push(abandoned);
    }

    /// The next connection on which a pair is committed breaks.
    pub(super) fn cut(&self, cut: Cut) {
        *self.inner.cut.lock().expect("no panic here") = Some(cut);
    }

    /// Whether the cut is still to come.
    pub(super) fn is_armed(&self) -> bool {
        self.inner.cut.lock().expect("no panic here").is_some()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    async fn forward(&self, mut client: UnixStream) {
        let target = self.target.lock().expect("no panic here").clone();
        let Ok(mut server) = UnixStream::connect(target).await else { return };
        let frozen = self.frozen.lock().expect("no panic here").subscribe();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let asked = async {
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                thawed(&frozen).await;
                if to_server.write_all(&bytes[..length]).await.is_err() {
                    break;
                }
            }
        };
        let answered = async {
            let (mut bytes, mut said, mut cut) = (vec![0; 16 * 1024], Vec::new(), None);
            while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                thawed(&frozen).await;
                said.extend_from_slice(&bytes[..length]);
                if cut.is_none() && contains(&said, COMMITTING) {
                    cut = self.cut.lock().expect("no panic here").take();
                }
                match cut {
                    Some(Cut::During) => break,
                    Some(Cut::After) if said.ends_with(READY) => break,
                    Some(Cut::After) => continue,
                    None => {}
                }
                if to_client.write_all(&bytes[..length]).await.is_err() {
                    break;
                }
                // What the server says may come in pieces.
                said.drain(..said.len().saturating_sub(COMMITTING.len()));
            }
        };
        tokio::select! { () = asked => {}, () = answered => {} }
        // Not even an end is seen of a connection that is frozen.
        thawed(&frozen).await;
    }
}

/// The socket that a database's URL leads to.
pub(super) fn socket_of(url: &str) -> PathBuf {
    let options: PgConnectOptions = url.parse().expect("a URL");
    options.get_socket().expect("it names a socket").join(SOCKET)
}

async fn thawed(frozen: &watch::Receiver<bool>) {
    drop(frozen.clone().wait_for(|frozen| !frozen).await);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
