//! Master keys in the transit engine of a real OpenBao.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use token_broker::{
    config::Settings,
    crypto::{KeyServices, MasterKeys, TransitLogin},
    outbound::Route,
};

use super::{data_keys, master_key, peers::OpenBao, until};
use crate::app::{TestApp, issuer::Issuer, some_master_key};

fn given(list: &str, login: &TransitLogin) -> MasterKeys {
    let services = KeyServices { transit: Some(login.clone()), transit_route: Route::default(), aws: None };
    MasterKeys::parse_with(list, &services).expect("keys")
}

fn token(text: &str) -> TransitLogin {
    TransitLogin::Token(SecretString::from(text))
}

/// An app whose master keys are these, at its next starts too.
async fn app_with(list: String, login: TransitLogin, kept: Duration) -> TestApp {
    TestApp::start_changed(with(list, login, kept)).await
}

fn with(list: String, login: TransitLogin, kept: Duration) -> impl Fn(&mut Settings) + Send + Sync + 'static {
    move |settings| {
        settings.database.master_keys = given(&list, &login);
        settings.database.keys_kept = kept;
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_service_that_is_away_is_survived_by_what_is_in_memory_and_said() {
    let Some(bao) = OpenBao::start().await else { return };
    let list = format!("bao:transit:{}/transit/keys/broker", bao.address);
    let kept = Duration::from_secs(15);
    let app = app_with(list, token(&bao.token), kept).await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    assert_eq!(app.database.text("select convert_from(substring(wrapped for 9), 'UTF8') from data_keys").await, "vault:v1:");
    app.ci.get("/health/ready").await.expect(200);
    app.ci.refresh("deploy", json!({})).await.expect(200);

    bao.seal().await;
    // A first answer may be remembered for seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    app.ci.get("/health/ready").await.refused(503, "key-service-unavailable");
    let handed = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    assert_eq!(handed.json["refreshed"], true, "the journal's key was there before: {}", handed.text);
    app.platform.post("/teams", json!({"name": "orders"})).await.refused(503, "key-service-unavailable");
    let refused = app.refused_to_start().await;
    assert!(refused.contains("journal") || refused.contains("master key bao cannot be asked for"), "{refused}");

    // Its time in memory is bounded.
    tokio::time::sleep(kept).await;
    let spent = app.simulator.refreshes();
    app.ci.refresh("deploy", json!({"wait": 1})).await.refused(503, "key-service-unavailable");
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.refused(503, "key-service-unavailable");
    assert_eq!(app.simulator.refreshes(), spent, "nothing is spent that could not be saved");

    bao.unseal().await;
    assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    tokio::time::sleep(Duration::from_secs(6)).await;
    app.ci.get("/health/ready").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_from_the_environment_to_openbao_and_back_while_serving() {
    let Some(bao) = OpenBao::start().await else { return };
    let (here, there) = (some_master_key("k7"), format!("transit:{}/v1/transit/keys/broker", bao.address));
    let mut app = app_with(here.clone(), token(&bao.token), LONG).await;
    app.register("deploy").await;
    for (list, first, old) in [(format!("{there},{here}"), "transit", "k7"), (format!("{here},{there}"), "k7", "transit")] {
        app.stop().await;
        app.change(with(list, token(&bao.token), LONG));
        app.start_again().await;
        assert_eq!(master_key(&app, first).await["state"], "wraps");
        app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
        until(&app, "re-wrapped", |keys| keys["rewrap"].is_null()).await;
        assert_eq!(data_keys(&app).await[0]["master_key"], first);
        assert_eq!(master_key(&app, old).await["wrapped_keys"], 0);
        assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
        app.stop().await;
        app.start_again().await;
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_a_swapped_one_and_a_login_that_is_not_let_in_are_refused() {
    let Some(bao) = OpenBao::start().await else { return };
    let at = |name: &str| format!("bao:transit:{}/transit/keys/{name}", bao.address);
    let mut app = app_with(at("broker"), token(&bao.token), LONG).await;
    app.register("deploy").await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.stop().await;
    app.change(with(at("other"), token(&bao.token), LONG));
    let wrong = app.refused_to_start().await;
    assert!(wrong.contains("master key bao is not the key that was used under this id"), "{wrong}");
    app.change(with(at("none"), token(&bao.token), LONG));
    assert!(app.refused_to_start().await.contains("master key bao cannot be asked for"));
    app.change(with(at("broker"), token("s.nobody"), LONG));
    let refused = app.refused_to_start().await;
    assert!(refused.contains("lets this service not in") && !refused.contains("s.nobody"), "{refused}");

    // One team's wrapped key in another's row.
    app.database.run("update data_keys d set wrapped = o.wrapped from data_keys o where o.team_id <> d.team_id").await;
    app.change(with(at("broker"), token(&bao.token), LONG));
    app.start_again().await;
    app.ci.refresh("deploy", json!({})).await.refused(500, "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_file_is_read_anew_when_it_changes() {
    let Some(bao) = OpenBao::start().await else { return };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{}\n", bao.token)).expect("writes");
    let list = format!("bao:transit:{}/transit/keys/broker", bao.address);
    let app = app_with(list, TransitLogin::TokenFile(file.path().to_owned()), LONG).await;
    bao.told("auth/token/revoke", json!({"token": bao.token})).await;
    app.platform.post("/teams", json!({"name": "orders"})).await.refused(503, "key-service-unavailable");
    std::fs::write(file.path(), bao.new_token().await).expect("writes");
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_logs_in_with_its_service_account_and_again_when_that_is_over() {
    let Some(bao) = OpenBao::start().await else { return };
    let issuer = Issuer::start().await;
    bao.trust(&issuer, 3).await;
    let mut claims = issuer.claims();
    claims["sub"] = json!("broker");
    let token_file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token_file.path(), issuer.sign(&claims)).expect("writes");
    let login = |role: &str| TransitLogin::Kubernetes {
        role: role.to_owned(),
        mount: "kubernetes".to_owned(),
        token_file: token_file.path().to_owned(),
    };
    let list = format!("bao:transit:{}/transit/keys/broker", bao.address);
    let mut app = app_with(list.clone(), login("broker"), LONG).await;
    for team in ["one", "two"] {
        app.platform.post("/teams", json!({"name": team})).await.expect(201);
        // Longer than a login is good for.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    claims["sub"] = json!("somebody");
    std::fs::write(token_file.path(), issuer.sign(&claims)).expect("writes");
    app.platform.post("/teams", json!({"name": "three"})).await.refused(503, "key-service-unavailable");
    app.stop().await;
    app.change(with(list, login("nobody"), LONG));
    assert!(app.refused_to_start().await.contains("master key bao cannot be asked for"));
}
