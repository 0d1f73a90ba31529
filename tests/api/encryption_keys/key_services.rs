//! Key services that answer wrongly, late, or not at all.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::NamedTempFile;
use token_broker::crypto::{Key, KeyServices, MasterKeyError, MasterKeys, TransitLogin};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::until;
use crate::app::{
    TestApp,
    fake_transit::{Behaving, FakeTransit, listed},
};

/// An app whose data key is wrapped here, and whose first master key is the transit engine's now.
async fn moved_to(transit: &FakeTransit, kept: Duration) -> TestApp {
    let mut app = TestApp::start().await;
    for name in ["one", "two", "three", "four", "five"] {
        app.register_with(name, json!({"reuse_for": 1})).await.expect(201);
    }
    app.stop().await;
    let list = format!("{},{}", transit.entry("bao"), app.master_keys);
    app.change(move |settings| {
        settings.database.master_keys = listed(&list);
        settings.database.keys_kept = kept;
    });
    app.start_again().await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_service_wrapped_is_opened_before_it_takes_the_place_of_the_only_copy() {
    let transit = FakeTransit::start().await;
    let app = moved_to(&transit, Duration::from_secs(600)).await;
    transit.behave(Behaving::Mixed);
    app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    app.platform.post("/teams", json!({"name": "orders"})).await.refused(503, "key-service-unavailable");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id <> 'k1'").await, 0);
    assert_eq!(app.database.count("select count(*) from audit_keys where master_key_id <> 'k1'").await, 0);

    transit.behave(Behaving::Well);
    app.database.run("update jobs set due_at = now() where kind = 'reseal'").await;
    until(&app, "re-wrapped", |keys| keys["rewrap"].is_null()).await;
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id = 'bao'").await, 1);
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    assert_eq!(app.admin.refresh("one", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_key_is_kept_fresh_while_nothing_is_rotated_and_made_once_for_a_burst() {
    let transit = FakeTransit::start().await;
    let kept = Duration::from_secs(6);
    let app = moved_to(&transit, kept).await;
    tokio::time::sleep(kept * 2).await;
    transit.behave(Behaving::Away);
    let rotated = app.admin.refresh("one", json!({"max_age": 0})).await.expect(200);
    assert_eq!(rotated.json["refreshed"], true, "an outage finds a key in memory: {}", rotated.text);
    tokio::time::sleep(kept).await;
    let refused = app.admin.refresh("one", json!({"max_age": 0, "wait": 1})).await.expect(200);
    assert_eq!(refused.json["warnings"], json!(["refresh-pending"]), "its time in memory is bounded");

    let before = transit.encryptions();
    transit.behave(Behaving::Well);
    let names = ["one", "two", "three", "four", "five"];
    for rotated in join_all(names.map(|name| app.admin.refresh(name, json!({"max_age": 0, "wait": 10})))).await {
        assert_eq!(rotated.expect(200).json["refreshed"], true);
    }
    assert_eq!(transit.encryptions() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_service_that_is_silent_is_told_in_time_and_as_what_it_is() {
    let transit = FakeTransit::start().await;
    let list = transit.entry("bao");
    let app = TestApp::start_changed(move |settings| {
        settings.database.master_keys = listed(&list);
        settings.database.keys_kept = Duration::from_secs(1);
    })
    .await;
    app.register("deploy").await;
    transit.behave(Behaving::Silent);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    app.ci.refresh("deploy", json!({"wait": 1})).await.refused(503, "key-service-unavailable");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let began = Instant::now();
    for ready in join_all((0..5).map(|_| app.ci.get("/health/ready"))).await {
        ready.refused(503, "key-service-unavailable");
    }
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

/// A list of one transit key at this address, asked after a login of a pod.
fn logging_in(address: &str) -> (MasterKeys, NamedTempFile) {
    let mut token_file = NamedTempFile::new().expect("a file");
    token_file.write_all(b"of a pod").expect("writes");
    let login = TransitLogin::Kubernetes {
        role: "broker".to_owned(),
        mount: "kubernetes".to_owned(),
        token_file: token_file.path().to_owned(),
    };
    let services = KeyServices { transit: Some(login), ..KeyServices::default() };
    let list = format!("bao:transit:{address}/transit/keys/broker");
    (MasterKeys::parse_with(&list, &services).expect("keys"), token_file)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_login_that_is_never_answered_waits_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    // Connections are held open, and nothing is said.
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    let (keys, _file) = logging_in(&address);
    let (key, began) = (Key::generate(), Instant::now());
    for wrapped in join_all((0..5).map(|_| keys.wrap("bao", Uuid::nil(), &key))).await {
        assert!(matches!(wrapped, Err(MasterKeyError::Unavailable(id, _)) if id == "bao"));
    }
    assert!(began.elapsed() < Duration::from_millis(7500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_ended_is_replaced_once_by_whoever_finds_out() {
    let transit = FakeTransit::start().await;
    let (keys, _file) = logging_in(&transit.address);
    let key = Key::generate();
    keys.wrap("bao", Uuid::nil(), &key).await.expect("wraps");
    assert_eq!(transit.logins(), 1);
    transit.end_logins();
    for wrapped in join_all((0..5).map(|_| keys.wrap("bao", Uuid::nil(), &key))).await {
        wrapped.expect("wraps");
    }
    assert_eq!(transit.logins(), 3, "the one that was ended counts too");
}
