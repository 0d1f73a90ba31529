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
use token_broker::{identity::IssuerSettings, store::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
};

use crate::{
    app::{Client, TestApp, issuer::Issuer},
    identities::World,
};

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

/// How many statements so many hand-outs cost, each by the next of these callers, and how long they took.
async fn cost(counted: &AtomicUsize, callers: &[Client]) -> (usize, Duration) {
    let (before, began) = (counted.load(Ordering::SeqCst), Instant::now());
    for caller in callers {
        caller.refresh("deploy", json!({})).await.expect(200);
    }
    (counted.load(Ordering::SeqCst) - before, began.elapsed())
}

#[tokio::test]
async fn a_hand_out_is_one_round_trip_with_row_level_security_audit_and_authentication_of_whatever_kind() {
    const HAND_OUTS: usize = 100;
    let dir = tempfile::tempdir().expect("a directory");
    let (counted, path) = (Arc::new(AtomicUsize::new(0)), dir.path().to_owned());
    let issuer = Issuer::start().await;
    let trusted: IssuerSettings = format!("github={}", issuer.url()).parse().expect("an issuer");
    let counter = Arc::clone(&counted);
    let app = TestApp::start_changed(move |settings| {
        settings.database.connect = in_between(&path, &settings.database.connect, &counter);
        settings.identities.issuers = vec![trusted.clone()];
        // The worker looks once: what is counted afterwards is the callers'.
        settings.timing.poll = Duration::from_hours(1);
    })
    .await;
    let world = World { app, issuer };
    world.app.register("deploy").await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let session = world.job(json!({})).post("/sessions", json!({})).await.expect(201);
    let session = world.app.ci.with_key(session.json["session"].as_str().expect("a session").to_owned());
    let job = world.job(json!({}));
    let jobs = (0..HAND_OUTS).map(|run| world.job(json!({"run_id": run.to_string()}))).collect();
    // What a caller costs besides, in a second: a key is looked at and its use noted, a session is looked at, and of whatever jobs
    // the rules of their issuer are read every half second.
    for (who, callers, besides) in [
        ("a key", vec![world.app.ci.clone(); HAND_OUTS], 2),
        ("a session", vec![session; HAND_OUTS], 1),
        ("a job", vec![job; HAND_OUTS], 2),
        ("ever new jobs", jobs, 2),
    ] {
        cost(&counted, &callers[..20]).await;
        let (statements, took) = cost(&counted, &callers).await;
        let seconds = usize::try_from(took.as_secs()).expect("few") + 1;
        // And once a minute the use of a job's rule is noted.
        let most = HAND_OUTS + besides * seconds + 1;
        println!("{who}: {statements} statements for {HAND_OUTS} hand-outs in {took:?}");
        assert!(statements >= HAND_OUTS, "each is audited: {statements} of {who}");
        assert!(statements <= most, "{statements} statements for {HAND_OUTS} hand-outs to {who} in {took:?}, at most {most}");
    }
}
