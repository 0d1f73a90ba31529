//! `/teams`.

mod keys;
mod webhooks;

use serde_json::json;

use crate::app::{Answer, TestApp};

#[tokio::test]
async fn a_team_is_made_read_and_deleted_with_its_keys_of_both_kinds() {
    let app = TestApp::start().await;
    let made = app.platform.post("/teams", json!({"name": "orders", "description": "Orders, #orders"})).await.expect(201);
    insta::assert_json_snapshot!(made.shown());
    assert_eq!(app.platform.get(made.header("location")).await.expect(200).json, made.json);
    let admin = app.team_key("orders", "admin", json!({"role": "admin"})).await;
    assert_eq!(admin.get("/teams/orders").await.expect(200).json, made.json, "its own admin may read it");
    app.platform.delete("/teams/orders").await.expect(204);
    app.platform.get("/teams/orders").await.refused(404, "not-found");
    app.platform.delete("/teams/orders").await.refused(404, "not-found");
    for table in ["data_keys", "api_keys"] {
        let left = format!("select count(*) from {table} where team_id is not null and team_id not in (select id from teams)");
        assert_eq!(app.database.count(&left).await, 0, "{table}");
    }
    assert_eq!(app.database.count("select count(*) from data_keys").await, 1, "only the other team's");
}

#[tokio::test]
async fn a_team_that_still_has_tokens_is_not_deleted() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let answer = app.platform.delete("/teams/payments").await.refused(409, "team-in-use");
    insta::assert_json_snapshot!(answer.shown());
    app.ci.refresh("deploy", json!({})).await.expect(200);
    app.admin.delete("/tokens/deploy").await.expect(204);
    app.platform.delete("/teams/payments").await.expect(204);
}

#[tokio::test]
async fn only_a_platform_admin_makes_and_deletes_teams() {
    let app = TestApp::start().await;
    for client in [&app.admin, &app.ci, &app.viewer] {
        client.post("/teams", json!({"name": "mine"})).await.refused(403, "forbidden");
        client.delete("/teams/payments").await.refused(403, "forbidden");
        client.delete("/teams/absent").await.refused(404, "not-found");
    }
}

#[tokio::test]
async fn a_bad_team_is_refused_and_a_name_is_given_once() {
    let app = TestApp::start().await;
    for name in ["", "A", "-a", "a/b", "a b", "ü", "a\0", "a%", &"x".repeat(64)] {
        let answer = app.platform.post("/teams", json!({"name": name})).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), ["name"]);
    }
    let long = json!({"name": "a", "description": "x".repeat(501)});
    assert_eq!(app.platform.post("/teams", long).await.refused(422, "invalid-request").fields(), ["description"]);
    app.platform.post("/teams", json!({"name": "payments"})).await.refused(409, "name-taken");
    app.platform.post("/teams", json!({"name": "x".repeat(63)})).await.expect(201);
}

#[tokio::test]
async fn of_many_at_once_one_makes_the_team() {
    let app = TestApp::start().await;
    let made = (0..6).map(|_| app.platform.post("/teams", json!({"name": "orders"})));
    let mut statuses: Vec<u16> = futures_util::future::join_all(made).await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

fn names(page: &Answer) -> Vec<&str> {
    page.json["items"].as_array().expect("items").iter().map(|team| team["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn teams_are_listed_in_pages_and_each_admin_sees_its_own() {
    let app = TestApp::start().await;
    for name in ["c", "a", "b"] {
        app.platform.post("/teams", json!({"name": name})).await.expect(201);
    }
    let first = app.platform.get("/teams?limit=3").await.expect(200);
    assert_eq!(names(&first), ["a", "b", "c"]);
    let rest = format!("/teams?limit=3&after={}", first.json["next"].as_str().expect("there is more"));
    let rest = app.platform.get(&rest).await.expect(200);
    assert_eq!((names(&rest), &rest.json["next"]), (vec!["payments"], &json!(null)));
    let own = app.admin.get("/teams").await.expect(200);
    assert_eq!((names(&own), &own.json["next"]), (vec!["payments"], &json!(null)));
    for (limit, status) in [("0", 422), ("201", 422), ("-1", 422), ("abc", 400), ("", 400)] {
        app.platform.get(&format!("/teams?limit={limit}")).await.refused(status, "invalid-request");
    }
    app.platform.get("/teams?limit=200").await.expect(200);
}
