//! What a hand-out costs Postgres: counted on the wire, between the service and the server.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use token_broker::store::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
};

use crate::app::TestApp;

const SOCKET: &str = ".s.PGSQL.5432";

/// Hands bytes on, and counts statements: `Execute` (`E`) and simple queries (`Q`). A bare `Sync`, with which sqlx tries a connection
/// that was given back, is none: nobody waits for it.
async fn count(
    mut client: OwnedReadHalf,
    mut server: impl AsyncWriteExt + Unpin,
    counted: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let length = client.read_u32().await?;
    server.write_all(&length.to_be_bytes()).await?;
    copy(&mut (&mut client).take(u64::from(length) - 4), &mut server).await?;
    loop {
        let (kind, length) = (client.read_u8().await?, client.read_u32().await?);
        counted.fetch_add(usize::from(b"EQ".contains(&kind)), Ordering::SeqCst);
        let mut message = vec![kind];
        message.extend(length.to_be_bytes());
        (&mut client).take(u64::from(length) - 4).read_to_end(&mut message).await?;
        server.write_all(&message).await?;
    }
}

/// A socket in `dir` in front of the one that `options` name.
fn in_between(dir: &Path, options: &PgConnectOptions, counted: &Arc<AtomicUsize>) -> PgConnectOptions {
    let target = options.get_socket().expect("the tests' Postgres has a socket").join(SOCKET);
    let listener = UnixListener::bind(dir.join(SOCKET)).expect("a socket");
    let counted = Arc::clone(counted);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_server, to_server) = UnixStream::connect(&target).await.expect("Postgres is there").into_split();
            let (from_client, to_client) = client.into_split();
            tokio::spawn(count(from_client, to_server, Arc::clone(&counted)));
            tokio::spawn(async move { copy(&mut { from_server }, &mut { to_client }).await });
        }
    });
    options.clone().socket(dir)
}

#[tokio::test]
async fn a_hand_out_is_one_round_trip_with_row_level_security_audit_and_authentication() {
    let dir = tempfile::tempdir().expect("a directory");
    let (counted, path) = (Arc::new(AtomicUsize::new(0)), dir.path().to_owned());
    let counter = Arc::clone(&counted);
    let app = TestApp::start_changed(move |settings| {
        settings.database.connect = in_between(&path, &settings.database.connect, &counter);
        // The worker looks once: what is counted afterwards is the callers'.
        settings.timing.poll = Duration::from_hours(1);
    })
    .await;
    app.register("deploy").await;
    let warm = async || {
        for _ in 0..20 {
            app.ci.refresh("deploy", json!({})).await.expect(200);
        }
    };
    warm().await;
    let (before, began) = (counted.load(Ordering::SeqCst), Instant::now());
    const HAND_OUTS: usize = 100;
    for _ in 0..HAND_OUTS {
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
    let round_trips = counted.load(Ordering::SeqCst) - before;
    // The key is looked at again once a second, in two statements.
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("few") + 1;
    assert!(round_trips >= HAND_OUTS, "each is audited: {round_trips}");
    assert!(round_trips <= HAND_OUTS + 2 * seconds, "{round_trips} statements for {HAND_OUTS} hand-outs in {seconds} s");
}
