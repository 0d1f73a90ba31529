//! `/platform/keys`.

use std::time::Duration;

use serde_json::json;

use crate::app::{Answer, TestApp};

#[tokio::test]
async fn a_platform_key_is_shown_once_and_does_everything() {
    let app = TestApp::start().await;
    let made = app.platform.post("/platform/keys", json!({"name": "terraform"})).await.expect(201);
    insta::assert_json_snapshot!(made.shown());
    let key = made.json["key"].as_str().expect("a key").to_owned();
    let listed = app.platform.get("/platform/keys").await.expect(200);
    assert!(!listed.text.contains(&key) && !listed.text.contains("\"key\""), "{}", listed.text);
    let terraform = app.platform.with_key(key);
    terraform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.platform.delete("/platform/keys/terraform").await.expect(204);
    app.platform.delete("/platform/keys/terraform").await.refused(404, "not-found");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    terraform.get("/teams").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn nobody_else_sees_makes_or_deletes_one() {
    let app = TestApp::start().await;
    for client in [&app.admin, &app.ci, &app.viewer] {
        client.get("/platform/keys").await.refused(403, "forbidden");
        client.post("/platform/keys", json!({"name": "mine"})).await.refused(403, "forbidden");
        client.delete("/platform/keys/root").await.refused(403, "forbidden");
        client.delete("/platform/keys/absent").await.refused(403, "forbidden");
    }
    app.platform.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_bad_one_is_refused() {
    let app = TestApp::start().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "k", "role": "admin"}), "role"),
        (json!({"name": "k", "expires_in": 0}), "expires_in"),
        (json!({"name": "k", "expires_in": "1h"}), "expires_in"),
    ] {
        let answer = app.platform.post("/platform/keys", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field]);
    }
    app.platform.post("/platform/keys", json!({"name": "root"})).await.refused(409, "name-taken");
}

#[tokio::test]
async fn they_are_listed_in_pages_apart_from_the_teams_keys() {
    let app = TestApp::start().await;
    app.platform.post("/platform/keys", json!({"name": "another"})).await.expect(201);
    let names =
        |page: &Answer| page.json["items"].as_array().expect("items").iter().map(|key| key["name"].clone()).collect::<Vec<_>>();
    let first = app.platform.get("/platform/keys?limit=1").await.expect(200);
    assert_eq!(names(&first), ["another"]);
    let next = first.json["next"].as_str().expect("there is more");
    let second = app.platform.get(&format!("/platform/keys?limit=5&after={next}")).await.expect(200);
    assert_eq!((names(&second), &second.json["next"]), (vec![json!("root")], &json!(null)));
    app.platform.get("/platform/keys?limit=201").await.refused(422, "invalid-request");
}
