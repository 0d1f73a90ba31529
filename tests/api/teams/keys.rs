//! `/teams/{team}/keys`.

use serde_json::{Value, json};

use crate::app::{Answer, Client, TestApp};

async fn make(client: &Client, body: Value) -> Answer {
    client.post("/teams/payments/keys", body).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_nowhere() {
    let app = TestApp::start().await;
    let made =
        make(&app.admin, json!({"name": "deployer", "role": "ci", "tokens": ["deploy-*"], "expires_in": 3600})).await.expect(201);
    insta::assert_json_snapshot!(made.shown());
    let key = made.json["key"].as_str().expect("a key");
    assert!(key.starts_with("tbk_") && key.len() == 93, "{}", key.len());
    let listed = app.admin.get("/teams/payments/keys").await.expect(200);
    assert!(!listed.text.contains(key) && !listed.text.contains("\"key\""));
    let dump = app.database.dump().await;
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(!dump.contains(key) && !dump.contains(&secret[..64]), "not even its secret half");
    app.admin.with_key(key.to_owned()).get("/whoami").await.expect(200);
}

#[tokio::test]
async fn no_two_keys_are_alike() {
    let app = TestApp::start().await;
    let one = make(&app.admin, json!({"name": "one", "role": "ci"})).await.expect(201);
    let two = make(&app.admin, json!({"name": "two", "role": "ci"})).await.expect(201);
    assert_ne!(one.json["key"], two.json["key"]);
    assert_eq!(one.json["tokens"], json!(["*"]), "all of the team by default");
}

#[tokio::test]
async fn a_key_never_gets_more_than_its_creator_has() {
    let app = TestApp::start().await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["deploy-*", "test"]})).await;
    for tokens in [json!(["*"]), json!(["deploy"]), json!(["deploy-*", "*"]), json!(["d*"]), json!(["*-a"]), json!(["test*"])] {
        make(&narrow, json!({"name": "more", "role": "ci", "tokens": tokens})).await.refused(403, "forbidden");
    }
    make(&narrow, json!({"name": "more", "role": "ci"})).await.refused(403, "forbidden");
    for (name, tokens) in [("a", json!(["deploy-*"])), ("b", json!(["deploy-a*", "test"])), ("c", json!(["deploy-*-x"]))] {
        make(&narrow, json!({"name": name, "role": "admin", "tokens": tokens})).await.expect(201);
    }
    for client in [&app.ci, &app.viewer] {
        for role in ["ci", "viewer", "admin"] {
            make(client, json!({"name": "more", "role": role})).await.refused(403, "forbidden");
        }
    }
}

#[tokio::test]
async fn platform_admin_is_granted_to_nobody_under_a_team() {
    let app = TestApp::start().await;
    for client in [&app.admin, &app.platform] {
        let answer = make(client, json!({"name": "root", "role": "platform-admin"})).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["role"]);
    }
    let roots = "select count(*) from api_keys where role = 'platform-admin' and team_id is not null";
    assert_eq!(app.database.count(roots).await, 0);
}

#[tokio::test]
async fn a_bad_key_is_refused_field_by_field() {
    let app = TestApp::start().await;
    let table = [
        (json!({"role": "ci"}), "name"),
        (json!({"name": "k"}), "role"),
        (json!({"name": "K", "role": "ci"}), "name"),
        (json!({"name": "k", "role": "root"}), "role"),
        (json!({"name": "k", "role": "CI"}), "role"),
        (json!({"name": "k", "role": 1}), "role"),
        (json!({"name": "k", "role": "ci", "tokens": []}), "tokens"),
        (json!({"name": "k", "role": "ci", "tokens": "*"}), "tokens"),
        (json!({"name": "k", "role": "ci", "tokens": vec!["a"; 51]}), "tokens"),
        (json!({"name": "k", "role": "ci", "tokens": ["x".repeat(64)]}), "tokens[0]"),
        (json!({"name": "k", "role": "ci", "expires_in": 0}), "expires_in"),
        (json!({"name": "k", "role": "ci", "expires_in": -1}), "expires_in"),
        (json!({"name": "k", "role": "ci", "expires_in": i64::MAX}), "expires_in"),
        (json!({"name": "k", "role": "ci", "key": "tbk_mine"}), "key"),
    ];
    for (body, field) in table {
        let answer = make(&app.admin, body.clone()).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{body}: {}", answer.text);
    }
    make(&app.admin, json!({"name": "ci", "role": "ci"})).await.refused(409, "name-taken");
    app.platform.post("/teams/absent/keys", json!({"name": "k", "role": "ci"})).await.refused(404, "not-found");
    make(&app.admin, json!({"name": "k", "role": "ci", "tokens": vec!["a"; 50], "expires_in": 1})).await.expect(201);
}

#[tokio::test]
async fn keys_are_listed_in_pages() {
    let app = TestApp::start().await;
    let page = app.admin.get("/teams/payments/keys?limit=2").await.expect(200);
    let names =
        |page: &Answer| page.json["items"].as_array().expect("items").iter().map(|key| key["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&page), ["admin", "ci"]);
    let next = page.json["next"].as_str().expect("there is more");
    let rest = app.admin.get(&format!("/teams/payments/keys?limit=2&after={next}")).await.expect(200);
    assert_eq!((names(&rest), &rest.json["next"]), (vec![json!("viewer")], &json!(null)));
    for (limit, status) in [("0", 422), ("201", 422), ("abc", 400)] {
        app.admin.get(&format!("/teams/payments/keys?limit={limit}")).await.refused(status, "invalid-request");
    }
}

#[tokio::test]
async fn a_deleted_key_is_gone_and_its_name_free() {
    let app = TestApp::start().await;
    app.admin.delete("/teams/payments/keys/ci").await.expect(204);
    app.admin.delete("/teams/payments/keys/ci").await.refused(404, "not-found");
    app.admin.delete("/teams/payments/keys/absent").await.refused(404, "not-found");
    app.viewer.delete("/teams/payments/keys/viewer").await.refused(403, "forbidden");
    make(&app.admin, json!({"name": "ci", "role": "ci"})).await.expect(201);
}

#[tokio::test]
async fn an_admin_of_some_tokens_sees_and_ends_no_wider_keys() {
    let app = TestApp::start().await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["ci-*"]})).await;
    app.team_key("payments", "ci-a", json!({"role": "ci", "tokens": ["ci-a"]})).await;
    let shown = narrow.get("/teams/payments/keys?limit=1").await.expect(200).json;
    assert_eq!(shown["items"][0]["name"], "ci-a");
    let next = format!("/teams/payments/keys?after={}", shown["next"].as_str().expect("a cursor"));
    assert_eq!(narrow.get(&next).await.json["items"].as_array().map(Vec::len), Some(1), "itself, and nothing wider");
    narrow.delete("/teams/payments/keys/admin").await.expect(404);
    narrow.delete("/teams/payments/keys/ci-a").await.expect(204);
    app.admin.get("/whoami").await.expect(200);
}
