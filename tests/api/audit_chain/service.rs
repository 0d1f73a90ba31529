//! The running service closes batches by itself, and tells their heads.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use serde_json::json;
use token_broker::{
    audit::Checkpoint,
    outbound::{Destination, Route},
};
use tokio::net::TcpListener;

use super::Chained;
use crate::app::{TestApp, TestDatabase, process::Replica};

/// As if the minute were over.
const NOW: &str = "update jobs set due_at = now() where kind = 'close-audit'";
const ALL_CLOSED: &str = "not exists (select from audit_events where id > (select coalesce(max(last_id), 0) from audit_batches))";

type Posts = Arc<Mutex<Vec<String>>>;

/// A server that keeps what is posted to it, and answers this.
async fn receiver(answer: StatusCode) -> (String, Posts) {
    let posts = Posts::default();
    let take = async move |State(posts): State<Posts>, body: String| {
        posts.lock().expect("no panic here").push(body);
        answer
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/kept?secret=path", listener.local_addr().expect("bound"));
    let router = Router::new().route("/kept", post(take)).with_state(Arc::clone(&posts));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (url, posts)
}

async fn posting_to(url: &str) -> TestApp {
    let destination = Destination::new(url.to_owned(), &Route::default()).expect("a destination");
    TestApp::start_changed(move |settings| settings.checkpoints = Some(destination.clone())).await
}

/// The same database, seen by the commands.
async fn chain_of(app: &TestApp) -> Chained {
    let store = token_broker::store::Store::connect(app.database.url().parse().expect("a URL"), 2).await.expect("connects");
    let master = token_broker::crypto::MasterKeys::parse(&app.master_keys).expect("keys");
    Chained { database: TestDatabase::at(app.database.url().to_owned()), store, master, master_keys: app.master_keys.clone() }
}

#[tokio::test]
async fn what_the_service_writes_is_closed_and_its_checkpoint_is_posted() {
    let (url, posts) = receiver(StatusCode::OK).await;
    let app = posting_to(&url).await;
    app.register("deploy").await;
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.database.run(NOW).await;
    app.database.until(&format!("exists (select from audit_batches) and {ALL_CLOSED}")).await;
    app.database.until_closing_had_its_turn().await;
    let kept = posts.lock().expect("no panic there").join("\n");
    let checkpoints = Checkpoint::read(&kept).expect("checkpoints, one JSON object each");
    let seen = chain_of(&app).await.verify(&checkpoints).await;
    assert_eq!((seen.finding, seen.unclosed), (None, 0));
    assert_eq!(seen.newest.as_ref(), checkpoints.last());
}

#[tokio::test]
async fn a_server_that_does_not_take_checkpoints_holds_nothing_up() {
    let (url, posts) = receiver(StatusCode::SERVICE_UNAVAILABLE).await;
    let app = posting_to(&url).await;
    for tokens in 1..=2 {
        app.register(&format!("deploy-{tokens}")).await;
        app.database.run(NOW).await;
        app.database.until(&format!("exists (select from audit_batches) and {ALL_CLOSED}")).await;
        app.database
            .until("exists (select from jobs where kind = 'close-audit' and failures = 0 and due_at > now() + interval '30 s')")
            .await;
    }
    assert!(posts.lock().expect("no panic there").len() >= 2, "it was tried each time");
    chain_of(&app).await.is_whole(app.database.count("select max(number) from audit_batches").await).await;
}

#[tokio::test]
async fn a_checkpoint_is_logged_and_where_it_is_posted_is_not() {
    let (url, _posts) = receiver(StatusCode::NOT_FOUND).await;
    let mut app = TestApp::start().await;
    // Something is left to be closed.
    app.database.until_closing_had_its_turn().await;
    app.register("deploy").await;
    app.stop().await;
    let journal = tempfile::tempdir().expect("a directory");
    let variables = [("RUST_LOG", "trace,h2=off"), ("TOKEN_BROKER_AUDIT_CHECKPOINT_URL", url.as_str())];
    let replica = Replica::launch(&app, journal.path(), &variables).await.expect("it starts");
    app.database.until(ALL_CLOSED).await;
    for _ in 0..100 {
        if replica.log().contains("could not be posted") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let log = replica.log();
    let head = app.database.text("select encode(head, 'hex') from audit_batches order by number desc limit 1").await;
    assert!(log.contains("a batch of the audit is closed") && log.contains(&head), "{log}");
    assert!(log.contains("it answered 404"));
    let ours: Vec<&str> = log.lines().filter(|line| line.contains("token_broker") && line.contains("secret=path")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[tokio::test]
async fn a_url_that_is_none_keeps_the_service_from_starting_and_is_not_repeated() {
    let mut app = TestApp::start().await;
    app.stop().await;
    let journal = tempfile::tempdir().expect("a directory");
    let said =
        Replica::launch(&app, journal.path(), &[("TOKEN_BROKER_AUDIT_CHECKPOINT_URL", "log.example/secret-path")]).await.err();
    let said = said.expect("it does not start");
    assert!(said.contains("TOKEN_BROKER_AUDIT_CHECKPOINT_URL") && !said.contains("secret-path"), "{said}");
}

#[tokio::test]
async fn a_frozen_copy_closes_nothing() {
    let mut app = TestApp::start().await;
    app.stop().await;
    app.database = app.database.copy().await;
    app.journal = tempfile::tempdir().expect("a directory");
    app.start_again().await;
    app.ci.get("/health/ready").await.refused(503, "frozen");
    app.admin.get("/tokens/absent").await.refused(404, "not-found");
    app.database.run(NOW).await;
    let before = app.database.count("select count(*) from audit_batches").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(app.database.count("select count(*) from audit_batches").await, before);
    assert_eq!(app.database.count(&format!("select count(*) where {ALL_CLOSED}")).await, 0, "there is something to close");
}
