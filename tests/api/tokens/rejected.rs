//! `rejected_token_id`: a caller says that JFrog refuses what it was handed.

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route};

use crate::app::TestApp;

fn asked(app: &TestApp) -> usize {
    app.simulator.counters().get(&Route::Me).map_or(0, |counter| counter.calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dead_at_jfrog_is_replaced_by_one_that_works() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let dead = app.ci.refresh("deploy", json!({})).await.expect(200);
    let id = dead.json["token_id"].as_str().expect("an id").to_owned();
    assert!(app.simulator.revoke(id.parse().expect("a UUID")));
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).access_token(), dead.access_token(), "nobody knows yet");

    let other = app.ci.refresh("deploy", json!({"rejected_token_id": id})).await.expect(200);
    assert!(app.simulator.is_alive(other.access_token()));
    app.token_until("deploy", "whole again", |token| {
        token["chains"].as_array().expect("chains").iter().all(|chain| chain["status"] == "active")
    })
    .await;
    let reason = "select reason from audit_events where action = 'chain.reject'";
    assert_eq!(app.database.text(reason).await, "access-token-dead");
}

#[tokio::test]
async fn jfrog_is_asked_once_whoever_says_so_and_a_living_token_stays() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    for _ in 0..5 {
        let again = app.ci.refresh("deploy", json!({"rejected_token_id": handed.json["token_id"]})).await.expect(200);
        assert_eq!(again.access_token(), handed.access_token());
    }
    assert_eq!(asked(&app), 1);
    app.ci.refresh("deploy", json!({"rejected_token_id": "an-older-one"})).await.expect(200);
    assert_eq!(asked(&app), 1, "another id than the current one's is no news");
}

#[tokio::test]
async fn a_gateway_that_says_no_kills_nothing() {
    for fault in [Fault::Forbidden, Fault::Unavailable, Fault::Html404] {
        let app = TestApp::start().await;
        app.register("deploy").await;
        let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
        app.simulator.fault(token_broker::dev::simulator::Rule::always(fault));
        let again = app.ci.refresh("deploy", json!({"rejected_token_id": handed.json["token_id"]})).await.expect(200);
        assert_eq!(again.access_token(), handed.access_token());
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for bad in [json!(""), json!("x".repeat(256)), json!(7)] {
        let refused = app.ci.refresh("deploy", json!({"rejected_token_id": bad})).await.expect(422);
        assert_eq!(refused.json["errors"][0]["field"], "rejected_token_id");
    }
}
