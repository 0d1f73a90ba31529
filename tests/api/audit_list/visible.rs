//! Who sees which events.

use serde_json::{Value, json};

use super::{events, ids};
use crate::{app::TestApp, identities::World};

fn all_are(events: &[Value], field: &str, value: &Value) -> bool {
    !events.is_empty() && events.iter().all(|event| event[field] == *value)
}

#[tokio::test]
async fn a_team_sees_its_own_events_and_the_platform_admin_whose_it_names() {
    let app = TestApp::start().await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = app.team_key("orders", "admin", json!({"role": "admin"})).await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.platform.get("/tokens").await.refused(400, "team-required");

    let (ours, theirs) = (events(&app.admin, "").await, events(&orders, "").await);
    assert!(all_are(&ours, "team", &json!("payments")) && all_are(&theirs, "team", &json!("orders")));
    assert_eq!(events(&app.admin, "&team=payments").await, ours);
    let fingerprint = token_broker::crypto::fingerprint(handed.access_token());
    let request = handed.header("x-request-id");
    for query in [format!("&fingerprint={fingerprint}"), format!("&request_id={request}"), "&token=deploy".to_owned()] {
        assert!(!events(&app.admin, &query).await.is_empty(), "{query}");
        assert!(events(&orders, &query).await.is_empty(), "{query}");
        assert!(events(&app.platform, &query).await.is_empty(), "{query}: not the platform's own");
        assert!(!events(&app.platform, &format!("{query}&team=payments")).await.is_empty(), "{query}");
    }
    // Another team's cursor leads nowhere else.
    let cursor = app.admin.get("/audit?limit=1").await.expect(200).json["next"].as_str().expect("more").to_owned();
    assert!(all_are(&events(&orders, &format!("&after={cursor}")).await, "team", &json!("orders")));

    let foreign = orders.get("/audit?team=payments").await.refused(404, "not-found");
    let absent = orders.get("/audit?team=no-such-team").await.refused(404, "not-found");
    assert_eq!(foreign.but_for_the_request_id(), absent.but_for_the_request_id());
    app.platform.get("/audit?team=no-such-team").await.refused(404, "not-found");

    let platform = events(&app.platform, "").await;
    assert!(all_are(&platform, "team", &Value::Null));
    assert!(platform.iter().any(|event| event["action"] == "key.create" && event["actor"] == "command-line"));
    assert!(platform.iter().any(|event| event["outcome"] == "refused" && event["actor"] == "platform-key:root"));
    assert_eq!(ids(&events(&app.platform, "&team=orders").await).len(), ids(&events(&orders, "").await).len());
}

#[tokio::test]
async fn an_admin_of_some_tokens_reads_what_is_about_these_and_nothing_else() {
    let app = TestApp::start().await;
    for name in ["deploy_a", "deploy-b", "secret"] {
        app.register(name).await;
        app.ci.refresh(name, json!({})).await.expect(200);
        app.viewer.refresh(name, json!({})).await.refused(403, "forbidden");
    }
    let admin =
        async |name: &str, tokens: Value| app.team_key("payments", name, json!({"role": "admin", "tokens": tokens})).await;
    let all = events(&app.admin, "").await;
    assert!(all.iter().any(|event| event["token"].is_null()), "there are events about no token");
    for (name, tokens, covered) in [
        ("one", json!(["deploy_*"]), vec!["deploy_a"]),
        ("two", json!(["deploy*"]), vec!["deploy_a", "deploy-b"]),
        ("both", json!(["*-b", "secret"]), vec!["deploy-b", "secret"]),
        ("none", json!(["absent"]), vec![]),
    ] {
        let narrow = admin(name, tokens).await;
        let expected = all.iter().filter(|event| event["token"].as_str().is_some_and(|token| covered.contains(&token)));
        let expected: Vec<Value> = expected.cloned().collect();
        assert_eq!(events(&narrow, "").await, expected, "{name}");
        let paged = narrow.get("/audit?limit=1").await.expect(200);
        assert_eq!(super::items(&paged).len(), expected.len().min(1), "{name}: what is not seen makes no page shorter");
        let hidden: Vec<&Value> = all.iter().filter(|event| !expected.contains(event)).collect();
        assert!(!hidden.is_empty());
        for event in hidden {
            let id = event["request_id"].as_str().expect("a request id");
            let found = events(&narrow, &format!("&request_id={id}")).await;
            assert!(!found.contains(event), "{name}: {event}");
        }
    }
    // What covers everything sees everything, however it is written.
    for (name, tokens) in [("star", json!(["*"])), ("stars", json!(["x", "**"]))] {
        let wide = admin(name, tokens).await;
        let seen = events(&wide, "").await;
        assert_eq!(seen, events(&app.admin, "").await, "{name}");
    }
    for client in [&app.viewer, &app.ci] {
        client.get("/audit").await.refused(403, "forbidden");
        client.get("/audit?token=deploy_a").await.refused(403, "forbidden");
        client.get("/audit?team=payments").await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn a_job_that_is_admin_of_one_token_and_user_of_all_reads_about_the_one() {
    let world = World::start().await;
    let app = &world.app;
    for name in ["mine", "other"] {
        app.register(name).await;
    }
    world.write(world.rule("users", json!({"role": "ci", "tokens": ["*"]}))).await.expect(201);
    let job = world.job(json!({}));
    job.get("/audit").await.refused(403, "forbidden");
    world.write(world.rule("admins", json!({"role": "admin", "tokens": ["mine"]}))).await.expect(201);
    world.felt().await;
    let both = world.job(json!({"jti": "another"}));
    both.refresh("other", json!({})).await.expect(200);
    assert!(all_are(&events(&both, "").await, "token", &json!("mine")));
    assert!(events(&both, "&token=other").await.is_empty());
}
