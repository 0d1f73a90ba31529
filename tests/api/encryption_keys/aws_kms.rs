//! Master keys in AWS KMS, against a local emulator.

use secrecy::SecretString;
use serde_json::json;
use token_broker::{
    config::Settings,
    crypto::{AwsKms, KeyServices, MasterKeys},
};

use super::{data_keys, peers::Kms, until};
use crate::app::{TestApp, some_master_key};

fn with(list: String, endpoint: String) -> impl Fn(&mut Settings) + Send + Sync + 'static {
    move |settings| {
        let aws = AwsKms {
            access_key_id: "test".to_owned(),
            secret_access_key: SecretString::from("test"),
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
