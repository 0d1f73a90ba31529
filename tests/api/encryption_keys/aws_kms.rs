//! Master keys in AWS KMS, against a local emulator.

use std::{fs, path::Path};

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use secrecy::SecretString;
use serde_json::json;
use token_broker::{
    config::Settings,
    crypto::{AwsKms, Credential, KeyServices, MasterKeyError, MasterKeys},
};

use tokio::{net::TcpListener, sync::mpsc};

use super::{data_keys, peers::Kms, until};
use crate::app::{TestApp, some_master_key};

fn with(list: String, endpoint: String) -> impl Fn(&mut Settings) + Send + Sync + 'static {
    move |settings| {
        let aws = AwsKms {
            access_key_id: Credential::Given(SecretString::from("test")),
            secret_access_key: Credential::Given(SecretString::from("test")),
            session_token: None,
            endpoint: Some(endpoint.clone()),
        };
        let services = KeyServices { aws: Some(aws), ..KeyServices::default() };
        settings.database.master_keys = MasterKeys::parse_with(&list, &services).expect("keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_to_kms_while_serving_and_a_wrong_one_is_refused() {
    let Some(kms) = Kms::start(2).await else { return };
    let here = some_master_key("k7");
    let mut app = TestApp::start_changed(with(here.clone(), kms.endpoint.clone())).await;
    app.register("deploy").await;
    app.stop().await;
    app.change(with(format!("aws:awskms:{},{here}", kms.keys[0]), kms.endpoint.clone()));
    app.start_again().await;
    app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    until(&app, "re-wrapped", |keys| keys["rewrap"].is_null()).await;
    assert_eq!(data_keys(&app).await[0]["master_key"], "aws");
    app.stop().await;
    app.start_again().await;
    assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.ci.get("/health/ready").await.expect(200);

    app.stop().await;
    app.change(with(format!("aws:awskms:{},{here}", kms.keys[1]), kms.endpoint.clone()));
    let wrong = app.refused_to_start().await;
    // AWS says IncorrectKeyException, the emulator that access is denied: either way it is named.
    assert!(wrong.contains("master key aws"), "{wrong}");
    app.change(with(format!("aws:awskms:{},{here}", kms.keys[0].replace("key/", "key/0")), kms.endpoint.clone()));
    assert!(app.refused_to_start().await.contains("master key aws"));

    // One team's wrapped key in another's row: the encryption context does not fit.
    app.database.run("update data_keys d set wrapped = o.wrapped from data_keys o where o.team_id <> d.team_id").await;
    app.change(with(format!("aws:awskms:{},{here}", kms.keys[0]), kms.endpoint));
    app.start_again().await;
    app.ci.refresh("deploy", json!({})).await.refused(500, "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_files_are_read_anew_at_each_call() {
    let (heard, mut calls) = mpsc::unbounded_channel::<HeaderMap>();
    let refuse = async |State(heard): State<mpsc::UnboundedSender<HeaderMap>>, headers: HeaderMap| {
        heard.send(headers).expect("the test listens");
        (StatusCode::BAD_REQUEST, r#"{"__type": "DisabledException"}"#)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let routes = Router::new().route("/", post(refuse)).with_state(heard);
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });

    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| Credential::File(dir.path().join(name));
    let aws = AwsKms {
        access_key_id: file("id"),
        secret_access_key: file("secret"),
        session_token: Some(file("session")),
        endpoint: Some(endpoint),
    };
    let list = "aws:awskms:arn:aws:kms:eu-central-1:123456789012:key/0a1b";
    let keys = MasterKeys::parse_with(list, &KeyServices { aws: Some(aws), ..KeyServices::default() }).expect("keys");
    let mut said = Vec::new();
    for turn in ["one", "two"] {
        rewrite(dir.path(), turn);
        assert!(matches!(keys.canary("aws").await, Err(MasterKeyError::Unavailable(..))));
        let headers = calls.recv().await.expect("a call");
        let text = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
        assert_eq!(text("x-amz-security-token"), format!("session-{turn}"));
        assert!(text("authorization").contains(&format!("Credential=id-{turn}/")), "{}", text("authorization"));
        said.push(text("authorization").rsplit_once('=').expect("a signature").1.to_owned());
    }
    assert_ne!(said[0], said[1]);
    fs::remove_file(dir.path().join("secret")).expect("removes");
    let error = keys.canary("aws").await.expect_err("there is none").to_string();
    assert!(error.contains("reading") && !error.contains("secret-two"), "{error}");
}

fn rewrite(dir: &Path, turn: &str) {
    for name in ["id", "secret", "session"] {
        fs::write(dir.join(name), format!("{name}-{turn}\n")).expect("writes");
    }
}
